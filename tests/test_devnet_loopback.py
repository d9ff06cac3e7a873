"""What the stand-in promises beyond lightningd: books that survive any kill, fees, plain refusals."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyln.client import RpcError

from devnets import CAPACITY_MSAT, ECHO, PLUGINS, SECOND, Couple, open_couple, pays, refusal, until
from lyceum.devnet import Node, open_devnet
from lyceum.devnet.loopback_net import LoopbackDevnet
from lyceum.devnet.process import Daemon, environment
from lyceum.errors import NodeError

BEACON = PLUGINS / "beacon.py"
FEE_MSAT = 7


@pytest.fixture(scope="module")
def couple(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Couple]:
    with open_couple("loopback", tmp_path_factory.mktemp("loopback")) as couple:
        yield couple


def total_msat(*nodes: Node) -> int:
    return sum(node.balance_msat() for node in nodes)


def attempt(node: Node, bolt11: str) -> dict[str, Any]:
    """xpay's result, or its error, or nothing when the node is killed meanwhile."""
    try:
        paid: dict[str, Any] = node.rpc.xpay(bolt11)
    except RpcError as error:
        return error.error if isinstance(error.error, dict) else {}
    except OSError:
        return {}
    return paid


# Kills


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.1, 1.0, 1.49, 1.55])
@pytest.mark.parametrize("who", ["payer", "payee"])
def test_kill_at_any_moment_leaves_the_books_right(couple: Couple, who: str, delay: float) -> None:
    """kill -9 before, while and after the payee holds a payment: it happened wholly or not at all."""
    invoice = couple.invoice(5000, "hold")
    before = couple.payee.balance_msat()
    paying = threading.Thread(target=attempt, args=(couple.payer, invoice["bolt11"]))
    paying.start()
    time.sleep(delay)
    victim = couple.payer if who == "payer" else couple.payee
    victim.kill()
    paying.join()
    victim.start()
    time.sleep(max(0.0, 1.7 - delay))
    assert total_msat(couple.payer, couple.payee) == CAPACITY_MSAT
    (shown,) = couple.payee.rpc.listinvoices(invoice["label"])["invoices"]
    was_paid = shown["status"] == "paid"
    assert couple.payee.balance_msat() - before == (5000 if was_paid else 0)
    statuses = [row["status"] for row in pays(couple.payer, invoice["payment_hash"])]
    assert statuses in ([], ["complete" if was_paid else "failed"])
    assert not was_paid or statuses


def test_payment_is_complete_once_after_a_crash_and_a_second_try(couple: Couple) -> None:
    """The payer dies while the payee holds its payment; trying again pays once."""
    invoice = couple.invoice(5000, "hold")
    before = couple.payer.balance_msat()
    paying = threading.Thread(target=attempt, args=(couple.payer, invoice["bolt11"]))
    paying.start()
    until(lambda: bool(couple.payer.rpc.listpays(invoice["bolt11"])["pays"]))
    couple.payer.kill()
    paying.join()
    couple.payer.start()
    assert couple.payer.rpc.xpay(invoice["bolt11"])["amount_msat"] == 5000
    assert couple.payer.balance_msat() == before - 5000
    statuses = [row["status"] for row in pays(couple.payer, invoice["payment_hash"])]
    assert statuses == ["failed", "complete"]


def test_payments_at_once_are_all_made_or_refused(couple: Couple) -> None:
    """Thirty callers, five of whom pay the same invoice: nothing is lost, made up or paid twice."""
    before = couple.payer.balance_msat()
    shared = couple.invoice(1000)["bolt11"]
    texts = [couple.invoice(1000)["bolt11"] for _ in range(25)] + [shared] * 5
    with ThreadPoolExecutor(30) as pool:
        outcomes = list(pool.map(lambda text: attempt(couple.payer, text), texts))
    paid = [outcome for outcome in outcomes if "payment_preimage" in outcome]
    assert len(paid) == 26
    assert {outcome.get("code") for outcome in outcomes if outcome not in paid} <= {-3, 219}
    assert couple.payer.balance_msat() == before - 26_000
    assert total_msat(couple.payer, couple.payee) == CAPACITY_MSAT


# Ways over a third node


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node, Node]]:
    """left - middle - right, with a flat fee for forwarding."""
    with LoopbackDevnet(tmp_path_factory.mktemp("trio"), fee_msat=FEE_MSAT) as net:
        left, middle, right = (net.node(name) for name in ("left", "middle", "right"))
        net.connect(left, middle, 1_000_000)
        net.connect(middle, right, 1_000_000)
        yield left, middle, right


def test_node_between_earns_its_fee(trio: tuple[Node, Node, Node]) -> None:
    """Over one node between the payer pays amount and fee; the fee stays with that node."""
    left, middle, right = trio
    before = [node.balance_msat() for node in trio]
    paid = left.rpc.xpay(right.rpc.invoice(1000, "far", "d")["bolt11"])
    assert (paid["amount_msat"], paid["amount_sent_msat"]) == (1000, 1000 + FEE_MSAT)
    after = [node.balance_msat() for node in (left, middle, right)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [-1000 - FEE_MSAT, FEE_MSAT, 1000]


def test_hook_of_a_node_between_sees_the_forward(trio: tuple[Node, Node, Node]) -> None:
    """Where to, with how much, and nothing of what only the payee may know."""
    left, middle, right = trio
    middle.rpc.plugin_start(str(ECHO))
    invoice = right.rpc.invoice(1000, "passing", "d")
    left.rpc.xpay(invoice["bolt11"])
    (passed,) = middle.rpc.call("echo-seen")["htlcs"]
    assert passed["forward_to"]
    assert passed["htlc"]["amount_msat"] == 1000 + FEE_MSAT
    assert "payment_secret" not in passed["onion"]
    assert invoice["payment_secret"] not in passed["onion"]["payload"]
    middle.rpc.plugin_stop(str(ECHO))


def test_neighbours_pay_no_fee(trio: tuple[Node, Node, Node]) -> None:
    """A direct channel costs nothing, so a fee cap of 0 suffices."""
    left, middle, _ = trio
    paid = left.rpc.xpay(middle.rpc.invoice(1000, "near", "d")["bolt11"], maxfee=0)
    assert paid["amount_sent_msat"] == 1000


def test_fee_above_the_cap_is_refused(trio: tuple[Node, Node, Node]) -> None:
    """A cap below the fee is error 206 and nothing is written."""
    left, _, right = trio
    invoice = right.rpc.invoice(1000, "capped", "d")
    assert refusal(left.rpc.xpay, invoice["bolt11"], maxfee=FEE_MSAT - 1)["code"] == 206
    assert pays(left, invoice["payment_hash"]) == []
    assert left.rpc.xpay(invoice["bolt11"], maxfee=FEE_MSAT)["amount_sent_msat"] == 1000 + FEE_MSAT


def test_one_invoice_of_two_payers_is_paid_once(trio: tuple[Node, Node, Node]) -> None:
    """Who comes second is told 203, as by a node that does not know the invoice any more."""
    left, middle, right = trio
    invoice = right.rpc.invoice(1000, "wanted", "d")["bolt11"]
    middle.rpc.xpay(invoice)
    assert refusal(left.rpc.xpay, invoice)["code"] == 203


def test_unknown_payee_is_no_route(trio: tuple[Node, Node, Node], couple: Couple) -> None:
    """A payee of another network is error 205."""
    assert refusal(trio[0].rpc.xpay, couple.invoice()["bolt11"])["code"] == 205


# What lightningd would not survive


@pytest.mark.parametrize("size", [0, 1, 65536])
def test_message_sizes_that_crash_lightningd_are_refused(couple: Couple, size: int) -> None:
    """Below the type's two bytes and above the wire's 65535 the stand-in says what would happen."""
    error = refusal(couple.payer.rpc.sendcustommsg, couple.payee.node_id, "80" * size)
    assert error["code"] == -32602
    assert "would crash" in error["message"]


def test_largest_message_arrives(couple: Couple) -> None:
    """65535 bytes, type included, come through whole."""
    message = "8007" + "ab" * 65533
    couple.payer.rpc.sendcustommsg(couple.payee.node_id, message)
    until(lambda: [couple.payer.node_id, message] in couple.payee.rpc.call("echo-seen")["hooked"])


def test_nonsense_from_a_hook_kills_the_node(tmp_path: Path) -> None:
    """lightningd dies of an answer it does not know, and so does the stand-in, saying why."""
    with open_couple("loopback", tmp_path) as couple:
        invoice = couple.invoice(1000, "nonsense")
        assert refusal(couple.payer.rpc.xpay, invoice["bolt11"])["code"] == 209
        until(lambda: "Invalid invoice_payment hook result" in couple.payee.log_path.read_text())
        couple.payee.restart()
        assert total_msat(couple.payer, couple.payee) == CAPACITY_MSAT


def test_what_the_stand_in_has_not_is_refused(couple: Couple) -> None:
    """A parameter that lightningd has and the stand-in has not is an error, not passed over."""
    invoice = couple.invoice()
    assert refusal(couple.payer.rpc.xpay, invoice["bolt11"], partial_msat=1)["code"] == -32602
    assert refusal(couple.payee.rpc.listinvoices, index="updated", start=1)["code"] == -32602


# Starting


def test_static_plugin_shows_its_feature_bit_to_others(tmp_path: Path) -> None:
    """A feature bit of a plugin at the start is in getinfo and, for others, in listnodes."""
    with open_devnet("loopback", tmp_path) as net:
        seller, buyer = net.node("seller", plugin=BEACON), net.node("buyer")
        (row,) = buyer.rpc.listnodes(seller.node_id)["nodes"]
        assert int(row["features"], 16) >> 303 & 1
        assert row["features"] == seller.rpc.getinfo()["our_features"]["node"]
        assert refusal(buyer.rpc.plugin_start, str(BEACON))["code"] == -3
        assert refusal(seller.rpc.plugin_stop, str(BEACON))["code"] == -32602
        assert int(buyer.rpc.getinfo()["our_features"]["node"], 16) >> 303 & 1 == 0


@pytest.mark.parametrize("options", [{"no-such-option": 1}, {"second-number": "many"}])
def test_wrong_option_stops_the_start_with_its_reason(tmp_path: Path, options: dict[str, str | int]) -> None:
    """An option that no plugin has, or a value of the wrong type, is named in the error."""
    with open_devnet("loopback", tmp_path) as net, pytest.raises(NodeError, match=next(iter(options))):
        net.node("wrong", plugin=SECOND, options=options)


def test_plugin_that_disables_itself_leaves_a_node(tmp_path: Path) -> None:
    """The node runs without it, and the log has the plugin's reason."""
    with open_devnet("loopback", tmp_path) as net:
        node = net.node("alone", plugin=SECOND, options={"second-refusal": "out of office"})
        assert node.rpc.plugin_list()["plugins"] == []
        assert "out of office" in node.log_path.read_text()


def test_events_that_never_come_are_named(tmp_path: Path) -> None:
    """A plugin that waits for what the stand-in does not have is told so in the log."""
    with open_devnet("loopback", tmp_path) as net:
        assert "waits for block_added" in net.node("patient", plugin=SECOND).log_path.read_text()


def test_missing_plugin_stops_the_start(tmp_path: Path) -> None:
    """A plugin file that is not there is an error, not a node without its plugin."""
    with open_devnet("loopback", tmp_path) as net, pytest.raises(NodeError, match="not executable"):
        net.node("wrong", plugin=tmp_path / "absent.py")


def test_start_says_loudly_what_it_is(couple: Couple) -> None:
    """The log begins with the warning that no bitcoin moves."""
    assert "LOOPBACK: no bitcoin moves" in couple.payer.log_path.read_text().splitlines()[0]


def test_directory_may_be_longer_than_a_socket_path(tmp_path: Path) -> None:
    """Sockets are reached by short names, so a deep directory does no harm."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    with open_devnet("loopback", deep) as net:
        left, right = net.node("left"), net.node("right")
        net.connect(left, right, 1_000_000)
        left.rpc.xpay(right.rpc.invoice(1000, "deep", "d")["bolt11"])
        assert right.balance_msat() == 1000


def test_plugin_finds_this_interpreter() -> None:
    """`env python3` of a plugin's first line is the Python that has the package."""
    assert environment()["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_daemon_that_dies_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    """The error carries what the process wrote before it ended."""
    daemon = Daemon("short", ["/bin/sh", "-c", "echo no luck today; exit 3"], tmp_path / "console")
    daemon.spawn()
    with pytest.raises(NodeError, match="no luck today"):
        daemon.await_ready(lambda: False)
    daemon.end()
