"""Adding to a token, over real books: one credit for one payment, whenever and however often it is looked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from fakes import Clock, FakeWallet
from lyceum.books import Token
from lyceum.errors import TokenRefused, TooManyChallenges
from lyceum.ledger import Database, RefundBook, TillBook, TopupBook
from lyceum.till import Topups
from lyceum.till.topups import LATE_S, LEAST_LIFE_S, MOST_OPEN

TOKEN = Token("aa" * 32, "bb" * 32, "llm", credit_msat=1000, created_at=10, expires_at=50_000)


class Desk:
    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.wallet = FakeWallet(self.clock)
        self.database = Database(path)
        self.till = TillBook(self.database)
        self.till.open_token(TOKEN)
        numbers = itertools.count()
        self.book = TopupBook(self.database)
        self.topups = Topups(
            self.wallet, self.book, now=self.clock, random_bytes=lambda size: next(numbers).to_bytes(size, "big")
        )

    def credit_msat(self) -> int:
        token = self.till.token(TOKEN.token_id)
        assert token
        return token.credit_msat


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "books.sqlite3")
    yield desk
    desk.database.close()


def test_a_paid_top_up_is_credited_once(desk: Desk) -> None:
    """All that was received, also more than was asked for, and no second time."""
    topup = desk.topups.ask(TOKEN, 2500, 600)
    assert topup.amount_msat == 3000
    assert not desk.topups.collect(TOKEN.token_id)
    desk.wallet.received[topup.payment_hash] = 3100
    assert desk.topups.collect(TOKEN.token_id)
    assert not desk.topups.collect(TOKEN.token_id)
    desk.book.credit(topup.payment_hash, 3100, desk.clock.now)
    assert desk.credit_msat() == 4100
    (shown,) = desk.topups.history(TOKEN.token_id, 9)
    assert (shown.received_msat, shown.credited_at) == (3100, desk.clock.now)


def test_parallel_uses_credit_once(desk: Desk) -> None:
    """Eight requests that all find the payment at the same time."""
    topup, start = desk.topups.ask(TOKEN, 2000, 600), Barrier(8)
    desk.wallet.received[topup.payment_hash] = 2000

    def collect(_: int) -> None:
        start.wait()
        desk.topups.collect(TOKEN.token_id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(collect, range(8)))
    assert desk.credit_msat() == 3000


def test_an_open_one_is_shown_again(desk: Desk) -> None:
    """The same amount gets the same invoice as long as there is time to pay it."""
    first = desk.topups.ask(TOKEN, 2000, 600)
    assert desk.topups.ask(TOKEN, 1001, 600) == first
    desk.clock.now = first.expires_at - LEAST_LIFE_S + 1
    assert desk.topups.ask(TOKEN, 2000, 600) != first


def test_unpaid_ones_are_limited(desk: Desk) -> None:
    """A holder cannot fill the node with invoices; expired ones no longer count."""
    for number in range(MOST_OPEN):
        desk.topups.ask(TOKEN, 1000 * (number + 1), 600)
    with pytest.raises(TooManyChallenges, match="4 unpaid"):
        desk.topups.ask(TOKEN, 99_000, 600)
    desk.clock.now += 601
    desk.topups.ask(TOKEN, 99_000, 600)


def test_what_can_no_longer_be_paid_is_forgotten(desk: Desk) -> None:
    """Not before any payment under way at its expiry must have ended; one that did arrive is credited."""
    lost, late = desk.topups.ask(TOKEN, 1000, 600), desk.topups.ask(TOKEN, 2000, 600)
    desk.clock.now = lost.expires_at + LATE_S
    desk.topups.collect(TOKEN.token_id)
    assert len(desk.topups.history(TOKEN.token_id, 9)) == 2
    desk.wallet.received[late.payment_hash] = 2000
    desk.clock.now += 1
    desk.topups.collect(TOKEN.token_id)
    assert [topup.payment_hash for topup in desk.topups.history(TOKEN.token_id, 9)] == [late.payment_hash]
    assert desk.credit_msat() == 3000


def test_an_invoice_does_not_outlive_its_token(desk: Desk) -> None:
    """Else one could pay for a token that has expired."""
    desk.clock.now = TOKEN.expires_at - 100
    assert desk.topups.ask(TOKEN, 1000, 600).expires_at == TOKEN.expires_at
    desk.clock.now = TOKEN.expires_at - LEAST_LIFE_S + 1
    with pytest.raises(TokenRefused) as refused:
        desk.topups.ask(TOKEN, 2000, 600)
    assert refused.value.reason == "expired"


def test_a_closed_token_takes_no_more(desk: Desk) -> None:
    """What was taken back is over."""
    with pytest.raises(TokenRefused) as refused:
        desk.topups.ask(replace(TOKEN, closed_at=1000), 1000, 600)
    assert refused.value.reason == "refunded"


def test_a_credit_wakes_a_refund_that_was_done(desk: Desk) -> None:
    """Its claim is owed again in the same transaction; one that waits for an address goes on waiting."""
    topup = desk.topups.ask(TOKEN, 2000, 600)
    refunds = RefundBook(desk.database)
    claim = refunds.claim(TOKEN.token_id, "lno1", 1000)
    for state, after in (("paid", "owed"), ("needs-address", "needs-address")):
        with desk.database.write() as db:
            db.execute("UPDATE refunds SET state = ?, next_at = 9", (state,))
            db.execute("UPDATE topups SET credited_at = NULL")
        desk.book.credit(topup.payment_hash, 2000, 1234)
        found = refunds.refund(claim.token_id)
        assert found
        assert (found.state, found.next_at) == (after, 1234 if after == "owed" else 9)
