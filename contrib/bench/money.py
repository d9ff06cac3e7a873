"""What selling costs: challenges that nobody pays, the gate, and the books at a million tokens.

    python contrib/bench/money.py [--network regtest] [--seconds 5] [--tokens 1000000] [--json]

Rules. One seller on one network, its limits out of the way. Challenges are made by `invoice` first; then the process
that makes lazy invoices is started, and they are made again by the same calls of the same four clients. Bytes are
pages in use of lightningd's and our database, over all challenges made between two looks; the stand-in keeps no
database like lightningd's, so on loopback they are null. The gate is one admit and one settle of a token with a large
balance: a macaroon verified and two commits to the disk. Clients are processes that are warm before anything is timed.
The books are timed alone: a file of this schema, filled in bulk, each token with one answer paid from it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from pyln.client import LightningRpc

sys.path.insert(0, str(Path(__file__).parent))

from serving.credit import SERVICE, buy, buyer_and_seller

from lyceum import tables
from lyceum.devnet import Node, open_devnet
from lyceum.l402 import parse_challenge
from lyceum.ledger import Database, TillBook

HOOK = Path(sys.executable).with_name("cln-lyceum-invoices")
DATABASES = ("lightningd.sqlite3", "lyceum.sqlite3")
ASKING = 4
"""Clients that want challenges at once."""

MOST_CLIENTS = 16
WARM_S = 1.5
"""Longer than the till takes to notice that the process for lazy invoices has come."""

FEW_TOKENS = 1000
SAMPLE = 20_000

Figures = dict[str, float | str | None]


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="lyceum-money-") as folder:
        directory = Path(folder)
        found = measured_nodes(options.network, directory, options.seconds)
        found |= measured_books(directory, options.tokens, options.seconds)
    if options.json or not sys.stdout.isatty():
        print(json.dumps(found))
    else:
        print(tables.render(("what", "figure"), [(name, _cell(value)) for name, value in found.items()]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("loopback", "regtest"), default="loopback")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each figure is measured; default 5")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="tokens in the books; default 1000000")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser.parse_args()


def _cell(value: float | str | None) -> float | str:
    return "-" if value is None else value


# What clients do


@dataclass(frozen=True)
class Stranger:
    """Asks for a challenge and goes away; without an address, so that each gets one of its own."""

    socket: str

    def __call__(self) -> dict[str, Any]:
        wanted = {"service": SERVICE, "amount_msat": 1000}
        return LightningRpc(self.socket).call("l402-admit", wanted)["declined"]  # type: ignore[no-any-return]

    def invoice(self) -> str:
        return parse_challenge([value for _, value in self()["headers"]]).invoice


@dataclass(frozen=True)
class Holder:
    """Is let in, gets an answer, and is charged for it."""

    socket: str
    authorization: str

    def __call__(self) -> None:
        rpc = LightningRpc(self.socket)
        wanted = {"service": SERVICE, "amount_msat": 100, "authorization": self.authorization}
        reservation = rpc.call("l402-admit", wanted)["admitted"]["reservation"]
        rpc.call("l402-settle", {"reservation": reservation, "charge_msat": 1})


@dataclass(frozen=True)
class Signer:
    """Has the node sign an invoice again: no challenge can be made faster than this."""

    socket: str
    invoice: str

    def __call__(self) -> None:
        LightningRpc(self.socket).call("signinvoice", {"invstring": self.invoice})


@dataclass(frozen=True)
class Caller:
    """The least that an RPC call takes."""

    socket: str

    def __call__(self) -> None:
        LightningRpc(self.socket).getinfo()


# How they are timed


@dataclass(frozen=True)
class Timing:
    """Seconds that each call took, and calls a second of all clients together."""

    taken: list[float]
    per_s: float

    def milliseconds(self, percentile: int) -> float:
        return round(statistics.quantiles(self.taken, n=100)[percentile - 1] * 1000, 3)


@dataclass(frozen=True)
class Crowd:
    pool: Pool

    def run(self, work: Callable[[], object], clients: int, seconds: float) -> Timing:
        answers = self.pool.starmap(timed, [(work, seconds)] * clients, chunksize=1)
        return Timing([one for taken in answers for one in taken], round(sum(map(rate, answers)), 1))


@contextmanager
def crowd() -> Iterator[Crowd]:
    """Processes that have all started before any of them works."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(MOST_CLIENTS, context.Barrier(MOST_CLIENTS).wait) as pool:
        yield Crowd(pool)


def timed(work: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call, at least one."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while not taken or time.perf_counter() < until:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return taken


def rate(taken: list[float]) -> float:
    return len(taken) / sum(taken)


# The node


def measured_nodes(network: str, directory: Path, seconds: float) -> Figures:
    with open_devnet("regtest" if network == "regtest" else "loopback", directory) as devnet, crowd() as clients:
        buyer, seller = buyer_and_seller(devnet)
        holder = Holder(str(seller.rpc_path), buy(buyer, seller))
        found = measured_gate(holder, clients, seconds)
        return {"network": devnet.network} | measured_challenges(seller, clients, seconds) | found


def measured_challenges(seller: Node, clients: Crowd, seconds: float) -> Figures:
    stranger = Stranger(str(seller.rpc_path))
    by_invoice = challenges(seller, stranger, clients, seconds)
    seller.rpc.plugin_start(str(HOOK))
    lazy = challenges(seller, stranger, clients, seconds)
    if seller.rpc.listinvoices(invstring=stranger.invoice())["invoices"]:
        sys.exit(f"{HOOK} runs, and still the challenge left an invoice in the node: see {seller.log_path}")
    signing = clients.run(Signer(stranger.socket, stranger.invoice()), ASKING, seconds)
    return {
        "lazy_bytes_per_unpaid": lazy[1],
        "invoice_bytes_per_unpaid": by_invoice[1],
        "lazy_per_s": lazy[0],
        "invoice_per_s": by_invoice[0],
        "lazy_over_invoice": round(lazy[0] / by_invoice[0], 2),
        "signinvoice_per_s": signing.per_s,
    }


def challenges(seller: Node, stranger: Stranger, clients: Crowd, seconds: float) -> tuple[float, float | None]:
    """How many a second, and the bytes that each leaves."""
    clients.run(stranger, ASKING, WARM_S)
    before = bytes_used(seller)
    made = clients.run(stranger, ASKING, seconds)
    after = bytes_used(seller)
    left = None if before is None or after is None else round((after - before) / len(made.taken), 1)
    return made.per_s, left


def bytes_used(node: Node) -> int | None:
    """By pages in use; None on a network whose nodes keep no such databases."""
    paths = [node.rpc_path.parent / name for name in DATABASES]
    return sum(map(pages_bytes, paths)) if all(path.exists() for path in paths) else None


def pages_bytes(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        pages, free, size = (
            int(database.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
    return (pages - free) * size


def measured_gate(holder: Holder, clients: Crowd, seconds: float) -> Figures:
    clients.run(holder, MOST_CLIENTS, WARM_S)
    alone, together = (clients.run(holder, count, seconds) for count in (1, MOST_CLIENTS))
    return {
        "gate_per_s_1": alone.per_s,
        "gate_per_s_16": together.per_s,
        "gate_ms_p50": alone.milliseconds(50),
        "gate_ms_p99": alone.milliseconds(99),
        "getinfo_ms_p50": clients.run(Caller(holder.socket), 1, seconds / 5).milliseconds(50),
    }


# The books


def measured_books(directory: Path, tokens: int, seconds: float) -> Figures:
    few, many = directory / "few.sqlite3", directory / "many.sqlite3"
    for path, count in ((few, FEW_TOKENS), (many, tokens)):
        fill(path, count)
    many_bytes = many.stat().st_size
    with closing(Database(few)) as small, closing(Database(many)) as large:
        return {
            "tokens": tokens,
            "ledger_mb": round(many_bytes / 1e6, 1),
            "ledger_bytes_per_token": round(many_bytes / tokens, 1),
            "ledger_per_s": cycles(large, seconds),
            f"ledger_per_s_at_{FEW_TOKENS}": cycles(small, seconds),
            "ledger_sums_ms": round(timed(TillBook(large).sales, 0)[0] * 1000, 1),
        }


def fill(path: Path, tokens: int) -> None:
    """Books in which every token has paid for one answer; without a journal, since nobody needs them later."""
    Database(path).close()
    now = int(time.time())
    with closing(sqlite3.connect(path)) as database:
        database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000;")
        database.execute(
            "WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers LIMIT ?)"
            " INSERT INTO tokens (token_id, payment_hash, service, credit_msat, spent_msat, created_at, expires_at)"
            " SELECT lower(hex(randomblob(32))), lower(hex(randomblob(32))), ?, 1000000, 1000, ?, ? FROM numbers",
            (tokens, SERVICE, now, now + 10**6),
        )
        database.execute(
            "INSERT INTO reservations (reservation, token_id, amount_msat, until, charged_msat, settled_at)"
            " SELECT lower(hex(randomblob(16))), token_id, 5000, created_at, 1000, created_at FROM tokens"
        )
        database.commit()


def cycles(database: Database, seconds: float) -> float:
    """Reserve and settle on tokens drawn at random: rounds a second."""
    book, now = TillBook(database), int(time.time())
    (last,) = database.read("SELECT MAX(rowid) FROM tokens")[0]
    drawn = (random.randint(1, last) for _ in range(SAMPLE))  # noqa: S311  (which rows to time)
    tokens = [database.read("SELECT token_id FROM tokens WHERE rowid = ?", row)[0]["token_id"] for row in drawn]

    def once() -> None:
        held = book.reserve(random.choice(tokens), 100, 100, now, now + 900)  # noqa: S311
        book.settle(held.reservation if held else "", 1, now)

    return round(rate(timed(once, seconds)), 1)


if __name__ == "__main__":
    main()
