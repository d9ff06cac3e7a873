"""Both sides of the books as one list: complete, in order, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lyceum.books import Payout, Posting, Purchase, Token
from lyceum.ledger import BillBook, Database, Journal, PurseBook, RefundBook, TillBook, TopupBook
from lyceum.ports import Delivery, Outcome, Payment, Usage

TOKEN = Token("aa" * 32, "bb" * 32, "llm", credit_msat=9000, created_at=10, expires_at=9000)
BOUGHT = Purchase("cc" * 32, "https://a:443", "ask", "lnbcrt1q", 3000, 50, created_at=40, macaroon="bWFj", model="gold")
DELIVERY = Delivery("https://a:443", "gold", "ask", "cc" * 32, Usage(5, 9, 20, 40), 140, 140, 2860)
SETTLED = Payment(Outcome.SETTLED, "dd" * 32, 3000, fee_msat=7)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "books.sqlite3")
    yield database
    database.close()


def sell(database: Database) -> None:
    """A token of 9,000 msat, of which 400 are used and 5,000 given back."""
    till, refunds = TillBook(database), RefundBook(database)
    till.open_token(TOKEN)
    for charge_msat in (400, 0):
        held = till.reserve(TOKEN.token_id, 1000, 1000, 20, 99)
        assert held
        till.settle(held.reservation, charge_msat, 20)
    refunds.claim(TOKEN.token_id, "lno1", 30)
    payout = refunds.begin(Payout(TOKEN.token_id, "ee" * 32, "lnbcrt1q", 5000, 10, 30), "lno1")
    assert payout
    refunds.finish(payout, replace(SETTLED, fee_msat=3))


def buy(database: Database, purchase: Purchase = BOUGHT) -> None:
    purse = PurseBook(database)
    purse.begin(purchase, ())
    purse.finish(purchase.payment_hash, SETTLED)


def test_both_sides_are_in_the_list(database: Database) -> None:
    """Tokens, answers that cost something, refunds; payments and what they were used for. In order of time."""
    sell(database)
    buy(database)
    BillBook(database).enter(DELIVERY, 50)
    own = (TOKEN.token_id, "llm", "", "")
    theirs = ("https://a:443", "", "gold", "ask", "cc" * 32)
    assert [replace(row, mark="") for row in Journal(database).postings(0, "", 99)] == [
        Posting(10, "sold", "token", *own, "bb" * 32, 9000, 0, ""),
        Posting(20, "sold", "answer", *own, "bb" * 32, 400, 0, ""),
        Posting(30, "sold", "refund", *own, "ee" * 32, 5000, 3, ""),
        Posting(40, "bought", "token", *theirs, 3000, 7, ""),
        Posting(50, "bought", "answer", *theirs, 140, 0, ""),
    ]


def test_a_topup_is_not_counted_twice(database: Database) -> None:
    """What came later is a line of its own, so that the sum of both is the token's credit."""
    till, topups = TillBook(database), TopupBook(database)
    till.open_token(replace(TOKEN, credit_msat=1000))
    with database.write() as db:
        db.execute("INSERT INTO topups VALUES (?, ?, 'lnbcrt1q', 500, 15, 99, 500, 16)", ("ff" * 32, TOKEN.token_id))
        db.execute("UPDATE tokens SET credit_msat = 1500")
    assert topups
    rows = Journal(database).postings(0, "", 99)
    assert [(row.kind, row.amount_msat) for row in rows] == [("token", 1000), ("topup", 500)]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.PENDING, Outcome.UNKNOWN])
def test_what_did_not_settle_is_not_posted(database: Database, outcome: Outcome) -> None:
    """It moved no money, or nobody knows yet."""
    PurseBook(database).begin(BOUGHT, ())
    PurseBook(database).finish(BOUGHT.payment_hash, Payment(outcome))
    assert Journal(database).postings(0, "", 99) == []


@pytest.mark.parametrize("size", [1, 2, 3, 7, 99])
def test_pages_together_are_the_list(database: Database, size: int) -> None:
    """Also where many postings share one second."""
    for number in range(7):
        buy(database, replace(BOUGHT, payment_hash=f"{number:064}", created_at=40 + number // 4))
    journal, found = Journal(database), list[Posting]()
    since, after = 0, ""
    while page := journal.postings(since, after, size):
        found += page
        since, after = page[-1].at, page[-1].mark
    assert found == journal.postings(0, "", 99)
    assert len(found) == 7


@pytest.mark.parametrize(("since", "rows"), [(40, 1), (41, 0)])
def test_it_begins_where_it_is_told_to(database: Database, since: int, rows: int) -> None:
    """With that second."""
    buy(database)
    assert len(Journal(database).postings(since, "", 99)) == rows
