"""What our books say is what the node's own tools say: invoices, payments, and bkpr where there is a bookkeeper."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pyln.client import RpcError

from lyceum.devnet import Node
from networks import Market

SERVICE = "lyceum"
DONE_S = 20


@pytest.fixture(scope="module", autouse=True)
def trade(market: Market) -> None:
    """Two tokens are bought, one is used and given back, one is never shown; the seller buys as well."""
    market.buyer.rpc.xpay(market.seller.rpc.invoice(100_000_000, "funds", "not of ours")["bolt11"])
    used, _ = (buy(market, market.seller, market.buyer, amount_msat) for amount_msat in (9000, 4000))
    admission = {"service": SERVICE, "amount_msat": 1500, "authorization": used, "model": "gold"}
    admitted = market.call(market.seller, "l402-admit", admission)["admitted"]
    market.call(market.seller, "l402-settle", [admitted["reservation"], 700])
    offer = market.call(market.buyer, "offer", {"amount": "any", "description": "what is left"})["bolt12"]
    market.call(market.seller, "l402-reclaim", [SERVICE, used, offer])
    buy(market, market.buyer, market.seller, 2000)
    until(lambda: stats(market.seller)["refunds"]["payouts"] == 1)
    market.settled_msat(market.seller)


def buy(market: Market, seller: Node, buyer: Node, amount_msat: int) -> str:
    wanted = {"service": SERVICE, "amount_msat": amount_msat, "model": "gold"}
    declined = market.call(seller, "l402-admit", wanted)["declined"]
    line = next(value for _, value in declined["headers"] if value.startswith("L402"))
    terms = {"origin": "http://seller:1", "cap_msat": amount_msat, "purpose": "books", "model": "gold"}
    ticket = market.call(buyer, "l402-pay", {"challenge": line, **terms})["ticket"]
    return str(ticket["authorization"])


def until(true: Any) -> None:
    deadline = time.monotonic() + DONE_S
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def stats(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = node.rpc.call("l402-stats", {})
    return found


def paid(node: Node) -> list[dict[str, Any]]:
    """Our invoices that were paid."""
    rows: list[dict[str, Any]] = node.rpc.listinvoices()["invoices"]
    return [row for row in rows if row["status"] == "paid" and row["label"].startswith("l402/")]


def payments(node: Node, label: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = node.rpc.listpays(status="complete")["pays"]
    return [row for row in rows if row.get("label", "").startswith(label)]


def sent_msat(rows: list[dict[str, Any]]) -> int:
    return sum(row["amount_sent_msat"] for row in rows)


def test_received_is_what_the_node_s_invoices_were_paid(market: Market) -> None:
    """With the token that was paid and never shown, which the books alone do not know."""
    for node in (market.seller, market.buyer):
        accounts = stats(node)["accounts"]
        assert accounts["received_msat"] == sum(row["amount_received_msat"] for row in paid(node)) > 0
    assert stats(market.seller)["accounts"]["unused_msat"] == 4000


def test_received_is_accounted_for(market: Market) -> None:
    """Revenue, refunds, their fees, what is owed and what lapsed, to the msat."""
    accounts = stats(market.seller)["accounts"]
    parts = ("revenue_msat", "refunds_msat", "refund_fees_msat", "liabilities_msat", "lapsed_msat")
    assert sum(accounts[part] for part in parts) == accounts["received_msat"] == 13_000
    assert accounts["revenue_msat"] == 700
    assert accounts["refunds_msat"] + accounts["refund_fees_msat"] <= 8300


def test_spending_is_what_the_node_s_payments_sent(market: Market) -> None:
    """For tokens and for refunds, told apart by their labels, fees included."""
    for node in (market.seller, market.buyer):
        accounts = stats(node)["accounts"]
        assert accounts["spending_msat"] + accounts["spending_fees_msat"] == sent_msat(payments(node, "lyceum:")) > 0
        assert accounts["refunds_msat"] + accounts["refund_fees_msat"] == sent_msat(payments(node, "l402-refund/"))


def test_labels_and_descriptions_say_what_was_traded(market: Market) -> None:
    """In listinvoices the service, the token and the model; in listpays who bought, and what."""
    labels = {row["label"].rsplit("/", 1)[0] for row in paid(market.seller)}
    assert labels == {"l402/lyceum"}
    assert {row["description"] for row in paid(market.seller)} == {"L402 lyceum gold"}
    assert {row["label"] for row in payments(market.buyer, "lyceum:")} == {"lyceum: books gold"}


def test_the_node_s_bookkeeper_agrees(market: Market) -> None:
    """bkpr-listincome has the same sums for the same payments, under our descriptions."""
    hashes = {row["payment_hash"] for node in (market.seller, market.buyer) for row in paid(node)}
    received, spent = stats(market.seller)["accounts"]["received_msat"], sent_msat(payments(market.seller, "lyceum:"))

    def income() -> list[dict[str, Any]]:
        rows = market.seller.rpc.call("bkpr-listincome")["income_events"]
        return [row for row in rows if row.get("payment_id") in hashes]

    try:
        until(lambda: sum(row["credit_msat"] for row in income()) == received)
    except RpcError:
        pytest.skip("the stand-in has no bookkeeper")
    rows = income()
    assert sum(row["debit_msat"] for row in rows) == spent
    assert {row["description"] for row in rows if row["tag"] == "invoice"} == {"L402 lyceum gold"}


def test_sql_finds_our_revenue(market: Market) -> None:
    """The node's own query language, as the manual shows it."""
    query = "SELECT SUM(amount_received_msat) FROM invoices WHERE status = 'paid' AND label LIKE 'l402/%'"
    try:
        ((received_msat,),) = market.seller.rpc.call("sql", [query])["rows"]
    except RpcError:
        pytest.skip("the stand-in has no sql")
    assert received_msat == stats(market.seller)["accounts"]["received_msat"]


def exported(node: Node, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lyceum", "export", "--node", str(node.rpc_path), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_export_has_both_sides(market: Market) -> None:
    """Its sums are those of the accounts; each row names the payment as the node lists it."""
    done = exported(market.seller)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    sums: dict[tuple[str, str], int] = {}
    for row in rows:
        key = row["side"], row["kind"]
        sums[key] = sums.get(key, 0) + int(row["amount_msat"])
    accounts = stats(market.seller)["accounts"]
    assert sums == {
        ("sold", "token"): accounts["received_msat"] - accounts["unused_msat"],
        ("sold", "answer"): accounts["revenue_msat"],
        ("sold", "refund"): accounts["refunds_msat"],
        ("bought", "token"): accounts["spending_msat"],
    }
    known = {row["payment_hash"] for row in paid(market.seller) + market.seller.rpc.listpays()["pays"]}
    assert {row["payment_hash"] for row in rows} <= known


def test_export_writes_a_new_file_from_a_day_on(market: Market, tmp_path: Path) -> None:
    """It never overwrites one, and makes none for a day that is none."""
    path = tmp_path / "books.csv"
    assert exported(market.seller, "--out", path, "--since", "yesterday").returncode == 2
    assert not path.exists()
    assert exported(market.seller, "--out", path, "--since", "2100-01-01").returncode == 0
    assert len(path.read_text().splitlines()) == 1
    again = exported(market.seller, "--out", path)
    assert again.returncode == 2
    assert "left as it is" in again.stderr
