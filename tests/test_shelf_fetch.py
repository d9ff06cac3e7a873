"""Fetching a model: whole and right, or a clear line and what came is kept. Real HTTP, real files, real limits."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hubs import COMMIT, Hub, serving_hub
from lyceum.errors import ConfigError, LyceumError, ModelError, ServiceError
from lyceum.shelf.catalogue import CHECKOUT, PACKED, Entry, load_catalogue
from lyceum.shelf.fetch import Fetched, fetch
from lyceum.shelf.source import Source, find

CONTENT = b"GGUF" + bytes(range(256)) * 2000


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving_hub(Hub(CONTENT)) as hub:
        yield hub


def get(hub: Hub, folder: Path, sha256: str = "", steps: list[tuple[int, int]] | None = None) -> Fetched:
    source = Source(hub.file, "file.gguf", sha256, "--sha256" if sha256 else "")
    return fetch(source, folder, lambda *step: (steps if steps is not None else []).append(step), wait=lambda _: None)


def pull(
    *words: str | Path, hub: Hub | None = None, most: int = 0, environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """`lyceum models pull` as a process, whose files cannot grow beyond `most` bytes."""
    endpoint = {"HF_ENDPOINT": hub.url} if hub else {}
    return subprocess.run(
        [sys.executable, "-m", "lyceum", "models", "pull", *map(str, words)],
        env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", **endpoint, **environment},
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))) if most else None,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Whole and right


def test_a_file_comes_whole(hub: Hub, tmp_path: Path) -> None:
    """Nothing but the file is left, its digest is told, and progress ends with all of it."""
    steps: list[tuple[int, int]] = []
    fetched = get(hub, tmp_path / "new" / "folder", steps=steps)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.sha256 == hub.sha256
    assert names(fetched.path.parent) == ["file.gguf"]
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_what_is_there_and_right_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    """The digest settles it, without a request."""
    (tmp_path / "file.gguf").write_bytes(CONTENT)
    assert get(hub, tmp_path, hub.sha256).size == len(CONTENT)
    assert hub.log == []


def test_another_file_of_that_name_is_left_alone(hub: Hub, tmp_path: Path) -> None:
    """It may be somebody's work."""
    (tmp_path / "file.gguf").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="there already"):
        get(hub, tmp_path, hub.sha256)
    assert (tmp_path / "file.gguf").read_bytes() == b"mine"


# Broken off


def test_a_broken_connection_goes_on_by_itself(hub: Hub, tmp_path: Path) -> None:
    """Each try asks only for what is missing."""
    hub.cuts = [100_000, 50_000]
    assert get(hub, tmp_path).path.read_bytes() == CONTENT
    assert hub.ranges_asked == ["", "bytes=100000-", "bytes=150000-"]


def test_the_next_run_goes_on_where_the_last_one_stopped(hub: Hub, tmp_path: Path) -> None:
    """The part outlives its process, and the error says so."""
    hub.cuts = [100_000, 0, 0, 0, 0, 0]
    with pytest.raises(ServiceError, match=r"100 kB are kept in .*file.gguf.part: the same command goes on"):
        get(hub, tmp_path, hub.sha256)
    assert names(tmp_path) == ["file.gguf.part", "file.gguf.part.json"]
    fetched = get(hub, tmp_path, hub.sha256)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.resumed_at == 100_000
    assert hub.ranges_asked[-1] == "bytes=100000-"


def test_a_file_that_changed_in_between_is_begun_anew(hub: Hub, tmp_path: Path) -> None:
    """Without a known digest If-Range keeps two versions apart."""
    hub.cuts = [100_000, *[0] * 5]
    with pytest.raises(ServiceError):
        get(hub, tmp_path)
    hub.content, hub.etag = b"GGUF" + b"other" * 60_000, '"two"'
    assert get(hub, tmp_path).path.read_bytes() == hub.content


def test_a_part_of_another_digest_is_begun_anew(hub: Hub, tmp_path: Path) -> None:
    """What the part is of stands beside it."""
    hub.cuts = [100_000, *[0] * 5]
    with pytest.raises(ServiceError):
        get(hub, tmp_path, hub.sha256)
    hub.content = b"GGUF" + b"other" * 60_000
    assert get(hub, tmp_path, hub.sha256).path.read_bytes() == hub.content


@pytest.mark.parametrize("etag", ['"one"', 'W/"weak"', ""])
def test_a_server_without_ranges_sends_it_from_the_start(hub: Hub, tmp_path: Path, etag: str) -> None:
    """Its 200 replaces what came before."""
    hub.ranges, hub.etag, hub.cuts = False, etag, [100_000]
    assert get(hub, tmp_path).path.read_bytes() == CONTENT
    assert len(hub.ranges_asked) == 2


def test_a_part_that_is_already_whole_is_only_checked(hub: Hub, tmp_path: Path) -> None:
    """The server's 416 says that nothing is missing."""
    (tmp_path / "file.gguf.part").write_bytes(CONTENT)
    (tmp_path / "file.gguf.part.json").write_text(json.dumps({"url": hub.file, "sha256": hub.sha256, "etag": ""}))
    assert get(hub, tmp_path, hub.sha256).path.read_bytes() == CONTENT
    assert hub.ranges_asked == [f"bytes={len(CONTENT)}-"]


def test_a_busy_server_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    """503 and 429 pass."""
    hub.statuses = [503, 429]
    assert get(hub, tmp_path).path.read_bytes() == CONTENT


def test_two_at_once_do_not_mix(hub: Hub, tmp_path: Path) -> None:
    """The part is locked."""
    hub.cuts = [100_000]

    def report(done: int, _: int) -> None:
        if done:
            with pytest.raises(ServiceError, match="already, by another"):
                get(hub, tmp_path)

    fetch(Source(hub.file, "file.gguf"), tmp_path, report, wait=lambda _: None)


# Wrong


def test_a_wrong_digest_removes_the_file(hub: Hub, tmp_path: Path) -> None:
    """The error says what was expected and what was found."""
    with pytest.raises(ModelError, match=f"--sha256 promises: SHA-256 expected {'0' * 64}, found {hub.sha256}"):
        get(hub, tmp_path, "0" * 64)
    assert names(tmp_path) == []


def test_a_web_page_is_no_model(hub: Hub, tmp_path: Path) -> None:
    """Even where nobody states a digest."""
    hub.content = b"<!DOCTYPE html>"
    with pytest.raises(ModelError, match="no GGUF file"):
        get(hub, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(("status", "words"), [(404, "correct the address"), (401, "HF_TOKEN"), (410, "answered 410")])
def test_a_refusal_is_told(hub: Hub, tmp_path: Path, status: int, words: str) -> None:
    """With what to do about it."""
    hub.statuses = [status]
    with pytest.raises(ServiceError, match=words):
        get(hub, tmp_path)


def test_no_network_is_one_line(tmp_path: Path) -> None:
    """At once: only a connection that was there is tried again."""
    with pytest.raises(ServiceError, match=r"cannot fetch http://127\.0\.0\.1:9/file\.gguf: .*check the network"):
        fetch(Source("http://127.0.0.1:9/file.gguf", "file.gguf"), tmp_path, lambda *_: None, wait=lambda _: None)


def test_a_folder_that_cannot_be_made(hub: Hub, tmp_path: Path) -> None:
    """It is named, with the system's reason."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ServiceError, match=r"cannot write into .*taken"):
        get(hub, tmp_path / "taken" / "below")


# The disk


def test_too_little_room_is_said_before_anything_is_written(hub: Hub, tmp_path: Path) -> None:
    """The size comes first, and 5 % to spare."""
    hub.claims = 10**16
    with pytest.raises(ServiceError, match=r"free and 10500 TB are needed"):
        get(hub, tmp_path)
    assert (tmp_path / "file.gguf.part").stat().st_size == 0


def test_a_disk_that_fills_up_keeps_the_part(hub: Hub, tmp_path: Path) -> None:
    """The write fails for real (RLIMIT_FSIZE); with room again, the same command goes on."""
    done = pull(hub.file, "--to", tmp_path, "--sha256", hub.sha256, most=200_000)
    assert done.returncode == 1
    assert "the disk is full: 200 kB of 512 kB are kept" in done.stderr
    assert done.stderr.count("\n") == 1
    done = pull(hub.file, "--to", tmp_path, "--sha256", hub.sha256)
    assert json.loads(done.stdout)["resumed_at"] == 200_000
    assert (tmp_path / "file.gguf").read_bytes() == CONTENT


def test_a_file_system_that_is_full(hub: Hub, tmp_path: Path) -> None:
    """ENOSPC on a tmpfs of 64 kB, by a server that states no length; where this user may mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a tmpfs")
    try:
        hub.claims = -1
        with pytest.raises(ServiceError, match=r"the disk is full: \S+ kB of the file are kept"):
            get(hub, tmp_path)
        hub.claims = 0
        with pytest.raises(ServiceError, match="needed"):
            get(hub, tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# The hub, through huggingface-hub itself


def test_a_file_of_the_hub_is_pinned_and_checked(hub: Hub, tmp_path: Path) -> None:
    """The commit that the hub names is fetched, and the digest that it states is what counts."""
    done = pull("hf:owner/repo/file.gguf", "--to", tmp_path, hub=hub)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["url"] == f"{hub.url}/owner/repo/resolve/{COMMIT}/file.gguf"
    assert (found["sha256"], found["checked_against"]) == (hub.sha256, "the hub")
    assert (tmp_path / "file.gguf").read_bytes() == CONTENT


def test_the_hub_is_believed_only_so_far(hub: Hub, tmp_path: Path) -> None:
    """A file that is not what the hub states is removed."""
    hub.stated = "0" * 64
    done = pull("hf:owner/repo/file.gguf", "--to", tmp_path, hub=hub)
    assert done.returncode == 1
    assert "not what the hub promises" in done.stderr
    assert names(tmp_path) == []


def test_a_download_from_the_hub_is_resumed(hub: Hub, tmp_path: Path) -> None:
    """Through the redirect to where the bytes lie; the token stays with the hub."""
    hub.cuts = [100_000]
    done = pull("hf:owner/repo/file.gguf", "--to", tmp_path, hub=hub, environment={"HF_TOKEN": "hf_secret"})
    assert done.returncode == 0, done.stderr
    assert hub.ranges_asked == ["", "bytes=100000-"]
    assert {token for (_, path, _), token in zip(hub.log, hub.tokens, strict=True) if path == "/file.gguf"} == {""}
    assert "Bearer hf_secret" in hub.tokens


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("hf:owner/none/file.gguf", "no repository owner/none"),
        ("hf:owner/repo/none.gguf", "no file owner/repo/none.gguf"),
        ("hf:owner/repo/file.gguf@v2", "no revision v2"),
    ],
)
def test_what_the_hub_does_not_have(hub: Hub, tmp_path: Path, what: str, words: str) -> None:
    """Each is told apart."""
    done = pull(what, "--to", tmp_path, hub=hub)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_gated_repository_says_what_to_do(hub: Hub, tmp_path: Path) -> None:
    """Accept the terms, set HF_TOKEN."""
    hub.gated = True
    done = pull("hf:owner/repo/file.gguf", "--to", tmp_path, hub=hub)
    assert "accept its terms" in done.stderr


@pytest.mark.parametrize(("name", "value"), [("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HUB_OFFLINE", "1")])
def test_without_network_a_name_of_the_catalogue_is_one_line(tmp_path: Path, name: str, value: str) -> None:
    """`lyceum models pull NAME` on a train."""
    done = pull("saul-7b", "--to", tmp_path, environment={name: value})
    assert done.returncode == 1
    assert done.stderr.startswith("lyceum: ")
    assert done.stderr.count("\n") == 1


# What to fetch


@pytest.mark.parametrize("what", ["nothing-known", "hf:owner/file.gguf", "https://example.org/", "hf:a/b/model.bin"])
def test_what_makes_no_sense(what: str) -> None:
    """Said without asking anybody."""
    with pytest.raises(ConfigError):
        find(what, {})


def test_a_digest_must_look_like_one() -> None:
    """Before the download, not after it."""
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        find("https://example.org/a.gguf", {}, "abc")


# The catalogue


def test_the_catalogue_is_honest() -> None:
    """At least twelve, each with what it needs, none claimed to have been run."""
    entries = load_catalogue()
    assert len(entries) >= 12
    for entry in entries.values():
        assert not entry.tried
        assert entry.file.endswith(".gguf")
        assert entry.licence in {"Apache-2.0", "MIT"}
        assert entry.quantisation in entry.file
        assert bool(entry.sha256) <= bool(entry.revision), "a digest belongs to a pinned file"
    assert {entry.kind for entry in entries.values()} == {"chat", "embedding"}


def test_the_catalogue_travels_in_the_wheel() -> None:
    """pyproject.toml puts the checkout's file where an installed package looks first."""
    settings = (CHECKOUT.parents[1] / "pyproject.toml").read_text()
    assert f'"models/catalogue.toml" = "lyceum/shelf/{PACKED.name}"' in settings


def test_a_broken_catalogue_is_an_error_of_ours(tmp_path: Path) -> None:
    """It names the file."""
    (tmp_path / "c.toml").write_text("[a]\nfield = 'x'\n")
    with pytest.raises(LyceumError, match=r"c\.toml"):
        load_catalogue(tmp_path / "c.toml")


def test_an_entry_takes_its_digest_along(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue's digest goes before the hub's."""
    monkeypatch.setattr(
        "lyceum.shelf.source.hf_hub_url", lambda repo, file, revision: f"{hub.url}/{repo}/resolve/{revision}/{file}"
    )
    entry = Entry(
        "x", "f", "d", "owner/repo", "file.gguf", 1, "MIT", 512, "Q8_0", tried=False, revision=COMMIT, sha256="1" * 64
    )
    found = find("x", {"x": entry})
    assert (found.sha256, found.stated_by, found.size) == ("1" * 64, "the catalogue", len(CONTENT))
