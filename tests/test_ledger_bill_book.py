"""Answers bought, in SQLite: bounded, summed by seller and model, and what is held against whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lyceum.books import BillLine, Purchase
from lyceum.ledger import BillBook, Database, PurseBook, bill_book
from lyceum.ports import Delivery, Outcome, Payment, Usage

SHOP = "https://a:443"
GOLD = Delivery(SHOP, "gold", "ask", "cc" * 32, Usage(5, 9, 20, 40), 140, 140, 2860)
PAID = Purchase("cc" * 32, SHOP, "ask", "lnbcrt1q", 3000, 50, created_at=100, macaroon="bWFj", model="gold")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "books.sqlite3")
    yield database
    database.close()


@pytest.fixture
def bills(database: Database) -> BillBook:
    return BillBook(database)


@pytest.fixture
def purse(database: Database) -> PurseBook:
    return PurseBook(database)


def paid(purse: PurseBook, purchase: Purchase) -> None:
    purse.begin(purchase, ())
    purse.finish(purchase.payment_hash, Payment(Outcome.SETTLED, "dd" * 32, fee_msat=7))


def test_a_bill_is_by_seller_and_model(bills: BillBook, purse: PurseBook) -> None:
    """Calls, what was charged and recounted, what left the wallet, what is left, and how often it was wrong."""
    paid(purse, PAID)
    paid(purse, replace(PAID, payment_hash="ee" * 32, model="silver", amount_msat=1000))
    for delivery in (
        GOLD,
        replace(GOLD, charged_msat=200, balance_msat=2660, complaint="too much"),
        replace(GOLD, charged_msat=0, recounted_msat=0, balance_msat=None, error="peer-error"),
        replace(GOLD, origin="https://b:443", payment_hash="ff" * 32),
    ):
        bills.enter(delivery, 200)
    assert bills.bill(0) == [
        BillLine(SHOP, "gold", 2, 1, 340, 280, 3000, 7, 2660, 1),
        BillLine(SHOP, "silver", 0, 0, 0, 0, 1000, 7, 1000, 0),
        BillLine("https://b:443", "gold", 1, 0, 140, 140, 0, 0, 0, 0),
    ]


@pytest.mark.parametrize(("since", "answers", "paid_msat"), [(100, 1, 3000), (101, 1, 0), (200, 1, 0), (201, 0, 0)])
def test_a_bill_begins_where_it_is_told_to(
    bills: BillBook, purse: PurseBook, since: int, answers: int, paid_msat: int
) -> None:
    """What was paid and answered from that second on; what is left on tokens is as of now."""
    paid(purse, PAID)
    bills.enter(GOLD, 200)
    (line,) = bills.bill(since)
    assert (line.answers, line.paid_msat, line.credit_msat) == (answers, paid_msat, 2860)


def test_only_settled_payments_are_on_the_bill(bills: BillBook, purse: PurseBook) -> None:
    """An open or failed one has bought nothing."""
    for number, outcome in enumerate(Outcome):
        payment_hash = f"{number:064}"
        purse.begin(replace(PAID, payment_hash=payment_hash), ())
        purse.finish(payment_hash, Payment(outcome))
    assert [line.paid_msat for line in bills.bill(0)] == [3000]


def test_a_complaint_is_held_against_its_origin(bills: BillBook) -> None:
    """The first one stays until it is forgiven; the others are on the bill."""
    for complaint in ("", "too much", "again"):
        bills.enter(replace(GOLD, complaint=complaint), 200)
    assert bills.distrusted() == {SHOP: "too much"}
    assert bills.bill(0)[0].disputes == 2
    assert [bills.trust("https://b:443"), bills.trust(SHOP), bills.trust(SHOP)] == [False, True, False]
    assert bills.distrusted() == {}


def test_the_oldest_answers_make_room(bills: BillBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """The book is bounded: a busy buyer's disk does not fill."""
    monkeypatch.setattr(bill_book, "MOST_DELIVERIES", 3)
    for charged_msat in range(10):
        bills.enter(replace(GOLD, charged_msat=charged_msat), 200)
    assert (bills.bill(0)[0].answers, bills.bill(0)[0].charged_msat) == (3, 7 + 8 + 9)


def test_pruning_forgets_answers_and_keeps_payments(bills: BillBook, purse: PurseBook) -> None:
    """Those before the day, and says how many."""
    paid(purse, PAID)
    for at in (100, 200, 300):
        bills.enter(GOLD, at)
    assert bills.prune(300) == 2
    (line,) = bills.bill(0)
    assert (line.answers, line.paid_msat, line.credit_msat) == (1, 3000, 2860)


def test_long_words_are_cut(bills: BillBook) -> None:
    """A seller names its models; the book does not take a novel."""
    bills.enter(replace(GOLD, model="x" * 10_000, complaint="y" * 10_000), 200)
    assert [len(line.model) for line in bills.bill(0)] == [bill_book.MOST_WORDS]
    assert [len(complaint) for complaint in bills.distrusted().values()] == [bill_book.MOST_WORDS]
