"""A day of traffic in ten minutes: does the memory of server and engines stay flat?

    python contrib/bench/soak.py [--minutes 10] [--json]

A real `lyceum serve` with two small models and an embedder answers clients that come and go as over a day: few by
night, many in the evening. Answers are streamed or whole, short or long, free or in a shape; some readers leave in
the middle, and some prompts are refused. Memory is measured every hour.

Flat: in the second half of the day the straight line through an hour's figures rises by less than 5 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2 as httpx

sys.path.insert(0, str(Path(__file__).parent))

from serving.rivals import anonymous_mb, family, free_port

from lyceum import tables
from lyceum.demo import models_directory
from lyceum.devnet.process import Daemon

HOURS = 24
MOST_CLIENTS, FEWEST_CLIENTS = 24, 2
FLAT_PERCENT = 5.0
NAMES = ("austrian-economics", "american-culture")
SENTENCE = "why did the price of money fall what is capital who was Mises in the theory of interest and culture"
SHAPE = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["yes", "no"]}}}


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="lyceum-soak-") as directory:
        found = asyncio.run(soak(Path(directory), options.minutes * 60))
    if options.json or not sys.stdout.isatty():
        print(json.dumps(found))
        return
    rows = [(hour, f"{server:,.1f}", f"{engines:,.1f}") for hour, (server, engines) in enumerate(found["hours"], 1)]
    print(tables.render(("hour", "server MB", "engines MB"), rows))
    print(f"{found['requests']:,} requests; {'flat' if found['flat'] else 'NOT flat'}: {found['growth_percent']} %")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the day takes; default 10")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser.parse_args()


async def soak(directory: Path, seconds: float) -> dict[str, Any]:
    port = free_port()
    server = Daemon("server", [sys.executable, "-m", "lyceum", "serve", "--config", configured(directory, port)],
                    directory / "server.log")  # fmt: skip
    server.spawn()
    server.await_ready(lambda: healthy(port))
    assert server.process  # noqa: S101
    try:
        return await day(server.process.pid, f"http://127.0.0.1:{port}", seconds)
    finally:
        server.end()


def configured(directory: Path, port: int) -> str:
    files = [(name, models_directory() / name / f"{name}.Q8_0.gguf", "chat") for name in NAMES]
    files.append(("vectors", files[0][1], "embedding"))
    rows = [
        f'[[model]]\nname = "{name}"\npath = "{path}"\nkind = "{kind}"\nn_ctx = 512\nmax_tokens = 200\nqueue = 64\n'
        for name, path, kind in files
    ]
    config = directory / "lyceum.toml"
    config.write_text(f'[server]\nport = {port}\nnode = ""\n' + "".join(rows))
    return str(config)


def healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.HTTPError:
        return False


async def day(pid: int, url: str, seconds: float) -> dict[str, Any]:
    """Clients as many as the hour has, until the day is over."""
    dice, counted, hours = random.Random(1), Counter[str](), list[tuple[float, float]]()  # noqa: S311
    begun = time.monotonic()

    def hour() -> float:
        return (time.monotonic() - begun) / seconds * HOURS

    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=100)) as http:
        clients = [asyncio.create_task(client(http, number, hour, dice, counted)) for number in range(MOST_CLIENTS)]
        for number in range(1, HOURS + 1):
            await asyncio.sleep(max(0.0, begun + seconds * number / HOURS - time.monotonic()))
            hours.append(measured(pid))
        await asyncio.gather(*clients)
    growth = max(rise([row[column] for row in hours[HOURS // 2 :]]) for column in (0, 1))
    told = {"requests": counted.total(), "outcomes": dict(counted), "hours": hours}
    return {"flat": growth < FLAT_PERCENT, "growth_percent": round(growth, 2), **told}


async def client(http: httpx.AsyncClient, number: int, hour: Any, dice: random.Random, counted: Counter[str]) -> None:
    """Asks while the hour is busy enough for so many."""
    while (now := hour()) < HOURS:
        evening = (1 - math.cos(now / HOURS * 2 * math.pi)) / 2
        if number >= FEWEST_CLIENTS + evening * (MOST_CLIENTS - FEWEST_CLIENTS):
            await asyncio.sleep(0.1)
            continue
        try:
            counted[await ask(http, dice)] += 1
        except httpx.HTTPError as error:
            counted[type(error).__name__] += 1


async def ask(http: httpx.AsyncClient, dice: random.Random) -> str:
    """One request of some kind; what became of it."""
    text = " ".join(dice.choices(SENTENCE.split(), k=dice.choice([3, 8, 40, 200, 900])))
    kind = dice.choice(["whole", "stream", "stream", "leave", "shape", "embed"])
    if kind == "embed":
        return str((await http.post("/v1/embeddings", json={"model": "vectors", "input": [text] * 4})).status_code)
    body: dict[str, Any] = {"model": dice.choice(NAMES), "messages": [{"role": "user", "content": text}]}
    body |= {"max_tokens": dice.choice([5, 40, 150]), "temperature": dice.choice([0, 0.8])}
    body |= {"response_format": SHAPE} if kind == "shape" else {}
    if kind in ("whole", "shape"):
        return str((await http.post("/v1/chat/completions", json=body)).status_code)
    return await streamed(http, body, leave=kind == "leave")


async def streamed(http: httpx.AsyncClient, body: Mapping[str, Any], leave: bool) -> str:
    async with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
        async for _ in answer.aiter_lines():
            if leave:
                return "left"
    return str(answer.status_code)


def measured(pid: int) -> tuple[float, float]:
    """MB of the server, and of its engines."""
    total, (_, *engines) = anonymous_mb(pid), family(pid)
    own = sum(map(anonymous_mb, engines))
    return round(total - own, 2), round(own, 2)


def rise(figures: list[float]) -> float:
    """Percent by which the straight line through them rises from the first to the last."""
    line = statistics.linear_regression(range(len(figures)), figures)
    return 100 * line.slope * (len(figures) - 1) / statistics.fmean(figures)


if __name__ == "__main__":
    main()
