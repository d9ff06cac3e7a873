"""The benchmark's own arithmetic and its small reader of streams: a wrong figure would be believed."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from money import Timing, fill, measured_books, pages_bytes
from serving.figures import fairness, figures, milliseconds, stall
from serving.load import Answer, Target, burst
from serving.rivals import kernels

from lyceum.ledger import Database, TillBook
from lyceum.ports import Delta, End, Usage
from lyceum.wire import Envelope

ENVELOPE = Envelope("chatcmpl-1", 1, "m")


def spoken(client: int, started: float, *arrivals: float) -> Answer:
    return Answer(client, started, list(arrivals), len(arrivals))


def test_a_percentile_is_a_figure_that_was_measured() -> None:
    taken = [number / 1000 for number in range(1, 101)]
    assert (milliseconds(taken, 50), milliseconds(taken, 99), milliseconds(taken, 100)) == (50, 99, 100)
    assert (milliseconds([0.007], 99), milliseconds([], 99)) == (7, 0)


def test_figures_of_a_burst() -> None:
    """Tokens over the time from the first request to the last piece; gaps within answers only."""
    found = figures([spoken(0, 10.0, 10.5, 11.0), spoken(1, 10.0, 11.0, 12.0)], wanted=2)
    assert (found["tokens_per_s"], found["ttft_ms_p50"], found["ttft_ms_p99"]) == (2.0, 500, 1000)
    assert (found["itl_ms_p99"], found["fairness"], found["wrong"]) == (1000, 0.5, 0)


def test_an_answer_of_another_length_is_counted_as_wrong() -> None:
    assert figures([spoken(0, 0.0, 1.0), spoken(1, 0.0, 1.0, 2.0)], wanted=2)["wrong"] == 1
    failed = Answer(0, 0.0, failure="HTTP/1.1 503 Service Unavailable")
    assert figures([failed], wanted=2) == {"tokens_per_s": 0.0, "wrong": 1, "failure": failed.failure}


def test_fairness_is_of_clients_not_of_answers() -> None:
    """One client's two answers are one account."""
    assert fairness([spoken(0, 0.0, 1.0), spoken(0, 1.0, 2.0), spoken(1, 0.0, 2.0, 2.0)]) == 1


def test_a_stall_is_told_from_the_quiet_before_it() -> None:
    """Gaps that a long prompt's reading touches, against those from when all speak until it comes."""
    streams = [spoken(0, 0.0, 1.0, 1.1, 1.2, 1.3, 1.9, 2.0), spoken(1, 0.0, 1.0, 1.1, 1.2, 1.3, 1.8, 2.0)]
    found = stall(streams, spoken(2, 1.35, 1.95), quiet=3)
    assert (found["itl_ms_p99"], found["itl_ms_p99_joining"], found["itl_p99_ratio"]) == (100, 600, 6)
    assert found["ttft_ms_long"] == 600
    assert stall(streams, spoken(2, 1.35, 1.95), quiet=99) == {"wrong": 1}


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "closed"])
def test_pieces_are_counted_however_they_come(size: int, newline: str, keeps: bool) -> None:
    """In chunks of any size, with either newline; roles and the end are no pieces; the connection is used again
    where the server keeps it."""
    events = ENVELOPE.delta(Delta("one"), True) + ENVELOPE.delta(Delta(' "content":"two'), False)
    events = 'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n' + events
    events += ENVELOPE.end(End("stop", Usage(3, 2)), True)
    chunks = [event.replace("\n", newline) + newline * 2 for event in events.split("\n\n") if event]
    answers = asyncio.run(_asked(chunks, size, keeps))
    assert [(answer.tokens, len(answer.arrivals), answer.failure) for answer in answers] == [(2, 2, "")] * 2


async def _asked(chunks: list[str], size: int, keeps: bool) -> list[Answer]:
    """Two questions over one connection to a server that answers with these chunks, in pieces of this size."""
    body = "".join(f"{len(chunk.encode()):x}\r\n{chunk}\r\n" for chunk in chunks) + "0\r\n\r\n"
    raw = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: max=100\r\n\r\n{body}".encode()
    connections = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while b"max_tokens" in await reader.read(4096):
            for at in range(0, len(raw), size):
                writer.write(raw[at : at + size])
                await writer.drain()
            if not keeps:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        target = Target(server.sockets[0].getsockname()[1], "m")
        answers = await asyncio.wait_for(burst(target, [["a", "b"]], 2), 30)
    assert len(connections) == (1 if keeps else 2)
    return answers


def test_kernels_are_compared_without_their_order() -> None:
    line = "n_threads = 2 / 2 | CPU : SSE3 = 1 | AVX2 = 1 | REPACK = 1 |"
    assert kernels(line) == kernels("CPU : SSE3 = 1 | REPACK = 1 | AVX2 = 1")
    assert kernels(line) != kernels("CPU : SSE3 = 1 | AVX2 = 1")


def test_bytes_are_those_in_use(tmp_path: Path) -> None:
    """What a row leaves behind counts, and what was deleted does not."""
    path = tmp_path / "some.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE some (words TEXT)")
        database.commit()
        before = pages_bytes(path)
        database.execute("INSERT INTO some VALUES (?)", ("w" * 100_000,))
        database.commit()
        assert 90_000 < pages_bytes(path) - before < 110_000
        database.execute("DELETE FROM some")
        database.commit()
        assert pages_bytes(path) == before


def test_large_books_are_books(tmp_path: Path) -> None:
    """What is written in bulk is what a till would have written: every token sold, used once, and good for more."""
    fill(tmp_path / "many.sqlite3", 300)
    with closing(Database(tmp_path / "many.sqlite3")) as database:
        sums = TillBook(database).sales()
    assert (sums["tokens"], sums["answers"], sums["reserved_msat"]) == (300, 300, 0)
    assert sums["credit_msat"] == sums["spent_msat"] + sums["balance_msat"]


def test_the_books_are_timed_at_both_sizes(tmp_path: Path) -> None:
    found = measured_books(tmp_path, 200, 0)
    assert found["tokens"] == 200
    assert all(found[name] for name in ("ledger_mb", "ledger_per_s", "ledger_per_s_at_1000", "ledger_sums_ms"))


def test_a_timing_s_percentiles_are_in_milliseconds() -> None:
    found = Timing([0.1] * 98 + [0.3] * 2, 10.0)
    assert (found.milliseconds(50), found.milliseconds(99)) == (100, 300)
