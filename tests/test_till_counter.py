"""What holders may ask, over real books: who is let in, in which state of the token, and with which reason not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import MASTER, Clock, FakeWallet
from lyceum.books import Refund, RefundState
from lyceum.errors import TokenRefused
from lyceum.l402 import Caveat, Credential, attenuate, parse_challenge
from lyceum.ledger import Database, FreebieBook, RefundBook, TillBook, TopupBook
from lyceum.ports import Address, Admitted, Declined
from lyceum.till import Admission, Counter, Refunds, RefundTerms, Till, TillTerms, Topups

OFFER = "lno1offer"
WINDOW_S = 700


class Shop:
    """A till and its counter."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.wallet = FakeWallet(self.clock, addresses={OFFER: Address(OFFER, ("regtest",))})
        self.database = Database(path)
        numbers = itertools.count(1)

        def random_bytes(size: int) -> bytes:
            return next(numbers).to_bytes(size, "big")

        topups = Topups(self.wallet, TopupBook(self.database), now=self.clock, random_bytes=random_bytes)
        self.till = Till(
            *(self.wallet, TillBook(self.database), MASTER, TillTerms(1000, 5000, 600)),
            now=self.clock,
            random_bytes=random_bytes,
            topups=topups,
            freebies=FreebieBook(self.database),
        )
        terms = RefundTerms(window_s=WINDOW_S)
        refunds = Refunds(self.wallet, RefundBook(self.database), topups, terms, now=self.clock)
        self.counter = Counter(self.till, topups, refunds, now=self.clock)

    def ask(self, *header: str, amount_msat: int = 1000) -> Admitted | Declined:
        return self.till.admit(Admission(header, "llm", amount_msat))

    def sell(self, amount_msat: int = 5000) -> Credential:
        declined = self.ask(amount_msat=amount_msat)
        assert isinstance(declined, Declined)
        challenge = parse_challenge([line for _, line in declined.headers])
        payment = self.wallet.settle(self.wallet.decode(challenge.invoice))
        return Credential(challenge.macaroon, bytes.fromhex(payment.preimage))

    def reclaim(self, header: str) -> Refund:
        return self.counter.reclaim([header], "llm", OFFER)

    def refusal(self, header: str) -> str:
        with pytest.raises(TokenRefused) as refused:
            self.reclaim(header)
        return refused.value.reason


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path / "books.sqlite3")
    yield shop
    shop.database.close()


def test_a_token_that_was_never_used_gives_all_back(shop: Shop) -> None:
    """The claim is its first use: the node is asked whether it was paid, as for any other."""
    header = shop.sell().header()
    assert shop.reclaim(header).state is RefundState.OWED
    assert shop.counter.token([header], "llm").balance_msat == 5000


def test_a_claimed_token_buys_nothing_more(shop: Shop) -> None:
    """The refusal says why; its holder still sees it and may give another address."""
    header = shop.sell().header()
    shop.reclaim(header)
    declined = shop.ask(header)
    assert isinstance(declined, Declined)
    assert declined.reason == "refunded"
    assert shop.counter.token([header], "llm").closed_at == shop.clock.now
    assert shop.reclaim(header).state is RefundState.OWED
    with pytest.raises(TokenRefused) as refused:
        shop.counter.top_up([header], "llm", 1000)
    assert refused.value.reason == "refunded"


def test_a_top_up_pays_for_the_next_request(shop: Shop) -> None:
    """An exhausted token works again as soon as its top-up is paid, and a request finds that out by itself."""
    header = shop.sell(1000).header()
    assert isinstance(shop.ask(header), Admitted)
    assert isinstance(shop.ask(header), Declined)
    topup = shop.counter.top_up([header], "llm", 1000)
    assert isinstance(shop.ask(header), Declined)
    shop.wallet.settle(shop.wallet.decode(topup.bolt11))
    assert isinstance(shop.ask(header), Admitted)
    assert isinstance(shop.ask(header), Declined)


def test_an_expired_token_gives_back_until_its_window_ends(shop: Shop) -> None:
    """It buys nothing, it is still shown, and what is left can be claimed for the stated time and no longer."""
    early, late = shop.sell().header(), shop.sell().header()
    ends = shop.counter.token([early], "llm").expires_at
    shop.counter.token([late], "llm")
    shop.clock.now = ends + WINDOW_S
    declined = shop.ask(early)
    assert isinstance(declined, Declined)
    assert declined.reason == "expired"
    assert shop.reclaim(early).state is RefundState.OWED
    shop.clock.now += 1
    assert shop.refusal(late) == "expired"
    assert shop.reclaim(early).state is RefundState.OWED


@pytest.mark.parametrize(
    "caveat",
    [
        Caveat("llm_valid_until", "5500"),
        Caveat("llm_valid_until", "1500"),
        Caveat("llm_model", "economist"),
        Caveat("services", "llm:0"),
    ],
)
@pytest.mark.parametrize("now", [1000, 2000])
def test_whoever_was_lent_a_token_cannot_empty_it(shop: Shop, caveat: Caveat, now: int) -> None:
    """A narrowed token pays for answers, also once its own end has come, but its money is its buyer's."""
    credential = shop.sell()
    lent = Credential(attenuate(credential.macaroon, caveat), credential.preimage).header()
    shop.clock.now = now
    assert shop.refusal(lent) in {"narrowed", "wrong-model", "expired"}
    assert shop.counter.token([credential.header()], "llm").closed_at is None


def test_a_narrowed_token_that_expired_is_not_shown(shop: Shop) -> None:
    """Only the token that was sold outlives its end at the counter."""
    credential = shop.sell()
    lent = Credential(attenuate(credential.macaroon, Caveat("llm_valid_until", "1500")), credential.preimage)
    shop.counter.token([lent.header()], "llm")
    shop.clock.now = 1500
    with pytest.raises(TokenRefused) as refused:
        shop.counter.token([lent.header()], "llm")
    assert refused.value.reason == "expired"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda credential: "", "payment-required"),
        (lambda credential: "L402 junk", "malformed-credential"),
        (lambda credential: Credential(credential.macaroon, bytes(32)).header(), "bad-preimage"),
    ],
)
def test_a_bad_credential_is_refused_with_its_reason(shop: Shop, spoil: object, reason: str) -> None:
    """As at the door, but without a challenge: paying would not help."""
    assert callable(spoil)
    assert shop.refusal(spoil(shop.sell())) == reason


def test_a_revoked_token_gives_nothing_back(shop: Shop) -> None:
    """Whoever leaked it could claim it too; its node's owner can pay it back by hand."""
    credential = shop.sell()
    token = shop.counter.token([credential.header()], "llm")
    shop.till.revoke(token.token_id)
    assert shop.refusal(credential.header()) == "revoked"
