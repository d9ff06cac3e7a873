"""What the gate costs: one admit and one settle through the node's RPC, beside a bare getinfo.

    python contrib/bench/gate.py [--network regtest] [--seconds 5] [--json]

A token with a large balance is bought first, so that every admit verifies a macaroon, reserves in
the books and every settle charges: two commits to the disk a round. Clients are processes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pyln.client import LightningRpc

sys.path.insert(0, str(Path(__file__).parent))

from serving.credit import SERVICE, buy, buyer_and_seller

from lyceum import tables
from lyceum.devnet import open_devnet

WARM_UP = 20


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="lyceum-gate-") as directory:
        found = measure(options.network, Path(directory), options.seconds)
    if options.json or not sys.stdout.isatty():
        print(json.dumps(found))
    else:
        print(tables.render(("what", "figure"), list(found.items())))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("loopback", "regtest"), default="loopback")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each figure is measured; default 5")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser.parse_args()


def measure(network: str, directory: Path, seconds: float) -> dict[str, str | float]:
    with open_devnet("regtest" if network == "regtest" else "loopback", directory) as devnet:
        buyer, seller = buyer_and_seller(devnet)
        work = (str(seller.rpc_path), buy(buyer, seller))
        rpc = seller.rpc
        getinfo_s = timed(rpc.getinfo, seconds)
        gate_s = timed(lambda: one_round(rpc, work[1]), seconds)
        return {
            "admit_settle_ms_p50": milliseconds(gate_s, 50),
            "admit_settle_ms_p99": milliseconds(gate_s, 99),
            "per_s_1": round(throughput(work, 1, seconds), 1),
            "per_s_16": round(throughput(work, 16, seconds), 1),
            "getinfo_ms_p50": milliseconds(getinfo_s, 50),
            "network": devnet.network,
        }


def one_round(rpc: LightningRpc, authorization: str) -> None:
    wanted = {"service": SERVICE, "amount_msat": 100, "authorization": authorization}
    reservation = rpc.call("l402-admit", wanted)["admitted"]["reservation"]
    rpc.call("l402-settle", {"reservation": reservation, "charge_msat": 1})


def timed(work: Callable[[], object], seconds: float) -> list[float]:
    for _ in range(WARM_UP):
        work()
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return taken


def milliseconds(taken: list[float], percentile: int) -> float:
    return round(statistics.quantiles(taken, n=100)[percentile - 1] * 1000, 3)


def throughput(work: tuple[str, str], clients: int, seconds: float) -> float:
    """Rounds a second that this many processes get through together."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(clients) as pool:
        counts = pool.starmap(client, [(*work, seconds)] * clients, chunksize=1)
    return sum(counts) / seconds


def client(socket: str, authorization: str, seconds: float) -> int:
    return len(timed(lambda: one_round(LightningRpc(socket), authorization), seconds))


if __name__ == "__main__":
    main()
