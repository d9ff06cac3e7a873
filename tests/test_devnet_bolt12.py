"""BOLT12 texts: what lightningd made is read here, and what is made here reads alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum.devnet import bolt12
from lyceum.devnet.invoices import BadBolt11
from lyceum.devnet.keys import NodeKey

KEY = NodeKey(b"\x11" * 32)
NODE = "02e300531d5fa022ee713777176709a62522c6183489a3f28bba7950b48ba08843"
# Made by lightningd v26.06.6 on regtest.
OFFER = (
    "lno1qgsqvgnwgcg35z6ee2h3yczraddm72xrfua9uve2rlrm9deu7xyfzrc2qaex2en4dej8x93pqt3sq5cat7sz9mn3xam3wecf"
    "5cjj93scxjy68u5thfu4pdyt5zyyx"
)
OFFER_ID = "94b880a5c45ff9bab98bd42ad80e928eee7554457cd32f07289d5ea4e227d476"
FIXED = (
    "lno1qgsqvgnwgcg35z6ee2h3yczraddm72xrfua9uve2rlrm9deu7xyfzrcgqgfcszs9ve5hsetypczxkp70egfqymt9zcss9ccq"
    "2vw4lgpzaecnwachvuy6vffzccvrfzdr729m572skj96pzzr"
)
INVOICE = (
    "lni1qqgpdau5qneqs48ks2wf9pzuyvtduq3qqc3xu3s3rg94nj40zfsy866mhu5vxne6tcej5878k2mneuvgjy8s5pmjv4n82mny"
    "wvtzzqhrqpf36haqyth8zdmhzansnf39ytrpsdyf50eghwne2z6ghgyggdgzqp3zderpzxstt8927ynqg044h0egcd8n5h3n9g0u"
    "0v4h8ncc3yg02gpppc25qpvzzqnrwjjgvnuysdctqrx76fl38eqtyqmc3qtjkzmasqkzymlttuffhjsfsqhrqpf36haqyth8zdmh"
    "zansnf39ytrpsdyf50eghwne2z6ghgyggvpzfj2snx47nta3sd3342ehu5d7cutlkprv6zuka5tnu2ld8ntfs6cpqd9zxvzny6jm"
    "rhz8weamztzx2m8c00spg4qgxfftfp56jywwuftqjqpjq5lex9cegtjq3j55ujxxhy3zkmdm27qkgdls8mtlsju5jwhcth7lumqn"
    "jtuev2c8g4rwhcgj9fxcndcr5gwqqqqqqqqqqqqqqq9qqqqqqqqqqqqqr5jt9hav2gqqqqqq5szxkp7tu25zq6sguwgg256v5jzs"
    "gtgk0z038r449sd0j84sa7wq5hfrqjk7yytr4gpppcdwqvpqqq9syypwxqznr406qghwwymhw9m8pxnz2gkxrq6gnglj3wa8j595"
    "3wsgsslsgzdces3zda69n2szk7k3nm9ruf0razt3vqdy8a4hpp7xycvusmpczx285aea3geaas3dl8n7c7nes5ulh25jahrsfsp4"
    "0gscj4953pmx"
)


def test_an_offer_of_lightningd_is_read() -> None:
    """Its id, its maker, its network; no amount where the payer chooses."""
    found = bolt12.read_offer(OFFER)
    assert (found.offer_id, found.issuer_id, found.description) == (OFFER_ID, NODE, "refunds")
    assert (found.chains, found.amount_msat, found.expires_at) == ((bolt12.REGTEST,), None, None)
    assert bolt12.read_offer(FIXED).amount_msat == 5000


def test_an_offer_is_written_as_lightningd_writes_it() -> None:
    """Byte for byte, so its id is the same too."""
    assert bolt12.make_offer(NODE, None, "refunds", None).text == OFFER


def test_an_invoice_of_lightningd_is_read_and_its_signature_checked() -> None:
    """Over a Merkle tree of records that are not all known here."""
    found = bolt12.read_invoice(INVOICE)
    assert (found.payee, found.amount_msat) == (NODE, 4321)
    assert found.payment_hash == "6a08e39085534ca485042d16789f138eb52c1af91eb0ef9c0a5d2304ade21163"
    assert found.expires_at == 1795673058 + 7200


@pytest.mark.parametrize("at", [10, 200, -1])
def test_a_changed_invoice_is_refused(at: int) -> None:
    """One letter in a record, in the middle or in the signature."""
    letter = "q" if INVOICE[at] != "q" else "p"
    changed = INVOICE[:at] + letter + (INVOICE[at + 1 :] if at != -1 else "")
    with pytest.raises(BadBolt11):
        bolt12.read_invoice(changed)


@given(
    amount=st.integers(1, 10**12),
    metadata=st.binary(min_size=16, max_size=16),
    description=st.text(max_size=40),
    expires_at=st.none() | st.integers(1, 2**40),
)
def test_what_is_made_is_read(amount: int, metadata: bytes, description: str, expires_at: int | None) -> None:
    """Any offer, and any invoice for it, signed by its maker and by nobody else."""
    offer = bolt12.make_offer(KEY.node_id, None, description, expires_at)
    assert (offer.description, offer.expires_at) == (description, expires_at)
    request = bolt12.Request(amount, NODE, metadata.hex())
    text = bolt12.make_invoice(offer, request, "ab" * 32, 1700000000, KEY.secret)
    found = bolt12.read_invoice(text)
    assert (found.amount_msat, found.payee, found.payment_hash) == (amount, KEY.node_id, "ab" * 32)
    forged = bolt12.make_invoice(offer, request, "ab" * 32, 1700000000, b"\x12" * 32)
    with pytest.raises(BadBolt11):
        bolt12.read_invoice(forged)


@pytest.mark.parametrize("text", ["", "lno1", "lno1qqq", "lno1b", "lni1qqq", OFFER[:-3], INVOICE])
def test_junk_is_no_offer(text: str) -> None:
    """Cut off, of another kind, of other letters."""
    with pytest.raises(BadBolt11):
        bolt12.read_offer(text)
