"""Fixtures shared by the suites that need nodes. Real nodes are skipped, with the reason, where absent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from networks import KINDS, Market, missing, open_market

settings.register_profile("shared machines", deadline=None)
settings.load_profile("shared machines")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of network in turn."""
    reason = missing(request.param)
    if reason:
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture(scope="module")
def market(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """One buyer, one seller, a channel between them; for a whole module."""
    with open_market(kind, tmp_path_factory.mktemp(kind), {}) as market:
        yield market


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
