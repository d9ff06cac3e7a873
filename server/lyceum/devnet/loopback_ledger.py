"""The books of a loopback network: one SQLite file that all its node processes write.

Every change of money is one transaction here, and every channel's two ends always add up to its
capacity. Knows no sockets, no plugins and no clock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PayStatus = Literal["pending", "complete", "failed"]

BUSY_SECONDS = 30

SCHEMA = """
CREATE TABLE IF NOT EXISTS nodes (
    node_id TEXT PRIMARY KEY, alias TEXT NOT NULL, directory TEXT NOT NULL,
    features TEXT NOT NULL, fee_msat INTEGER NOT NULL CHECK (fee_msat >= 0));
CREATE TABLE IF NOT EXISTS sides (
    channel INTEGER NOT NULL, node_id TEXT NOT NULL, peer_id TEXT NOT NULL,
    msat INTEGER NOT NULL CHECK (msat >= 0), PRIMARY KEY (channel, node_id));
CREATE TABLE IF NOT EXISTS invoices (
    id INTEGER PRIMARY KEY AUTOINCREMENT, node_id TEXT NOT NULL, label TEXT NOT NULL,
    payment_hash TEXT NOT NULL, preimage TEXT NOT NULL, payment_secret TEXT NOT NULL,
    bolt11 TEXT NOT NULL, description TEXT NOT NULL, amount_msat INTEGER, expires_at INTEGER NOT NULL,
    pay_index INTEGER, received_msat INTEGER, paid_at INTEGER,
    UNIQUE (node_id, label), UNIQUE (node_id, payment_hash));
CREATE TABLE IF NOT EXISTS pays (
    id INTEGER PRIMARY KEY AUTOINCREMENT, node_id TEXT NOT NULL, payment_hash TEXT NOT NULL,
    bolt11 TEXT NOT NULL, destination TEXT NOT NULL, amount_msat INTEGER NOT NULL,
    sent_msat INTEGER NOT NULL, label TEXT, created_at INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending', preimage TEXT, completed_at INTEGER);
CREATE TABLE IF NOT EXISTS hops (
    pay INTEGER NOT NULL, channel INTEGER NOT NULL, sender TEXT NOT NULL, receiver TEXT NOT NULL,
    msat INTEGER NOT NULL, PRIMARY KEY (pay, channel));
CREATE TABLE IF NOT EXISTS datastore (
    node_id TEXT NOT NULL, key TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (node_id, key));
CREATE TABLE IF NOT EXISTS offers (
    node_id TEXT NOT NULL, offer_id TEXT NOT NULL, bolt12 TEXT NOT NULL, active INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (node_id, offer_id));
CREATE INDEX IF NOT EXISTS pays_by_hash ON pays (node_id, payment_hash);
"""

SPENDABLE = """
SELECT channel, node_id, peer_id, msat, msat - (
    SELECT COALESCE(SUM(hops.msat), 0) FROM hops JOIN pays ON pays.id = hops.pay
    WHERE hops.channel = sides.channel AND hops.sender = sides.node_id AND pays.status = 'pending')
FROM sides
"""

INVOICE_COLUMNS = """
SELECT id, node_id, label, payment_hash, preimage, payment_secret, bolt11, description, amount_msat,
       expires_at, pay_index, received_msat, paid_at FROM invoices
"""

PAY_COLUMNS = """
SELECT id, node_id, payment_hash, bolt11, destination, amount_msat, sent_msat, label, created_at,
       status, preimage, completed_at FROM pays
"""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """`directory` holds the node's sockets; `fee_msat` is what it takes for forwarding a payment."""

    node_id: str
    alias: str
    directory: str
    features: str
    fee_msat: int


@dataclass(frozen=True, slots=True)
class Side:
    """One end of a channel. `spendable_msat` leaves out what is on its way in pending payments."""

    channel: int
    node_id: str
    peer_id: str
    msat: int
    spendable_msat: int


@dataclass(frozen=True, slots=True)
class Hop:
    channel: int
    sender: str
    receiver: str
    msat: int


@dataclass(frozen=True, slots=True)
class OfferRow:
    node_id: str
    offer_id: str
    bolt12: str
    active: bool = True


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """`bolt11` is the invoice's text, also of one that was made from a BOLT12 offer."""

    id: int
    node_id: str
    label: str
    payment_hash: str
    preimage: str
    payment_secret: str
    bolt11: str
    description: str
    amount_msat: int | None
    expires_at: int
    pay_index: int | None = None
    received_msat: int | None = None
    paid_at: int | None = None

    def status(self, now: int) -> str:
        if self.paid_at is not None:
            return "paid"
        return "expired" if now > self.expires_at else "unpaid"


@dataclass(frozen=True, slots=True)
class PayRow:
    id: int
    node_id: str
    payment_hash: str
    bolt11: str
    destination: str
    amount_msat: int
    sent_msat: int
    label: str | None
    created_at: int
    status: PayStatus = "pending"
    preimage: str | None = None
    completed_at: int | None = None


class LabelTaken(Exception):
    pass


class PreimageTaken(Exception):
    pass


class AlreadyPaid(Exception):
    pass


class InProgress(Exception):
    """`args[0]` is the id of the payment that is still under way."""


class Short(Exception):
    """A channel of the route has less to spend than when the route was found."""


class Ledger:
    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")  # survives a killed process, which is all we promise
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Nodes and channels

    def register(self, node: NodeRow) -> None:
        row = (node.node_id, node.alias, node.directory, node.features, node.fee_msat)
        self._db.execute("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?, ?)", row)

    def nodes(self) -> list[NodeRow]:
        return [NodeRow(*row) for row in self._db.execute("SELECT * FROM nodes ORDER BY rowid")]

    def node(self, node_id: str) -> NodeRow | None:
        return next((row for row in self.nodes() if row.node_id == node_id), None)

    def open_channel(self, opener: str, peer: str, msat: int, pushed_msat: int) -> int:
        """A channel from nothing, which is all that a loopback channel can be made of."""
        with self._writing():
            (last,) = self._db.execute("SELECT COALESCE(MAX(channel), 0) FROM sides").fetchone()
            ends = [(last + 1, opener, peer, msat - pushed_msat), (last + 1, peer, opener, pushed_msat)]
            self._db.executemany("INSERT INTO sides VALUES (?, ?, ?, ?)", ends)
        return int(last) + 1

    def sides(self) -> list[Side]:
        return [Side(*row) for row in self._db.execute(SPENDABLE)]

    def under_way(self, channel: int) -> list[tuple[Hop, str]]:
        """What pending payments carry over this channel, with their payment hashes."""
        found = self._db.execute(
            "SELECT channel, sender, receiver, msat, payment_hash FROM hops JOIN pays ON pays.id = hops.pay"
            " WHERE channel = ? AND status = 'pending'",
            (channel,),
        )
        return [(Hop(*row[:4]), row[4]) for row in found]

    # Invoices

    def add_invoice(self, row: InvoiceRow) -> InvoiceRow:
        """The row with its id. Raises PreimageTaken or LabelTaken, checked in lightningd's order."""
        with self._writing():
            if self.invoices(row.node_id, payment_hash=row.payment_hash):
                raise PreimageTaken(row.payment_hash)
            if self.invoices(row.node_id, label=row.label):
                raise LabelTaken(row.label)
            self._db.execute(
                "INSERT INTO invoices (node_id, label, payment_hash, preimage, payment_secret, bolt11,"
                " description, amount_msat, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(row.node_id, row.label, row.payment_hash, row.preimage, row.payment_secret),
                    *(row.bolt11, row.description, row.amount_msat, row.expires_at),
                ),
            )
            return self.invoices(row.node_id, label=row.label)[0]

    def invoices(self, node_id: str, *, label: str | None = None, payment_hash: str | None = None) -> list[InvoiceRow]:
        found = self._db.execute(
            INVOICE_COLUMNS + "WHERE node_id = ? AND label = COALESCE(?, label)"
            " AND payment_hash = COALESCE(?, payment_hash) ORDER BY id",
            (node_id, label, payment_hash),
        )
        return [InvoiceRow(*row) for row in found]

    def delete_invoice(self, invoice_id: int) -> None:
        self._db.execute("DELETE FROM invoices WHERE id = ?", (invoice_id,))

    # Datastore

    def keep(self, node_id: str, key: str, text: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO datastore VALUES (?, ?, ?)", (node_id, key, text))

    def kept(self, node_id: str) -> list[tuple[str, str]]:
        return self._db.execute("SELECT key, text FROM datastore WHERE node_id = ?", (node_id,)).fetchall()

    # Offers

    def add_offer(self, row: OfferRow) -> bool:
        """False if the same offer was there already."""
        values = (row.node_id, row.offer_id, row.bolt12)
        return self._db.execute("INSERT OR IGNORE INTO offers VALUES (?, ?, ?, 1)", values).rowcount == 1

    def offer(self, node_id: str, offer_id: str) -> OfferRow | None:
        found = self._db.execute(
            "SELECT node_id, offer_id, bolt12, active FROM offers WHERE node_id = ? AND offer_id = ?",
            (node_id, offer_id),
        )
        return next((OfferRow(*row) for row in found), None)

    def disable_offer(self, row: OfferRow) -> None:
        self._db.execute("UPDATE offers SET active = 0 WHERE node_id = ? AND offer_id = ?", (row.node_id, row.offer_id))

    # Payments

    def begin_pay(self, pay: PayRow, hops: Sequence[Hop]) -> int:
        """Write a payment before it is tried, and set its money aside on every channel of the way."""
        with self._writing():
            self._refuse_second(pay)
            self._refuse_short(hops)
            written = self._db.execute(
                "INSERT INTO pays (node_id, payment_hash, bolt11, destination, amount_msat, sent_msat,"
                " label, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(pay.node_id, pay.payment_hash, pay.bolt11, pay.destination),
                    *(pay.amount_msat, pay.sent_msat, pay.label, pay.created_at),
                ),
            )
            pay_id = int(written.lastrowid or 0)
            rows = [(pay_id, hop.channel, hop.sender, hop.receiver, hop.msat) for hop in hops]
            self._db.executemany("INSERT INTO hops VALUES (?, ?, ?, ?, ?)", rows)
        return pay_id

    def _refuse_second(self, pay: PayRow) -> None:
        for earlier in self.pays(pay.node_id, payment_hash=pay.payment_hash):
            if earlier.status == "complete":
                raise AlreadyPaid
            if earlier.status == "pending":
                raise InProgress(earlier.id)

    def _refuse_short(self, hops: Sequence[Hop]) -> None:
        spendable = {(side.channel, side.node_id): side.spendable_msat for side in self.sides()}
        if any(spendable[hop.channel, hop.sender] < hop.msat for hop in hops):
            raise Short

    def settle(self, pay_id: int, invoice_id: int, now: int) -> InvoiceRow | None:
        """The payee takes the money: invoice paid, balances moved, payment complete, or none of it.

        None if the payer gave up meanwhile, or the invoice is paid or gone.
        """
        with self._writing():
            pay = self.pay(pay_id)
            found = self._db.execute(INVOICE_COLUMNS + "WHERE id = ? AND paid_at IS NULL", (invoice_id,))
            invoice = next((InvoiceRow(*row) for row in found), None)
            if pay is None or pay.status != "pending" or invoice is None:
                return None
            self._move(pay_id)
            self._mark_paid(invoice, pay.amount_msat, now)
            self._db.execute(
                "UPDATE pays SET status = 'complete', preimage = ?, completed_at = ? WHERE id = ?",
                (invoice.preimage, now, pay_id),
            )
            return self.invoices(invoice.node_id, label=invoice.label)[0]

    def _move(self, pay_id: int) -> None:
        hops = self._db.execute("SELECT channel, sender, receiver, msat FROM hops WHERE pay = ?", (pay_id,))
        for channel, sender, receiver, msat in hops.fetchall():
            for node_id, change_msat in ((sender, -msat), (receiver, msat)):
                self._db.execute(
                    "UPDATE sides SET msat = msat + ? WHERE channel = ? AND node_id = ?",
                    (change_msat, channel, node_id),
                )

    def _mark_paid(self, invoice: InvoiceRow, msat: int, now: int) -> None:
        self._db.execute(
            "UPDATE invoices SET received_msat = ?, paid_at = ?, pay_index = (SELECT"
            " COALESCE(MAX(pay_index), 0) + 1 FROM invoices WHERE node_id = ?) WHERE id = ?",
            (msat, now, invoice.node_id, invoice.id),
        )

    def fail_pay(self, pay_id: int, now: int) -> PayRow:
        """The payer gives up; returns the row as it is then, complete if the payee was faster."""
        with self._writing():
            self._db.execute(
                "UPDATE pays SET status = 'failed', completed_at = ? WHERE id = ? AND status = 'pending'",
                (now, pay_id),
            )
            found = self.pay(pay_id)
        assert found is not None  # noqa: S101  (pays are never deleted)
        return found

    def fail_unfinished(self, node_id: str, now: int) -> None:
        """After a crash: what this node had under way and nobody completed has failed."""
        self._db.execute(
            "UPDATE pays SET status = 'failed', completed_at = ? WHERE node_id = ? AND status = 'pending'",
            (now, node_id),
        )

    def pay(self, pay_id: int) -> PayRow | None:
        found = self._db.execute(PAY_COLUMNS + "WHERE id = ?", (pay_id,))
        return next((PayRow(*row) for row in found), None)

    def pays(self, node_id: str, *, payment_hash: str | None = None) -> list[PayRow]:
        found = self._db.execute(
            PAY_COLUMNS + "WHERE node_id = ? AND payment_hash = COALESCE(?, payment_hash) ORDER BY id",
            (node_id, payment_hash),
        )
        return [PayRow(*row) for row in found]
