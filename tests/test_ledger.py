"""The books in SQLite: atomic claims, exact sums, one journal row a payment, files that last."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyceum.books import Budget, Held, Purchase, Shortfall, Token
from lyceum.errors import ConfigError
from lyceum.ledger import SCHEMA, Database, PurseBook, TillBook
from lyceum.ports import Outcome, Payment, Settlement

TOKEN = Token("aa" * 32, "bb" * 32, "llm", credit_msat=1000, created_at=10, expires_at=9000)
BOUGHT = Purchase("cc" * 32, "https://a:443", "ask", "lnbcrt1q", 3000, 50, created_at=10, macaroon="bWFj")
SETTLED = Payment(Outcome.SETTLED, "dd" * 32, 3000, fee_msat=7)
NOW, LATER = 100, 200


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "books.sqlite3")
    yield database
    database.close()


@pytest.fixture
def till(database: Database) -> TillBook:
    book = TillBook(database)
    book.open_token(TOKEN)
    return book


@pytest.fixture
def purse(database: Database) -> PurseBook:
    return PurseBook(database)


def held(book: TillBook, amount_msat: int) -> str:
    found = book.reserve(TOKEN.token_id, amount_msat, amount_msat, NOW, LATER)
    assert found
    return found.reservation


def begun(book: PurseBook, purchase: Purchase, *budgets: Budget) -> Purchase:
    row = book.begin(purchase, budgets)
    assert isinstance(row, Purchase)
    return row


def found(book: TillBook) -> Token:
    token = book.token(TOKEN.token_id)
    assert token
    return token


def test_a_token_is_opened_once(till: TillBook) -> None:
    """A second opening adds no credit and returns the row that is there."""
    held(till, 300)
    again = till.open_token(replace(TOKEN, credit_msat=5000))
    assert again == replace(TOKEN, reserved_msat=300)
    assert till.sales()["tokens"] == 1


def test_an_unknown_token_is_none(till: TillBook) -> None:
    """Neither a balance nor a reservation for it."""
    assert till.token("00" * 32) is None
    assert till.reserve("00" * 32, 1, 1, NOW, LATER) is None


def test_tokens_are_listed_newest_first(till: TillBook) -> None:
    """At most as many as are asked for."""
    for number in (2, 1, 3):
        till.open_token(Token(f"{number:064}", f"{number:064}", "llm", 1, created_at=10 + number))
    assert [token.created_at for token in till.tokens(3)] == [13, 12, 11]


@pytest.mark.parametrize("connections", [1, 2])
def test_one_balance_is_never_sold_twice(tmp_path: Path, connections: int) -> None:
    """Sixteen threads, on one connection or two, reserve from a balance for five: five succeed."""
    databases = [Database(tmp_path / "books.sqlite3") for _ in range(connections)]
    books = [TillBook(database) for database in databases]
    books[0].open_token(TOKEN)
    start = Barrier(16)

    def reserve(number: int) -> Held | None:
        start.wait()
        return books[number % connections].reserve(TOKEN.token_id, 200, 200, NOW, LATER)

    with ThreadPoolExecutor(16) as pool:
        reservations = [taken for taken in pool.map(reserve, range(16)) if taken]
    assert len(set(reservations)) == 5
    assert found(books[0]).balance_msat == 0
    for database in databases:
        database.close()


@pytest.mark.parametrize(
    ("amount", "least", "taken"),
    [(1000, 1000, 1000), (1001, 1001, None), (1001, 1000, 1000), (5000, 1, 1000), (400, 1, 400), (5000, 1001, None)],
)
def test_what_is_left_is_reserved_when_it_will_do(till: TillBook, amount: int, least: int, taken: int | None) -> None:
    """All that is wanted, else all that is left if that is enough, else nothing; the balance never goes below zero."""
    held = till.reserve(TOKEN.token_id, amount, least, NOW, LATER)
    assert (held and held.amount_msat) == taken
    assert found(till).balance_msat == 1000 - (taken or 0) == (held.balance_msat if held else 1000)


@pytest.mark.parametrize(("charge", "charged"), [(0, 0), (120, 120), (300, 300), (301, 300), (10**15, 300), (-5, 0)])
def test_a_charge_stays_within_its_reservation(till: TillBook, charge: int, charged: int) -> None:
    """Clamped to what was reserved; the rest returns to the balance."""
    assert till.settle(held(till, 300), charge, NOW) == Settlement(TOKEN.token_id, charged, 1000 - charged)
    assert found(till) == replace(TOKEN, spent_msat=charged)


def test_settling_again_changes_nothing(till: TillBook) -> None:
    """A retried call gets the first settlement, whatever it charges now."""
    reservation = held(till, 300)
    first = till.settle(reservation, 120, NOW)
    assert till.settle(reservation, 300, NOW) == first
    assert found(till).spent_msat == 120


def test_an_unknown_reservation_settles_to_none(till: TillBook) -> None:
    """It was never made, and nothing is booked for it."""
    assert till.settle("no such", 100, NOW) is None
    assert found(till) == TOKEN


def test_a_lapsed_reservation_goes_back(till: TillBook) -> None:
    """What a dead server held is free again after its time, and no later settlement can take it."""
    lapsed = held(till, 900)
    assert till.reserve(TOKEN.token_id, 200, 200, LATER, LATER + 100) is None
    fresh = till.reserve(TOKEN.token_id, 200, 200, LATER + 1, LATER + 100)
    assert fresh
    assert found(till).reserved_msat == 200
    assert till.settle(lapsed, 900, LATER + 1) is None
    assert till.settle(fresh.reservation, 200, LATER + 1) == Settlement(TOKEN.token_id, 200, 800)


def test_a_settled_reservation_does_not_lapse(till: TillBook) -> None:
    """Only open ones are given back: a charge stays."""
    reservation = held(till, 900)
    till.settle(reservation, 900, NOW)
    assert till.reserve(TOKEN.token_id, 200, 200, LATER + 1, LATER + 100) is None
    assert till.settle(reservation, 0, LATER + 1) == Settlement(TOKEN.token_id, 900, 100)


def test_a_token_is_revoked_once(till: TillBook) -> None:
    """Only the first call did it; the row says so from then on."""
    assert not till.is_revoked(TOKEN.token_id)
    assert till.revoke(TOKEN.token_id, NOW)
    assert not till.revoke(TOKEN.token_id, NOW)
    assert till.is_revoked(TOKEN.token_id)
    assert found(till).revoked


def test_a_token_can_be_revoked_before_its_first_use(database: Database) -> None:
    """A revocation needs no row of the token, and is seen when that comes."""
    book = TillBook(database)
    assert book.revoke(TOKEN.token_id, NOW)
    assert book.open_token(TOKEN).revoked


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "reserve", "settle", "revoke", "wait"]), st.integers(0, 1200), st.integers(0, 9)
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_the_sum_law(steps: list[tuple[str, int, int]]) -> None:
    """After any steps, credit = spent + reserved + balance, no part negative, the charges are what was spent,
    and once all reservations have lapsed nothing is reserved."""
    with TemporaryDirectory() as directory:
        database = Database(Path(directory) / "books.sqlite3")
        book, now, open_ones, charges = TillBook(database), NOW, [""], dict[str, int]()
        book.open_token(TOKEN)
        for step, amount, pick in steps:
            reservation = open_ones[pick % len(open_ones)]
            if step == "open":
                book.open_token(replace(TOKEN, credit_msat=amount))
            elif step == "reserve":
                held = book.reserve(TOKEN.token_id, amount, max(amount // 2, 1), now, now + 100)
                open_ones.append(held.reservation if held else "")
            elif step == "settle" and (settled := book.settle(reservation, amount, now)):
                charges[reservation] = settled.charged_msat
            elif step == "revoke":
                book.revoke(TOKEN.token_id, now)
            elif step == "wait":
                now += amount
            token, totals = found(book), book.sales()
            assert min(token.spent_msat, token.reserved_msat, token.balance_msat) >= 0
            assert token.credit_msat == 1000 == token.spent_msat + token.reserved_msat + token.balance_msat
            assert token.spent_msat == sum(charges.values())
            assert totals["balance_msat"] == token.balance_msat
        book.reserve(TOKEN.token_id, 10**6, 10**6, now + 10**6, now + 10**6)
        assert found(book).reserved_msat == 0
        database.close()


def test_the_books_outlive_the_process(tmp_path: Path) -> None:
    """A reopened file holds every balance, reservation, revocation and purchase."""
    path = tmp_path / "books.sqlite3"
    database = Database(path)
    till = TillBook(database)
    till.open_token(TOKEN)
    reservation = held(till, 300)
    till.revoke(TOKEN.token_id, NOW)
    begun(PurseBook(database), BOUGHT)
    PurseBook(database).finish(BOUGHT.payment_hash, SETTLED)
    database.close()

    again = Database(path)
    assert found(TillBook(again)) == replace(TOKEN, reserved_msat=300, revoked=True)
    assert TillBook(again).settle(reservation, 100, NOW) == Settlement(TOKEN.token_id, 100, 900)
    assert PurseBook(again).kept(BOUGHT.origin)[0].preimage == SETTLED.preimage
    again.close()


def test_a_commit_is_seen_at_once(tmp_path: Path) -> None:
    """A second connection finds the row while the first is still open: nothing waits for a clean end."""
    database = Database(tmp_path / "books.sqlite3")
    TillBook(database).open_token(TOKEN)
    other = Database(tmp_path / "books.sqlite3")
    assert found(TillBook(other)) == TOKEN
    for each in (database, other):
        each.close()


def test_a_failed_write_leaves_nothing(database: Database, till: TillBook) -> None:
    """An exception within a transaction undoes all of it, and the next one works."""

    def half_done() -> None:
        with database.write() as db:
            db.execute("UPDATE tokens SET spent_msat = 500")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        half_done()
    assert found(till) == TOKEN
    held(till, 1000)


def test_the_file_itself_refuses_an_oversold_token(database: Database, till: TillBook) -> None:
    """A last guard below every method: spent and reserved never exceed the credit."""
    with pytest.raises(sqlite3.IntegrityError), database.write() as db:
        db.execute("UPDATE tokens SET spent_msat = 600, reserved_msat = 401")
    assert found(till) == TOKEN


def test_books_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    """An older program must not write into a schema that it does not know; it says what to do."""
    path = tmp_path / "books.sqlite3"
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(SCHEMA) + 1}")
    connection.close()
    with pytest.raises(ConfigError, match=r"newer Lyceum.*update cln-lyceum") as refusal:
        Database(path)
    assert str(path) in refusal.value.message


def test_nobody_else_can_read_the_books(database: Database, tmp_path: Path, till: TillBook) -> None:
    """Preimages and macaroons are money: file and journal are for the owner alone."""
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert "books.sqlite3" in modes
    assert set(modes.values()) == {0o600}


# What was bought


def test_a_purchase_begins_once(purse: PurseBook) -> None:
    """Of eight callers that begin the same purchase one journals it, and only that one may pay."""
    start = Barrier(8)

    def begin(number: int) -> bool:
        start.wait()
        try:
            return begun(purse, replace(BOUGHT, created_at=number)).created_at == number
        except sqlite3.IntegrityError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(begin, range(8))) == [False] * 7 + [True]


def test_a_failed_purchase_begins_again(purse: PurseBook) -> None:
    """A row of a payment that failed gives way to the next try."""
    begun(purse, BOUGHT)
    purse.finish(BOUGHT.payment_hash, Payment(Outcome.FAILED))
    assert begun(purse, replace(BOUGHT, created_at=7)).created_at == 7
    assert [row.outcome for row in purse.purchases(9)] == [Outcome.PENDING]


@pytest.mark.parametrize("outcome", [Outcome.PENDING, Outcome.UNKNOWN, Outcome.SETTLED])
def test_what_may_have_been_paid_never_begins_again(purse: PurseBook, outcome: Outcome) -> None:
    """A row that is open or settled is not replaced."""
    begun(purse, BOUGHT)
    row = purse.finish(BOUGHT.payment_hash, Payment(outcome, "dd" * 32))
    with pytest.raises(sqlite3.IntegrityError):
        begun(purse, replace(BOUGHT, created_at=7))
    assert purse.purchase(BOUGHT.payment_hash) == row


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_outcome_is_written_down(purse: PurseBook, outcome: Outcome) -> None:
    """With preimage and fee; pending and unknown ones stay unfinished."""
    begun(purse, BOUGHT)
    row = purse.finish(BOUGHT.payment_hash, Payment(outcome, "dd" * 32, 3000, 7))
    assert row == replace(BOUGHT, outcome=outcome, preimage="dd" * 32, fee_msat=7)
    assert [row.outcome for row in purse.unfinished()] == [o for o in (outcome,) if o in ("pending", "unknown")]


def test_kept_tokens_come_newest_first(purse: PurseBook) -> None:
    """Paid ones of this origin, without those that were discarded."""
    for number, origin in enumerate(["https://a:443", "https://a:443", "https://b:443", "https://a:443"]):
        hash_ = f"{number:064}"
        begun(purse, replace(BOUGHT, payment_hash=hash_, origin=origin, created_at=number))
        purse.finish(hash_, SETTLED)
    begun(purse, replace(BOUGHT, created_at=99))
    assert [row.created_at for row in purse.kept("https://a:443")] == [3, 1, 0]
    purse.discard(f"{3:064}")
    assert [row.created_at for row in purse.kept("https://a:443")] == [1, 0]
    assert [row.created_at for row in purse.purchases(2)] == [99, 3]


@pytest.mark.parametrize(("needs", "left"), [((), 3000), ((500,), 499), ((500, 2000), 499), ((9000,), 3000)])
def test_a_token_holds_no_more_than_was_ever_known(purse: PurseBook, needs: tuple[int, ...], left: int) -> None:
    """Each refusal bounds its balance from above, and none raises it."""
    settled(purse, BOUGHT)
    for need_msat in needs:
        purse.exhausted(BOUGHT.payment_hash, need_msat)
    (row,) = purse.kept(BOUGHT.origin)
    assert row.left_msat == left


@pytest.mark.parametrize("need_msat", [0, 1])
def test_an_empty_token_is_kept_no_more(purse: PurseBook, need_msat: int) -> None:
    """It stays in the journal."""
    settled(purse, BOUGHT)
    purse.exhausted(BOUGHT.payment_hash, need_msat)
    assert purse.kept(BOUGHT.origin) == []
    assert [row.left_msat for row in purse.purchases(9)] == [0]


def test_spending_counts_the_open_ones(purse: PurseBook) -> None:
    """Paid and fees of what settled; amount and highest fee of what may still go; nothing for what failed."""
    for number, outcome in enumerate(Outcome):
        begun(purse, replace(BOUGHT, payment_hash=f"{number:064}"))
        purse.finish(f"{number:064}", Payment(outcome, fee_msat=7 if outcome is Outcome.SETTLED else 0))
    assert purse.spending() == {"payments": 1, "paid_msat": 3000, "fee_msat": 7, "open_msat": 2 * 3050}


@pytest.mark.parametrize("read", [lambda d: TillBook(d).sales(), lambda d: PurseBook(d).spending()])
def test_empty_books_add_up_to_zero(database: Database, read: Callable[[Database], dict[str, int]]) -> None:
    """Totals are numbers, never null."""
    assert set(read(database).values()) == {0}


# Budgets

DAY = Budget("day", 10_000, 100)
PEER = Budget("peer", 10_000, 100, "peer")
PURPOSE = Budget("purpose", 10_000, 100, "purpose")


def buy(number: int, amount_msat: int = 3000, at: int = NOW, **fields: Any) -> Purchase:
    """A purchase that may cost `amount_msat` in all, 50 of it in fees."""
    return replace(
        BOUGHT, payment_hash=f"{number:064}", amount_msat=amount_msat - 50, fee_cap_msat=50, created_at=at, **fields
    )


def settled(purse: PurseBook, purchase: Purchase, fee_msat: int = 50) -> None:
    begun(purse, purchase)
    purse.finish(purchase.payment_hash, replace(SETTLED, fee_msat=fee_msat))


def test_a_budget_for_three_journals_three_of_thirty_two_threads(purse: PurseBook) -> None:
    """Counting what is open and reserving is one step: parallel callers cannot all see the same room."""
    start = Barrier(32)

    def begin(number: int) -> bool:
        start.wait()
        return isinstance(purse.begin(buy(number), [DAY]), Purchase)

    with ThreadPoolExecutor(32) as pool:
        assert sum(pool.map(begin, range(32))) == 3
    assert purse.spending()["open_msat"] == 9000


@pytest.mark.parametrize("amount_msat", [7000, 7001])
def test_a_budget_is_used_to_its_last_msat(purse: PurseBook, amount_msat: int) -> None:
    """Exactly what is left fits; one more does not, and leaves no row."""
    settled(purse, buy(1, 3000))
    fits = isinstance(purse.begin(buy(2, amount_msat), [DAY]), Purchase)
    assert fits == (amount_msat == 7000)
    assert len(purse.purchases(9)) == 1 + fits


def test_fees_count(purse: PurseBook) -> None:
    """Those that were paid, and of what is open the most that may be paid."""
    settled(purse, replace(buy(1, 3000), fee_cap_msat=999), fee_msat=7)
    begun(purse, replace(buy(2, 3000), fee_cap_msat=999))
    short = purse.begin(buy(3, 9000), [DAY])
    assert short == Shortfall(DAY, 10_000 - (2950 + 7) - (2950 + 999), None)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_a_failure_gives_its_money_back(purse: PurseBook, outcome: Outcome) -> None:
    """What settled counts, and what is not known; what failed is free again."""
    begun(purse, buy(1, 6000))
    purse.finish(buy(1).payment_hash, Payment(outcome, fee_msat=50))
    assert isinstance(purse.begin(buy(2, 6000), [DAY]), Purchase) == (outcome is Outcome.FAILED)


@pytest.mark.parametrize(("at", "fits"), [(NOW + 99, False), (NOW + 100, True)])
def test_the_window_slides(purse: PurseBook, at: int, fits: bool) -> None:
    """What was paid counts for as long as the window is, to the second."""
    settled(purse, buy(1, 6000))
    assert isinstance(purse.begin(buy(2, 6000, at=at), [DAY]), Purchase) == fits


def test_what_is_open_counts_however_old_it_is(purse: PurseBook) -> None:
    """It may still leave the wallet today, whenever it was begun."""
    begun(purse, buy(1, 6000))
    assert purse.begin(buy(2, 6000, at=NOW + 10**6), [DAY]) == Shortfall(DAY, 4000, None)


def test_a_shortfall_says_when_enough_is_free(purse: PurseBook) -> None:
    """When as many of the oldest payments have left the window as the purchase needs."""
    for number, at in enumerate((NOW, NOW + 10, NOW + 20)):
        settled(purse, buy(number, 3000, at=at))
    for amount_msat, frees_at in ((4000, NOW + 100), (4001, NOW + 110), (7001, NOW + 120), (10_001, None)):
        assert purse.begin(buy(9, amount_msat, at=NOW + 30), [DAY]) == Shortfall(DAY, 1000, frees_at)


@pytest.mark.parametrize(
    ("budget", "fields", "fits"),
    [
        (DAY, {"origin": "https://b:443", "purpose": "tutor", "payee": "03"}, False),
        (PEER, {"origin": "https://b:443"}, True),
        (PEER, {"origin": "https://b:443", "payee": "02"}, False),
        (PEER, {"payee": "03"}, False),
        (PURPOSE, {"purpose": "tutor"}, True),
        (PURPOSE, {"origin": "https://b:443", "payee": "03"}, False),
    ],
)
def test_a_budget_counts_what_shares_its_scope(
    purse: PurseBook, budget: Budget, fields: dict[str, Any], fits: bool
) -> None:
    """Everything, one peer by its address or its node, or one purpose."""
    settled(purse, buy(1, 6000, payee="02"))
    assert isinstance(purse.begin(buy(2, 6000, **fields), [budget]), Purchase) == fits


def test_unnamed_payees_are_not_one_peer(purse: PurseBook) -> None:
    """Rows that older books kept without a payee share nothing by that."""
    settled(purse, buy(1, 6000))
    assert isinstance(purse.begin(buy(2, 6000, origin="https://b:443"), [PEER]), Purchase)


def test_a_refused_retry_keeps_the_failed_row(purse: PurseBook) -> None:
    """When a budget stops the second try, the journal still knows of the first."""
    begun(purse, buy(1))
    purse.finish(buy(1).payment_hash, Payment(Outcome.FAILED))
    assert isinstance(purse.begin(buy(1), [replace(DAY, most_msat=1)]), Shortfall)
    assert [row.outcome for row in purse.purchases(9)] == [Outcome.FAILED]


def test_secrets_of_a_purchase_stay_out_of_repr() -> None:
    """The macaroon and the preimage together are the credential."""
    row = replace(BOUGHT, macaroon="bWFjc2VjcmV0", preimage="dd" * 32)
    assert "bWFjc2VjcmV0" not in repr(row)
    assert "dd" * 32 not in repr(row)
