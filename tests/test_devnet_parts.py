"""The parts of the stand-in that need no process: frames, parameters, invoices, keys, books, routes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lyceum.devnet import invoices, keys
from lyceum.devnet.bitcoind import btc
from lyceum.devnet.jsonrpc import Frames, Params, RpcFailure, Usage, as_count, as_flag, as_hash, as_msat
from lyceum.devnet.loopback_channels import as_sat
from lyceum.devnet.loopback_ledger import (
    AlreadyPaid,
    Hop,
    InProgress,
    InvoiceRow,
    LabelTaken,
    Ledger,
    PayRow,
    PreimageTaken,
    Short,
    Side,
)
from lyceum.devnet.loopback_routes import find_route
from lyceum.devnet.manifest import BadManifest, Manifest

# Frames


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("between", ["", "\n", "\n\n", "  \n\n "])
def test_frames_are_found_however_the_bytes_are_cut(size: int, between: str) -> None:
    """Objects come out whole and in order, over any framing, split anywhere, letters included."""
    messages: list[dict[str, Any]] = [{"a": 1}, {"b": {"c": "}{ é€𝄞 \n\n"}}, {"d": []}]
    stream = between.join(json.dumps(message, ensure_ascii=False) for message in messages).encode()
    frames, found = Frames(), []
    for at in range(0, len(stream), size):
        found += frames.feed(stream[at : at + size])
    assert found == messages


def test_what_is_no_object_is_refused() -> None:
    """A stream that begins with anything but an object can never become one."""
    with pytest.raises(ValueError, match="Expected"):
        Frames().feed(b"[1]\n\n")


# Parameters


def test_usage_binds_by_name_and_position() -> None:
    """Both ways of calling give the same parameters; null counts as absent."""
    usage = Usage("first [second]")
    assert usage.bind([1, 2]).raw() == usage.bind({"second": 2, "first": 1}).raw()
    assert "second" not in usage.bind({"first": 1, "second": None})


@pytest.mark.parametrize("params", [[], {}, {"first": None}, [1, 2, 3], {"first": 1, "third": 3}, "text"])
def test_usage_refuses_what_does_not_fit(params: Any) -> None:
    """Missing, unknown, surplus and shapeless parameters are -32602."""
    with pytest.raises(RpcFailure) as caught:
        Usage("first [second]").bind(params)
    assert caught.value.code == -32602


@pytest.mark.parametrize(
    ("given", "msat"),
    [(5, 5), ("5", 5), ("5msat", 5), ("5sat", 5000), ("0.00000005btc", 5000), ("0.001sat", 1)],
)
def test_msat_are_read_in_every_unit(given: Any, msat: int) -> None:
    """A bare number is msat; a unit is honoured; the value is a whole number of msat."""
    assert as_msat(given) == msat


@pytest.mark.parametrize("given", [-1, 0.5, "0.5msat", "x", "", True, None, "NaN", "Infinity", "1e99999999", 10**30])
def test_wrong_amounts_are_refused(given: Any) -> None:
    """Negative, fractional and shapeless amounts are no msat."""
    with pytest.raises(ValueError, match="millisatoshi"):
        as_msat(given)


def test_channel_amounts_are_satoshis() -> None:
    """fundchannel's bare number is satoshis, as in lightningd, and no fraction of one."""
    assert [as_sat(7), as_sat("7"), as_sat("7000msat"), as_sat("7sat")] == [7, 7, 7, 7]
    for wrong in (0, "1msat", "all"):
        with pytest.raises(ValueError, match="amount"):
            as_sat(wrong)


def test_bad_token_is_named() -> None:
    """The failure names the parameter, says what it should be and quotes what it was."""
    with pytest.raises(RpcFailure, match=r'n: should be an unsigned 64 bit integer: invalid token \'"x"\''):
        Params({"n": "x"}).need("n", as_count)
    with pytest.raises(RpcFailure, match="should be 'true' or 'false'"):
        Params({"f": 1}).need("f", as_flag)
    with pytest.raises(RpcFailure, match="32 byte hex"):
        Params({"h": "ab"}).need("h", as_hash)


def test_bitcoin_amounts_are_exact_text() -> None:
    """bitcoind is told eight decimals without a float on the way."""
    assert [btc(1), btc(100_000_000), btc(123_456_789)] == ["0.00000001", "1.00000000", "1.23456789"]


# Invoices and keys, against what a real lightningd v26.06.6 wrote

REAL_INVOICE = (
    "lnbcrt10n1p4s8a67sp56pd7w7d2g7zjr3tqauyq2k30jccp0wgl8skdrgjx7p32p5ql0x4qpp5z29dl6r8u9wwxmy39ke2cej3g25mvq78n"
    "cleadye7t4g7e5wlx5sdq8v3jhxccxqyjw5qcqp29qxpqysgqe46ghrhweqfkcayaem9kqm3rxprl0yavja56n95pdqtlkcz26ewzdhkzgmp"
    "ccnel7uwpujc57855uznpf3lj6e7v5fh0vw7spjla0mcq527ej3"
)
REAL_FIELDS = {
    "currency": "bcrt",
    "created_at": 1795422046,
    "expiry": 604800,
    "payee": "021c41de113385cdf4a138df61b75307bac33c363769087edd0915ba065798489f",
    "amount_msat": 1000,
    "description": "desc",
    "min_final_cltv_expiry": 10,
    "payment_secret": "d05be779aa478521c560ef08055a2f963017b91f3c2cd1a246f062a0d01f79aa",
    "features": "02024100",
    "payment_hash": "128adfe867e15ce36c912db2ac665142a9b603c79e3f9eb499f2ea8f668ef9a9",
    "signature": "3045022100cd748b8eeec8136c749dcecb606e233047f793ac9769a996816817fb604ad65c"
    "022026dec246c38c4f3ff71c1e4b14f1e94e0a614c7f2d67cca26ef63bd00cbfd7ef",
}
REAL_SIGNER = "02c2e7c9a95a40e17e228e3b3e8d18033422d12fb109dd895b50c395c8828010be"
REAL_ZBASE = "ryz8j1shbbm3q6xc9dmhgnbjuzhguk5mo99x7qjkrr5cib1awf3qcq3kjbidru7hjga6y6bzh9edcs4t7i3uiwb9hk4x9hn84t1gkbzm"

KEY = keys.NodeKey(bytes(range(1, 33)))
DRAFT = invoices.Draft(1000, "11" * 32, "22" * 32, "a test", 1_700_000_000, 3600)


def test_real_invoice_is_read_field_by_field() -> None:
    """What `decode` of lightningd showed of its own invoice is what we read in it."""
    assert invoices.read(REAL_INVOICE).fields == REAL_FIELDS


@pytest.mark.parametrize("amount_msat", [1, 10, 1000, 123_456_789, 100_000_000_000, None])
@pytest.mark.parametrize("description", ["", "plain", "ünïcödé €" * 20])
def test_made_invoice_reads_back(amount_msat: int | None, description: str) -> None:
    """What the payee wrote the payer reads, and the signature is the payee's."""
    draft = replace(DRAFT, amount_msat=amount_msat, description=description)
    found = invoices.read(invoices.make(draft, KEY.secret))
    assert (found.amount_msat, found.description) == (amount_msat, description)
    assert (found.payee, found.payment_hash, found.payment_secret) == (KEY.node_id, "11" * 32, "22" * 32)
    assert (found.expires_at, found.currency) == (1_700_003_600, "bcrt")


def test_long_description_goes_by_its_hash() -> None:
    """deschashonly puts the SHA-256 into the invoice instead of the text."""
    draft = replace(DRAFT, description="x" * 2000, hash_description=True)
    found = invoices.read(invoices.make(draft, KEY.secret))
    assert found.description is None
    assert len(found.fields["description_hash"]) == 64


@pytest.mark.parametrize("text", ["", "ln", "hello", "lnbcrt1", REAL_INVOICE[:-1], REAL_INVOICE[:-1] + "q"])
def test_damaged_invoice_is_refused(text: str) -> None:
    """Every damaged text is one error, whichever library below found it out."""
    with pytest.raises(invoices.BadBolt11):
        invoices.read(text)


def test_real_signature_is_recovered() -> None:
    """lightningd's signed message gives its node id here; our own gives ours."""
    assert keys.recover("hi", REAL_ZBASE) == REAL_SIGNER
    assert keys.recover("hi", keys.zbase(*KEY.sign("hi"))) == KEY.node_id
    assert keys.recover("ho", REAL_ZBASE) != REAL_SIGNER


@pytest.mark.parametrize("zbase", ["", "zz", "!", REAL_ZBASE[:-2], "y" * 104])
def test_what_is_no_signature_is_refused(zbase: str) -> None:
    """Wrong letters, lengths and points are a ValueError."""
    with pytest.raises(ValueError, match=r"zbase|substring"):
        keys.recover("hi", zbase)


def test_key_is_kept_and_private(tmp_path: Path) -> None:
    """The key is made once, read back afterwards, and readable by its owner only."""
    path = tmp_path / "key"
    assert keys.NodeKey.load(path) == keys.NodeKey.load(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().hex() not in repr(keys.NodeKey.load(path))


# Manifests

BARE = {"options": [], "rpcmethods": [], "nonnumericids": True}


def option(**fields: Any) -> dict[str, Any]:
    return {"name": "an-option", "type": "string", "description": "d", **fields}


def manifest(**fields: Any) -> Manifest:
    return Manifest.read({"result": {**BARE, **fields}})


@pytest.mark.parametrize(
    ("kind", "default", "given", "value"),
    [
        ("string", "x", [], "x"),
        ("string", None, ["1"], "1"),
        ("int", 7, [], 7),
        ("int", "7", ["-9"], -9),
        ("bool", "true", [], True),
        ("bool", True, ["no"], False),
        ("flag", None, ["true"], True),
        ("flag", False, [], None),
        ("string", None, [], None),
    ],
)
def test_option_values_are_typed(kind: str, default: Any, given: list[str], value: Any) -> None:
    """init carries text, int or bool as the manifest says, and leaves out what has no value."""
    found = manifest(options=[option(type=kind, default=default)]).values({"an-option": given} if given else {})
    assert found == ({} if value is None else {"an-option": value})


def test_multi_option_is_a_list() -> None:
    """An option that may come several times is a list, its default too."""
    found = manifest(options=[option(type="int", multi=True, default=1)])
    assert found.values({}) == {"an-option": [1]}
    assert found.values({"an-option": ["2", "3"]}) == {"an-option": [2, 3]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"options": [option(name="Loud")]},
        {"options": [option(type="float")]},
        {"options": [option(type="int", default="many")]},
        {"options": [option(type="flag", default=True)]},
        {"options": [option(type="flag", multi=True)]},
        {"options": [{"name": "x", "type": "string"}]},
        {"options": None},
        {"rpcmethods": [{"name": "x"}]},
        {"nonnumericids": False},
        {"dynamic": True, "featurebits": {"node": "80"}},
        {"featurebits": {"node": "zz"}},
    ],
)
def test_wrong_manifest_is_refused(wrong: dict[str, Any]) -> None:
    """What lightningd kills a plugin for is refused here."""
    with pytest.raises(BadManifest):
        manifest(**wrong)


def test_plugin_may_disable_itself() -> None:
    """`disable` needs nothing else in the manifest."""
    assert Manifest.read({"result": {"disable": "no module"}}).disabled == "no module"
    with pytest.raises(BadManifest):
        Manifest.read({"error": {"code": 1, "message": "x"}})


# Routes

CHAIN = [
    *(Side(1, "a", "b", 1000, 1000), Side(1, "b", "a", 0, 0)),
    *(Side(2, "b", "c", 500, 500), Side(2, "c", "b", 500, 500)),
    *(Side(3, "c", "d", 1000, 1000), Side(3, "d", "c", 0, 0)),
]


def test_route_adds_the_fee_of_every_node_between() -> None:
    """The payee gets the amount, each node between keeps its fee, and nobody else takes any."""
    route = find_route(CHAIN, {"a": 99, "b": 5, "c": 7, "d": 99}, "a", "d", 100)
    assert route == (Hop(1, "a", "b", 112), Hop(2, "b", "c", 107), Hop(3, "c", "d", 100))
    assert find_route(CHAIN, {"a": 99, "b": 5}, "a", "b", 100) == (Hop(1, "a", "b", 100),)


@pytest.mark.parametrize(("payer", "payee", "msat"), [("a", "d", 501), ("b", "a", 1), ("a", "nobody", 1)])
def test_no_route_where_a_channel_is_too_small(payer: str, payee: str, msat: int) -> None:
    """Every channel of the way must carry the amount in the right direction."""
    assert find_route(CHAIN, {}, payer, payee, msat) is None


def test_paying_oneself_needs_no_channel() -> None:
    """The way to oneself is empty."""
    assert find_route(CHAIN, {}, "a", "a", 10**9) == ()


# Books

INVOICE = InvoiceRow(0, "payee", "label", "hash", "preimage", "secret", "lnbcrt", "d", 100, 2000)
PAY = PayRow(0, "payer", "hash", "lnbcrt", "payee", 100, 100, None, 1000)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """One channel of 1000 msat, all the payer's."""
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.open_channel("payer", "payee", 1000, 0) == 1
    yield ledger
    ledger.close()


def hop(msat: int = 100) -> tuple[Hop, ...]:
    return (Hop(1, "payer", "payee", msat),)


def balances(ledger: Ledger) -> dict[str, tuple[int, int]]:
    return {side.node_id: (side.msat, side.spendable_msat) for side in ledger.sides()}


def test_money_is_set_aside_then_moved(ledger: Ledger) -> None:
    """Pending: the payer's to have but not to spend. Complete: the payee's. The sum never changes."""
    invoice = ledger.add_invoice(INVOICE)
    pay_id = ledger.begin_pay(PAY, hop())
    assert balances(ledger) == {"payer": (1000, 900), "payee": (0, 0)}
    assert ledger.under_way(1) == [(hop()[0], "hash")]
    paid = ledger.settle(pay_id, invoice.id, 1500)
    assert paid is not None
    assert (paid.pay_index, paid.received_msat, paid.paid_at) == (1, 100, 1500)
    assert balances(ledger) == {"payer": (900, 900), "payee": (100, 100)}
    (row,) = ledger.pays("payer")
    assert (row.status, row.preimage, row.completed_at) == ("complete", "preimage", 1500)


def test_payment_given_up_cannot_be_taken(ledger: Ledger) -> None:
    """Whoever comes first wins: after the payer gave up the payee's transaction does nothing."""
    invoice = ledger.add_invoice(INVOICE)
    pay_id = ledger.begin_pay(PAY, hop())
    assert ledger.fail_pay(pay_id, 1500).status == "failed"
    assert ledger.settle(pay_id, invoice.id, 1501) is None
    assert balances(ledger) == {"payer": (1000, 1000), "payee": (0, 0)}
    assert ledger.invoices("payee")[0].status(1502) == "unpaid"


def test_payment_taken_cannot_be_given_up(ledger: Ledger) -> None:
    """A payer that gives up too late is told that the payment is complete, with its preimage."""
    invoice = ledger.add_invoice(INVOICE)
    pay_id = ledger.begin_pay(PAY, hop())
    ledger.settle(pay_id, invoice.id, 1500)
    ledger.fail_unfinished("payer", 1501)
    final = ledger.fail_pay(pay_id, 1502)
    assert (final.status, final.preimage) == ("complete", "preimage")


def test_invoice_is_paid_once(ledger: Ledger) -> None:
    """Of two payments on their way to one invoice the second gets nothing and keeps its money."""
    invoice = ledger.add_invoice(INVOICE)
    ledger.open_channel("rival", "payee", 1000, 0)
    first = ledger.begin_pay(PAY, hop())
    second = ledger.begin_pay(replace(PAY, node_id="rival"), (Hop(2, "rival", "payee", 100),))
    assert ledger.settle(first, invoice.id, 1500) is not None
    assert ledger.settle(second, invoice.id, 1500) is None
    assert sum(side.msat for side in ledger.sides()) == 2000


def test_second_payment_of_a_hash_is_refused(ledger: Ledger) -> None:
    """While one is under way, and after one is complete; not after a failed one."""
    invoice = ledger.add_invoice(INVOICE)
    first = ledger.begin_pay(PAY, hop())
    with pytest.raises(InProgress):
        ledger.begin_pay(PAY, hop())
    ledger.fail_pay(first, 1500)
    second = ledger.begin_pay(PAY, hop())
    ledger.settle(second, invoice.id, 1500)
    with pytest.raises(AlreadyPaid):
        ledger.begin_pay(PAY, hop())


def test_money_on_its_way_is_not_spent_again(ledger: Ledger) -> None:
    """Two payments under way cannot together take more than the channel holds."""
    ledger.begin_pay(replace(PAY, amount_msat=900, sent_msat=900), hop(900))
    with pytest.raises(Short):
        ledger.begin_pay(replace(PAY, payment_hash="other"), hop(101))
    assert len(ledger.pays("payer")) == 1


def test_labels_and_hashes_are_used_once_per_node(ledger: Ledger) -> None:
    """The same label or hash again is refused on this node, and free on another."""
    ledger.add_invoice(INVOICE)
    with pytest.raises(LabelTaken):
        ledger.add_invoice(replace(INVOICE, payment_hash="other"))
    with pytest.raises(PreimageTaken):
        ledger.add_invoice(replace(INVOICE, label="other"))
    assert ledger.add_invoice(replace(INVOICE, node_id="other")).label == "label"


def test_books_survive_their_process(tmp_path: Path) -> None:
    """Another process that opens the same file sees the same rows."""
    first = Ledger(tmp_path / "ledger")
    first.open_channel("payer", "payee", 1000, 300)
    second = Ledger(tmp_path / "ledger")
    assert balances(second) == {"payer": (700, 700), "payee": (300, 300)}
    first.close()
    second.close()
