"""Both kinds of devnet answer alike; what holds on real lightningd holds on the stand-in."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from devnets import CAPACITY_MSAT, ECHO, SECOND, Couple, open_couple, pays, refusal, until

STRANGER = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
MAINNET = (
    "lnbc20u1p3y0x3hpp5743k2g0fsqqxj7n8qzuhns5gmkk4djeejk3wkp64ppevgekvc0jsdqcve5kzar2v9nr5gpqd4hkuetesp5ez2g29"
    "7jduwc20t6lmqlsg3man0vf2jfd8ar9fh8fhn2g8yttfkqxqy9gcqcqzys9qrsgqrzjqtx3k77yrrav9hye7zar2rtqlfkytl094dsp0ms5"
    "majzth6gt7ca6uhdkxl983uywgqqqqlgqqqvx5qqjqrzjqd98kxkpyw0l9tyy8r8q57k7zpy9zjmh6sez752wj6gcumqnj3yxzhdsmg6qq5"
    "6utgqqqqqqqqqqqeqqjq7jd56882gtxhrjm03c93aacyfy306m4fq0tskf83c0nmet8zc2lxyyg3saz8x6vwcp26xnrlagf9semau3qm2gl"
    "ysp7sv95693fphvsp54l567"
)


@pytest.fixture(scope="module")
def couple(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Couple]:
    """One network for all tests of a kind: `kind` skips what this machine cannot run."""
    with open_couple(kind, tmp_path_factory.mktemp(kind)) as couple:
        yield couple


# Paying


def test_payment_moves_exactly_the_amount(couple: Couple) -> None:
    """What the payer loses the payee has, to the millisatoshi, and the preimage proves it."""
    before = couple.payer.balance_msat(), couple.payee.balance_msat()
    invoice = couple.invoice(12_345)
    paid = couple.payer.rpc.call("xpay", {"invstring": invoice["bolt11"], "label": "mine", "maxfee": 0})
    preimage = bytes.fromhex(paid["payment_preimage"])
    assert hashlib.sha256(preimage).hexdigest() == invoice["payment_hash"]
    assert (paid["amount_msat"], paid["amount_sent_msat"]) == (12_345, 12_345)
    assert (paid["failed_parts"], paid["successful_parts"]) == (0, 1)
    until(lambda: couple.payer.balance_msat() == before[0] - 12_345)
    until(lambda: couple.payee.balance_msat() == before[1] + 12_345)


def test_successful_payment_is_listed_with_its_proof(couple: Couple) -> None:
    """listpays has one complete row with preimage, amounts, label and destination."""
    invoice = couple.invoice(2000)
    paid = couple.payer.rpc.call("xpay", {"invstring": invoice["bolt11"], "label": "listed"})
    (row,) = pays(couple.payer, invoice["payment_hash"])
    expected = {
        "status": "complete",
        "preimage": paid["payment_preimage"],
        "amount_msat": 2000,
        "amount_sent_msat": 2000,
        "label": "listed",
        "destination": couple.payee.node_id,
        "bolt11": invoice["bolt11"],
        "payment_hash": invoice["payment_hash"],
    }
    assert {name: row[name] for name in expected} == expected
    assert {"created_at", "completed_at", "created_index"} <= row.keys()


def test_paid_invoice_shows_what_came_in(couple: Couple) -> None:
    """listinvoices of the payee has status, amount received, time and preimage."""
    invoice = couple.invoice("any")
    paid = couple.payer.rpc.xpay(invoice["bolt11"], amount_msat=777)
    (row,) = couple.payee.rpc.listinvoices(payment_hash=invoice["payment_hash"])["invoices"]
    assert (row["status"], row["amount_received_msat"]) == ("paid", 777)
    assert row["payment_preimage"] == paid["payment_preimage"]
    assert "amount_msat" not in row
    assert abs(row["paid_at"] - time.time()) < 60
    assert row["pay_index"] >= 1


def test_paying_twice_is_refused(couple: Couple) -> None:
    """The second payment of an invoice is error 219 and costs nothing."""
    invoice = couple.invoice()
    couple.payer.rpc.xpay(invoice["bolt11"])
    assert refusal(couple.payer.rpc.xpay, invoice["bolt11"])["code"] == 219
    assert len(pays(couple.payer, invoice["payment_hash"])) == 1


def test_expired_invoice_is_not_tried(couple: Couple) -> None:
    """An expired invoice is error 207, and no payment of it is written."""
    invoice = couple.invoice(expiry=1)
    until(lambda: bool(couple.payee.rpc.listinvoices(invoice["label"])["invoices"][0]["status"] == "expired"))
    time.sleep(1)
    assert refusal(couple.payer.rpc.xpay, invoice["bolt11"])["code"] == 207
    assert pays(couple.payer, invoice["payment_hash"]) == []
    waited = refusal(couple.payee.rpc.waitinvoice, invoice["label"])
    assert (waited["code"], waited["data"]["status"]) == (903, "expired")


def test_amount_is_given_exactly_where_the_invoice_has_none(couple: Couple) -> None:
    """No amount for an open invoice, or one for a fixed invoice: -32602."""
    open_invoice, fixed = couple.invoice("any"), couple.invoice(1000)
    missing = refusal(couple.payer.rpc.xpay, open_invoice["bolt11"])
    given = refusal(couple.payer.rpc.xpay, fixed["bolt11"], amount_msat=1000)
    assert (missing["code"], missing["message"]) == (-32602, "amount_msat required")
    assert (given["code"], given["message"]) == (-32602, "amount_msat unnecessary")


def test_more_than_the_channel_holds_is_no_route(couple: Couple) -> None:
    """Too little to spend is error 205, and no payment is written."""
    invoice = couple.invoice(5_000_000_000)
    assert refusal(couple.payer.rpc.xpay, invoice["bolt11"])["code"] == 205
    assert pays(couple.payer, invoice["payment_hash"]) == []


def test_unknown_invoice_is_refused_by_its_payee(couple: Couple) -> None:
    """The payee has no such invoice: error 203, a failed row without amount, money unmoved."""
    before = couple.payer.balance_msat()
    invoice = couple.invoice(3000)
    couple.payee.rpc.delinvoice(invoice["label"], "unpaid")
    assert refusal(couple.payer.rpc.xpay, invoice["bolt11"])["code"] == 203
    (row,) = pays(couple.payer, invoice["payment_hash"])
    assert (row["status"], row["amount_sent_msat"]) == ("failed", 0)
    assert not {"preimage", "amount_msat"} & row.keys()
    assert couple.payer.balance_msat() == before


def test_failed_payment_can_be_tried_again(couple: Couple) -> None:
    """A refused payment does not block the next attempt at the same invoice."""
    preimage = hashlib.sha256(b"again").hexdigest()
    first = couple.invoice(1000, preimage=preimage)
    couple.payee.rpc.delinvoice(first["label"], "unpaid")
    refusal(couple.payer.rpc.xpay, first["bolt11"])
    refusal(couple.payer.rpc.xpay, first["bolt11"])
    assert [row["status"] for row in pays(couple.payer, first["payment_hash"])] == ["failed", "failed"]


def test_stranger_cannot_be_paid(couple: Couple) -> None:
    """An invoice of another network, or one whose text is damaged, is -32602."""
    text = couple.invoice()["bolt11"]
    damaged = text[:-1] + ("q" if text[-1] != "q" else "p")
    for wrong in (MAINNET, damaged, "hello"):
        assert refusal(couple.payer.rpc.xpay, wrong)["code"] == -32602


def test_payment_under_way_is_pending_and_not_paid_twice(couple: Couple) -> None:
    """While the payee holds it: listpays says pending, a second xpay is refused, others go through."""
    held, other = couple.invoice(4000, "hold"), couple.invoice(1000)
    done: list[dict[str, Any]] = []
    paying = threading.Thread(target=lambda: done.append(couple.payer.rpc.xpay(held["bolt11"])))
    paying.start()
    until(lambda: bool(couple.payer.rpc.listpays(held["bolt11"])["pays"]))
    (row,) = couple.payer.rpc.listpays(held["bolt11"])["pays"]
    assert (row["status"], row["amount_sent_msat"]) == ("pending", 4000)
    assert refusal(couple.payer.rpc.xpay, held["bolt11"])["code"] == -3
    couple.payer.rpc.xpay(other["bolt11"])
    assert not done
    paying.join()
    assert done[0]["amount_msat"] == 4000


# Invoices


def test_labels_and_preimages_are_used_once(couple: Couple) -> None:
    """A label again is error 900, a preimage again is 901."""
    label, preimage = couple.invoice()["label"], hashlib.sha256(b"once").hexdigest()
    again = refusal(couple.payee.rpc.invoice, 1, label, "d")
    couple.invoice(preimage=preimage)
    assert again["code"] == 900
    assert refusal(couple.invoice, preimage=preimage)["code"] == 901


def test_invoice_amounts_are_positive(couple: Couple) -> None:
    """Nothing, less than nothing and text are -32602."""
    for wrong in (0, -1, "much"):
        assert refusal(couple.invoice, wrong)["code"] == -32602


def test_decode_shows_what_was_signed(couple: Couple) -> None:
    """decode on the other node has the payee, recovered from the signature, and every field."""
    made = couple.invoice(1234, expiry=500)
    for text in (made["bolt11"], "lightning:" + made["bolt11"].upper()):
        shown = couple.payer.rpc.decode(text)
        expected = {
            "type": "bolt11 invoice",
            "valid": True,
            "currency": "bcrt",
            "payee": couple.payee.node_id,
            "amount_msat": 1234,
            "description": "a test",
            "expiry": 500,
            "payment_hash": made["payment_hash"],
            "payment_secret": made["payment_secret"],
        }
        assert {name: shown.get(name) for name in expected} == expected
        assert shown["created_at"] + 500 == made["expires_at"]


def test_decode_reads_other_networks_but_not_nonsense(couple: Couple) -> None:
    """A mainnet invoice is decoded as such; what is no invoice is -32602."""
    assert couple.payer.rpc.decode(MAINNET)["currency"] == "bc"
    for wrong in ("hello", MAINNET[:-1] + "q"):
        assert refusal(couple.payer.rpc.decode, wrong)["code"] == -32602


def test_waitinvoice_returns_when_paid(couple: Couple) -> None:
    """waitinvoice, begun before the payment, returns with it; an unknown label is -1."""
    invoice = couple.invoice(900)
    got: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: got.append(couple.payee.rpc.waitinvoice(invoice["label"])))
    waiting.start()
    time.sleep(0.2)
    assert not got
    couple.payer.rpc.xpay(invoice["bolt11"])
    waiting.join(20)
    assert (got[0]["status"], got[0]["amount_received_msat"]) == ("paid", 900)
    assert refusal(couple.payee.rpc.waitinvoice, "no such label")["code"] == -1


def test_delinvoice_asks_for_the_right_status(couple: Couple) -> None:
    """The wrong status is 906, an unknown label 905."""
    label = couple.invoice()["label"]
    assert refusal(couple.payee.rpc.delinvoice, label, "paid")["code"] == 906
    assert couple.payee.rpc.delinvoice(label, "unpaid")["label"] == label
    assert refusal(couple.payee.rpc.delinvoice, label, "unpaid")["code"] == 905


# Peers


def test_unknown_peers_are_named_so(couple: Couple) -> None:
    """No address 400; a message to one who is no peer -32600; a ping to it -1."""
    rpc = couple.payer.rpc
    assert refusal(rpc.connect, STRANGER)["code"] == 400
    unsent = refusal(rpc.sendcustommsg, STRANGER, "8001aa")
    assert (unsent["code"], unsent["message"]) == (-32600, f"No such peer: {STRANGER}")
    assert refusal(rpc.ping, STRANGER)["code"] == -1


def test_custom_message_reaches_hook_and_subscription(couple: Couple) -> None:
    """Each message arrives once at the peer's hook and once at its subscription, in order.

    Real nodes see the types of their own peer storage there too (0007).
    """
    sent = [f"80{number:02x}" + "ab" * 20 for number in (1, 3, 5)]
    for message in sent:
        couple.payer.rpc.sendcustommsg(couple.payee.node_id, message)

    def seen(way: str) -> list[list[str]]:
        found = couple.payee.rpc.call("echo-seen")[way]
        return [[peer, message] for peer, message in found if message.startswith("80")]

    until(lambda: len(seen("hooked")) >= 3)
    assert seen("hooked") == seen("told") == [[couple.payer.node_id, message] for message in sent]


def test_internal_message_types_are_refused(couple: Couple) -> None:
    """A type that lightningd manages itself is -32600."""
    assert refusal(couple.payer.rpc.sendcustommsg, couple.payee.node_id, "0010aa")["code"] == -32600


def test_channel_and_peer_are_listed(couple: Couple) -> None:
    """Both ends list the same usable channel and each other as connected."""
    (mine,) = couple.payer.rpc.listpeerchannels(couple.payee.node_id)["channels"]
    (theirs,) = couple.payee.rpc.listpeerchannels(couple.payer.node_id)["channels"]
    assert (mine["state"], mine["peer_id"]) == ("CHANNELD_NORMAL", couple.payee.node_id)
    assert mine["channel_id"] == theirs["channel_id"]
    assert mine["to_us_msat"] + theirs["to_us_msat"] == mine["total_msat"]
    assert 0 < mine["spendable_msat"] <= mine["to_us_msat"]
    (peer,) = couple.payer.rpc.listpeers(couple.payee.node_id)["peers"]
    assert (peer["connected"], peer["num_channels"]) == (True, 1)


def test_nodes_know_each_other(couple: Couple) -> None:
    """listnodes has the other node with its alias and features."""
    until(lambda: bool(couple.payer.rpc.listnodes(couple.payee.node_id)["nodes"]))
    (node,) = couple.payer.rpc.listnodes(couple.payee.node_id)["nodes"]
    assert node["alias"] == "graz"
    assert int(node["features"], 16) > 0


# The node itself


def test_stand_in_says_that_it_is_one(couple: Couple) -> None:
    """Only the loopback warns that no bitcoin moves; both name the network regtest."""
    info = couple.payer.rpc.getinfo()
    assert (info["alias"], info["network"]) == ("vienna", "regtest")
    assert ("warning_loopback" in info) == (couple.kind == "loopback")
    assert couple.net.network == couple.kind


def test_wrong_calls_are_refused_alike(couple: Couple) -> None:
    """Unknown command -32601; unknown, missing or surplus parameters -32602."""
    rpc = couple.payer.rpc
    assert refusal(rpc.call, "nope")["code"] == -32601
    assert refusal(rpc.call, "getinfo", {"x": 1})["code"] == -32602
    missing = refusal(rpc.call, "invoice", {"label": "x"})
    assert missing == {"code": -32602, "message": "missing required parameter: amount_msat"}
    surplus = refusal(rpc.call, "getinfo", [1])
    assert surplus == {"code": -32602, "message": "too many parameters: got 1, expected 0"}


def test_signed_message_is_verified_by_the_other_node(couple: Couple) -> None:
    """The signature is the signer's for this message, and for no other."""
    signed = couple.payer.rpc.signmessage("hear ye")["zbase"]
    checked = couple.payee.rpc.checkmessage("hear ye", signed, couple.payer.node_id)
    assert checked == {"pubkey": couple.payer.node_id, "verified": True}
    forged = couple.payee.rpc.checkmessage("hear me", signed, couple.payer.node_id)
    assert forged["verified"] is False
    unknown = refusal(couple.payee.rpc.checkmessage, "hear me", signed)
    assert unknown["code"] == 1301


def test_secret_is_the_nodes_own(couple: Couple) -> None:
    """makesecret gives the same bytes for text and hex, and others on another node."""
    secret = couple.payer.rpc.call("makesecret", {"string": "root"})["secret"]
    assert couple.payer.rpc.call("makesecret", {"hex": b"root".hex()})["secret"] == secret
    assert couple.payee.rpc.call("makesecret", {"string": "root"})["secret"] != secret
    assert refusal(couple.payer.rpc.call, "makesecret", {})["code"] == -32602


# Plugins


def test_plugin_method_is_called_by_name_and_by_position(couple: Couple) -> None:
    """A plugin's method takes parameters both ways and its answer comes through unchanged."""
    assert couple.payer.rpc.call("echo-hello", {"name": "you"}) == {"hello": "you"}
    assert couple.payer.rpc.call("echo-hello", ["you"]) == {"hello": "you"}


def test_plugin_options_come_typed(couple: Couple) -> None:
    """Options given at the start and defaults arrive as text, int, bool; an unset flag is absent."""
    expected = {
        "echo-text": "plain",
        "echo-number": 42,
        "echo-loud": True,
        "echo-live": "before",
        "echo-flag": None,
    }
    assert couple.payer.rpc.call("echo-options") == expected


def test_plugin_can_call_its_node(couple: Couple) -> None:
    """A plugin's own RPC call during a method is answered."""
    assert couple.payer.rpc.call("echo-id") == {"id": couple.payer.node_id}


def test_plugin_errors_keep_their_code(couple: Couple) -> None:
    """The code and message of a plugin's exception reach the caller."""
    error = refusal(couple.payer.rpc.call, "echo-refuse")
    assert (error["code"], error["message"]) == (4242, "no, thank you")


def test_help_shows_a_plugins_usage(couple: Couple) -> None:
    """help of a plugin's method has its parameters; an unknown command is -32601."""
    (shown,) = couple.payer.rpc.help("echo-hello")["help"]
    assert shown["command"].startswith("echo-hello [name]")
    assert any(row["command"].startswith("echo-id") for row in couple.payer.rpc.help()["help"])
    assert refusal(couple.payer.rpc.help, "nope")["code"] == -32601


def test_slow_method_blocks_nobody_and_reports(couple: Couple) -> None:
    """While one call waits others are answered; its messages reach the caller who asked for them."""
    told: list[str] = []
    answers: list[Any] = []

    def wait() -> None:
        rpc = couple.payer.rpc
        with rpc.notify(lambda message, **_more: told.append(message)):
            answers.append(rpc.call("echo-wait", {"seconds": 1.0}))

    waiting = threading.Thread(target=wait)
    waiting.start()
    begun = time.monotonic()
    for _ in range(5):
        couple.payer.rpc.getinfo()
        couple.payer.rpc.call("echo-hello")
    assert time.monotonic() - begun < 0.9
    assert not answers
    waiting.join()
    assert answers == [{"waited": 1.0}]
    assert told == ["half way"]


def test_messages_come_only_to_those_who_asked(couple: Couple) -> None:
    """A caller that did not enable notifications gets its result and nothing before."""
    assert couple.payer.rpc.call("echo-wait", {"seconds": 0.1}) == {"waited": 0.1}


def test_hook_can_reject_a_payment(couple: Couple) -> None:
    """A plugin's reject is error 203 for the payer; the invoice stays unpaid, the money stays."""
    before = couple.payer.balance_msat()
    invoice = couple.invoice(1000, "reject")
    assert refusal(couple.payer.rpc.xpay, invoice["bolt11"])["code"] == 203
    (row,) = couple.payee.rpc.listinvoices(invoice["label"])["invoices"]
    assert row["status"] == "unpaid"
    assert couple.payer.balance_msat() == before


def test_hook_sees_each_htlc_before_its_invoice_is_paid(couple: Couple) -> None:
    """With amounts and hash, the onion's records as the payer wrote them, and lightningd's secret for a preimage."""
    preimage = os.urandom(32)
    invoice = couple.invoice(5000, preimage=preimage.hex())
    couple.payer.rpc.xpay(invoice["bolt11"])
    arrived = couple.payee.rpc.call("echo-seen")["htlcs"][-1]
    onion, htlc = arrived["onion"], arrived["htlc"]
    secret = hashlib.sha256(bytes([preimage[0] ^ 1]) + preimage[1:]).hexdigest()
    assert invoice["payment_secret"] == onion["payment_secret"] == secret
    assert (htlc["payment_hash"], htlc["amount_msat"]) == (invoice["payment_hash"], 5000)
    assert (onion["total_msat"], onion["forward_msat"], arrived["forward_to"]) == (5000, 5000, None)
    records = bytes.fromhex(onion["payload"])
    assert records[0] == len(records) - 1
    assert b"\x08\x22" + bytes.fromhex(secret) + b"\x13\x88" in records


def test_node_signs_what_it_is_given(couple: Couple) -> None:
    """With its own key, over whatever signature stood there; damaged text is refused."""
    made = couple.invoice(5000)["bolt11"]
    assert couple.payee.rpc.call("signinvoice", [made])["bolt11"] == made
    theirs = couple.payer.rpc.call("signinvoice", [made])["bolt11"]
    assert couple.payer.rpc.decode(theirs)["payee"] == couple.payer.node_id
    assert refusal(couple.payee.rpc.call, "signinvoice", [made[:-1] + "q"])["code"] == -32602


def test_datastore_keeps_words_by_key(couple: Couple) -> None:
    """An entry once, unless it may be replaced; above it only the way to it is listed."""
    call = couple.payee.rpc.call
    kept = call("datastore", {"key": ["shop", "tea", "green"], "string": "good"})
    assert (kept["key"], kept["string"]) == (["shop", "tea", "green"], "good")
    assert refusal(call, "datastore", {"key": ["shop", "tea", "green"], "string": "bad"})["code"] == 1202
    call("datastore", {"key": ["shop", "tea", "green"], "string": "better", "mode": "create-or-replace"})
    (entry,) = call("listdatastore", {"key": ["shop", "tea", "green"]})["datastore"]
    assert entry["string"] == "better"
    assert call("listdatastore", {"key": ["shop"]})["datastore"] == [{"key": ["shop", "tea"]}]
    assert call("listdatastore", {"key": ["shop", "coffee"]})["datastore"] == []


def test_payment_is_told_once_with_whole_msat(couple: Couple) -> None:
    """The invoice_payment notification has label, preimage and an integer of msat."""
    invoice = couple.invoice(1501)
    paid = couple.payer.rpc.xpay(invoice["bolt11"])

    def told() -> list[dict[str, Any]]:
        seen = couple.payee.rpc.call("echo-seen")["paid"]
        return [one for one in seen if one["label"] == invoice["label"]]

    until(lambda: bool(told()))
    assert told() == [{"label": invoice["label"], "preimage": paid["payment_preimage"], "msat": 1501}]


def test_plugin_is_started_listed_and_stopped(couple: Couple) -> None:
    """`plugin start` with options adds its methods, `plugin stop` takes them away."""
    rpc = couple.payer.rpc
    started = rpc.call("plugin", {"subcommand": "start", "plugin": str(SECOND), "second-number": 9})
    mine = {"name": str(SECOND), "active": True, "dynamic": True}
    assert mine in started["plugins"]
    assert mine in rpc.plugin_list()["plugins"]
    expected = {"second-text": "plain", "second-number": 9, "second-refusal": ""}
    assert rpc.call("second-options") == expected
    stopped = rpc.plugin_stop(str(SECOND))
    assert stopped == {"command": "stop", "result": "Successfully stopped second.py."}
    assert refusal(rpc.call, "second-options")["code"] == -32601
    assert mine not in rpc.plugin_list()["plugins"]


def test_plugin_that_cannot_start_says_why(couple: Couple) -> None:
    """No file -32602; an unknown option, a wrong value or a plugin's own refusal -3."""
    rpc = couple.payer.rpc

    def start(**options: Any) -> dict[str, Any]:
        return refusal(rpc.call, "plugin", {"subcommand": "start", "plugin": str(SECOND), **options})

    assert refusal(rpc.plugin_start, "/no/such/file")["code"] == -32602
    assert start(**{"second-nothing": 1})["code"] == -3
    assert start(**{"second-number": "many"})["code"] == -3
    refused = start(**{"second-refusal": "not today"})
    assert refused["code"] == -3
    assert "not today" in refused["message"]
    assert refusal(rpc.plugin_stop, "second.py")["code"] == -32602
    assert refusal(rpc.call, "plugin", ["dance"])["code"] == -32602


def test_dynamic_option_changes_while_running(couple: Couple) -> None:
    """setconfig reaches the plugin and listconfigs; an option that is not dynamic is -32602."""
    rpc = couple.payee.rpc
    rpc.call("setconfig", {"config": "echo-live", "val": "after", "transient": True})
    assert rpc.call("echo-options")["echo-live"] == "after"
    shown = rpc.listconfigs("echo-live")["configs"]["echo-live"]
    assert (shown["value_str"], shown["dynamic"], shown["plugin"]) == ("after", True, str(ECHO))
    assert rpc.listconfigs("echo-number")["configs"]["echo-number"]["value_int"] == 7
    fixed = refusal(rpc.call, "setconfig", {"config": "echo-text", "val": "x"})
    assert fixed["code"] == -32602
    assert refusal(rpc.listconfigs, "nope")["code"] == -32602


def test_plugin_that_dies_leaves_the_node_alive(couple: Couple) -> None:
    """Its caller gets -4, its methods are gone (-32601), and it can be started again."""
    rpc = couple.payee.rpc
    assert refusal(rpc.call, "echo-die")["code"] == -4
    until(lambda: refusal(rpc.call, "echo-hello")["code"] == -32601)
    rpc.plugin_start(str(ECHO))
    assert rpc.call("echo-hello") == {"hello": "world"}


# Crashes


def test_payee_that_is_down_cannot_be_paid(couple: Couple) -> None:
    """A dead payee is error 205 and no payment is written; after its restart the invoice is paid."""
    invoice = couple.invoice(1000)
    before = couple.payer.balance_msat()
    couple.payee.kill()
    until(lambda: not couple.payer.rpc.listpeers()["peers"][0]["connected"])
    assert refusal(couple.payer.rpc.xpay, invoice["bolt11"])["code"] == 205
    assert pays(couple.payer, invoice["payment_hash"]) == []
    couple.payee.start()
    until(lambda: couple.payer.rpc.listpeers()["peers"][0]["connected"])
    couple.payer.rpc.xpay(invoice["bolt11"])
    until(lambda: couple.payer.balance_msat() == before - 1000)


def test_payer_killed_keeps_its_books(couple: Couple) -> None:
    """kill -9 and a start: balances, payments, secret and identity are what they were."""
    invoice = couple.invoice(1000)
    couple.payer.rpc.xpay(invoice["bolt11"])
    secret = couple.payer.rpc.call("makesecret", {"string": "root"})
    couple.payer.kill()
    couple.payer.start()
    assert couple.payer.rpc.getinfo()["id"] == couple.payer.node_id
    assert couple.payer.rpc.call("makesecret", {"string": "root"}) == secret
    assert refusal(couple.payer.rpc.xpay, invoice["bolt11"])["code"] in (205, 219)
    until(lambda: couple.payer.balance_msat() + couple.payee.balance_msat() == CAPACITY_MSAT)
    (row,) = pays(couple.payer, invoice["payment_hash"])
    assert row["status"] == "complete"
