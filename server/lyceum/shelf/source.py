"""Where a model file comes from: a name in the catalogue, a file of a repository on the hub, or an URL.

huggingface-hub says what the hub knows (commit, size, SHA-256) and who we are (HF_TOKEN, HF_HOME, HF_ENDPOINT).
The bytes are fetched by `fetch`: the hub's own downloader resumes into a cache of its own layout, from which the
file would have to be copied, and it would leave the checking and the disk to us all the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import httpx2 as httpx
from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lyceum.errors import ConfigError, ServiceError
from lyceum.shelf.catalogue import Entry

SHA256 = re.compile(r"[0-9a-f]{64}")
HUB_FILE = re.compile(r"hf:(?P<repo>[^/@\s]+/[^/@\s]+)/(?P<file>[^@\s]+?)(?:@(?P<revision>\S+))?")


@dataclass(frozen=True, slots=True)
class Source:
    """`sha256` "" and `size` 0 where nobody states them. `stated_by`: whose word the digest is."""

    url: str
    file: str
    sha256: str = ""
    stated_by: str = ""
    size: int = 0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def find(what: str, catalogue: Mapping[str, Entry], sha256: str = "") -> Source:
    """Asks the hub where it must. Raises ConfigError for what makes no sense, ServiceError for the network."""
    if sha256 and not SHA256.fullmatch(sha256):
        raise ConfigError(f"--sha256 takes 64 hexadecimal digits, not {sha256!r}")
    if what.startswith(("https://", "http://")):
        return Source(what, _plain_name(unquote(urlsplit(what).path)), sha256, "--sha256" if sha256 else "")
    if entry := catalogue.get(what):
        expected = (sha256, "--sha256") if sha256 else (entry.sha256, "the catalogue")
        return _on_hub(entry.repo, entry.file, entry.revision, *expected)
    if match := HUB_FILE.fullmatch(what):
        return _on_hub(match["repo"], match["file"], match["revision"] or "", sha256, "--sha256")
    raise ConfigError(
        f"{what!r} is neither in the catalogue (lyceum models list --catalogue) nor hf:OWNER/REPO/FILE.gguf nor an URL"
    )


def _on_hub(repo: str, file: str, revision: str, sha256: str, stated_by: str) -> Source:
    """The file at the commit that the hub names, so that a broken download goes on with the same bytes."""
    name, place = _plain_name(file), f"{repo}/{file}" + (f" at {revision}" if revision else "")
    try:
        found = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision or None))
        url = hf_hub_url(repo, file, revision=found.commit_hash or revision or None)
        token = get_token()
    except HFValidationError as error:
        raise ConfigError(f"{repo!r} is no name of a repository: {error}") from None
    except OfflineModeIsEnabled:
        raise ServiceError("HF_HUB_OFFLINE is set, so the hub is not asked; unset it to fetch models") from None
    except GatedRepoError:
        raise ServiceError(f"{repo} is gated: accept its terms on its page, then set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise ServiceError(f"the hub has no revision {revision} of {repo}") from None
    except RemoteEntryNotFoundError:
        raise ServiceError(f"the hub has no file {place}; its page lists the files: Files and versions") from None
    except RepositoryNotFoundError:
        raise ServiceError(
            f"the hub has no repository {repo}, or it is private: check the name, or set HF_TOKEN"
        ) from None
    except HfHubHTTPError as error:
        raise ServiceError(f"the hub answered {error.response.status_code} for {place}; try again later") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise ServiceError(f"the hub cannot be reached ({_reason(error)}); check the network, or HF_ENDPOINT") from None
    if not sha256 and found.etag and SHA256.fullmatch(found.etag):
        sha256, stated_by = found.etag, "the hub"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Source(url, name, sha256, stated_by if sha256 else "", found.size or 0, headers)


def _plain_name(path: str) -> str:
    name = PurePosixPath(path).name
    if not name.endswith(".gguf") or name.startswith("."):
        raise ConfigError(f"{path!r} does not end in the name of a .gguf file")
    return name


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
