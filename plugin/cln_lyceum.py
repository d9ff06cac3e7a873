#!/usr/bin/env python3
"""Lyceum's Core Lightning plugin: a till that sells, a purse that pays, a desk that asks.

It alone holds the root key, the books (SQLite in the lightning-dir) and the way to the wallet.
It never imports llama_cpp or Starlette: C output on fd 1 would corrupt the node's protocol, and a
crash of a model must not take the till down. pyln dispatches one call at a time, so every method
runs on a thread of a pool and nothing here blocks the node.
"""

from __future__ import annotations

import inspect
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

try:
    import asyncio

    import httpx2 as httpx
    from pyln.client import Plugin
    from pyln.client.plugin import Request, RpcException

    from lyceum import l402
    from lyceum.accounts import add_up
    from lyceum.books import Payout, Purchase, Refund, Token, Topup
    from lyceum.ensemble import Ensemble
    from lyceum.errors import BadRequest, LyceumError, NoAnswer, RateLimited, TokenRefused, TooManyChallenges
    from lyceum.lazy.mint import LazyWallet
    from lyceum.ledger import BillBook, Database, FreebieBook, Journal, PurseBook, RefundBook, TillBook, TopupBook
    from lyceum.node import ClnWallet, call
    from lyceum.parameters import count, lines, moment, msat, shares, tiers, urls, word
    from lyceum.peers import Seller, muster, origin_of, visit
    from lyceum.ports import Ask, Declined, Delivery, End, Message, Offer, Terms, Usage, Wanted
    from lyceum.purse import LONGEST_PAYMENT_S, Bills, Purse, PurseLimits, PursePayer
    from lyceum.tariff import Tariff
    from lyceum.till import Admission, Counter, Refunds, RefundTerms, Till, TillTerms, Topups
    from lyceum.wire import write_offer
except ModuleNotFoundError as missing:
    # lightningd then logs "disabled itself" with this reason instead of a dead process.
    reason = f"{missing}: install cln-lyceum into the Python that starts this plugin ({sys.executable})"
    if os.environ.get("LIGHTNINGD_PLUGIN") != "1":
        sys.exit(reason)
    asked = json.loads(sys.stdin.readline())
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": {"disable": reason}}) + "\n\n")
    sys.stdout.flush()
    sys.exit(0)

ROOT_KEY = "lyceum l402 root key 0"
"""What makesecret derives the macaroons' root key from; another text would void every token."""

LABELS = "l402/"
"""How the labels of all invoices begin that sell credit."""

PAGE = 2000

RECOVERY_S = 30
"""How long to wait before payments that are still open are looked up again."""

MOST_NAME = 200
"""Characters of a purpose or a model's name that the books keep."""

IDLE_S = 30
"""How often late payments to closed tokens are looked for when no refund is due."""

MOST_ANSWERS = 100
"""Answers that a token's history shows."""

MOST_SECONDS = 10 * 365 * 24 * 3600

PURSE_LIMITS = {
    "lyceum-max-payment-msat": "payment_msat",
    "lyceum-budget-hour-msat": "hour_msat",
    "lyceum-budget-day-msat": "day_msat",
    "lyceum-budget-peer-msat": "peer_msat",
    "lyceum-budget-purpose-msat": "purpose_msat",
}
"""The options that bound what the purse spends, and the field that each sets."""

EVERYBODY = Offer("ensemble", "the specialists of every configured peer")

TERMS = (
    "lyceum-bundle-msat",
    "lyceum-token-expiry",
    "lyceum-challenge-expiry",
    "lyceum-challenges-per-minute",
    "lyceum-open-challenges",
    "lyceum-freebies",
)
"""The options that are the till's terms, in the order of `TillTerms`."""

TARIFF = {
    "lyceum-prices": "models",
    "lyceum-price-per-waiting": "per_waiting",
    "lyceum-price-tiers": "tiers",
    "lyceum-price-floor": "floor",
    "lyceum-price-cap": "cap",
}
"""The options that make the tariff, and its field for each."""

Work = Callable[..., dict[str, Any]]


class Lyceum(Plugin):  # type: ignore[misc]
    """The plugin with its rooms, which `init` furnishes."""

    wallet: ClnWallet
    journal: Journal
    till: Till
    counter: Counter
    refunds: Refunds
    purse: Purse

    def peers(self) -> list[str]:
        return urls("lyceum-peers", self.get_option("lyceum-peers"))

    def patience_s(self) -> int:
        return count("lyceum-patience", self.get_option("lyceum-patience"))


plugin = Lyceum()
quick = ThreadPoolExecutor(8, thread_name_prefix="till")
patient = ThreadPoolExecutor(64, thread_name_prefix="purse")
refunding = ThreadPoolExecutor(4, thread_name_prefix="refund")
refund_claimed = threading.Event()


def method(name: str, pool: ThreadPoolExecutor) -> Callable[[Work], Work]:
    """Serve `work` as an RPC method from `pool`; a LyceumError becomes an RPC error with its code.

    `request` comes first in the signature: pyln inserts it by position, and lightning-cli leaves
    trailing arguments out. It reaches the work only when that asks for it.
    """

    def register(work: Work) -> Work:
        own = list(inspect.signature(work).parameters.values())
        wants_request = bool(own) and own[0].name == "request"
        slot = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD)

        def handle(request: Request, *args: Any, **params: Any) -> None:
            pool.submit(_answer, request, work, (request, *args) if wants_request else args, params)

        handle.__signature__ = inspect.Signature(own if wants_request else [slot, *own])  # type: ignore[attr-defined]
        handle.__doc__ = work.__doc__
        plugin.add_method(name, handle, background=True, description=work.__doc__)
        return work

    return register


def _answer(request: Request, work: Work, args: tuple[Any, ...], params: dict[str, Any]) -> None:
    """Outside the `except` the error carries no traceback to the caller."""
    try:
        result = work(*args, **params)
    except LyceumError as error:
        failure = RpcException(error.message, error.rpc_code)
    except Exception as error:
        plugin.log(f"{request.method} failed: {type(error).__name__} in {_place(error)}", level="warn")
        failure = RpcException(f"internal error in {request.method}; the node's log says where", LyceumError.rpc_code)
    else:
        request.set_result(result)
        return
    request.set_exception(failure)


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"


# Options, all of which `lightning-cli setconfig` changes without a restart.


def option(name: str, default: int | str, description: str, change: Callable[[str, Any], object]) -> None:
    """`change` checks the new value, and puts it where it is used."""
    kind = "int" if isinstance(default, int) else "string"
    plugin.add_option(
        name, default, description, opt_type=kind, dynamic=True, on_change=lambda _, key, value: change(key, value)
    )


def _change_terms(**field: Any) -> None:
    plugin.till.terms = replace(plugin.till.terms, **field)


def _change_tariff(**field: Any) -> None:
    _change_terms(tariff=replace(plugin.till.terms.tariff, **field))


def _change_refund_terms(**field: int) -> None:
    plugin.refunds.terms = replace(plugin.refunds.terms, **field)


def _change_limits(name: str, value: Any) -> None:
    plugin.purse.limits = replace(plugin.purse.limits, **{PURSE_LIMITS[name]: msat(name, value)})


option(
    "lyceum-bundle-msat",
    1000,
    "Least that a first payment to us buys, in msat; the rest stays on the token.",
    lambda name, value: _change_terms(bundle_msat=msat(name, value)),
)
option(
    "lyceum-token-expiry",
    30 * 24 * 3600,
    "Seconds that a token sold by us stays good.",
    lambda name, value: _change_terms(token_s=count(name, value, MOST_SECONDS)),
)
option(
    "lyceum-challenge-expiry",
    600,
    "Seconds that the invoice of a challenge stays payable.",
    lambda name, value: _change_terms(challenge_s=count(name, value, MOST_SECONDS)),
)
option(
    "lyceum-refund-least-msat",
    1000,
    "Least that is left on a token to be sent back to its holder, in msat.",
    lambda name, value: _change_refund_terms(least_msat=msat(name, value)),
)
option(
    "lyceum-refund-fee-percent",
    10,
    "Most that routing may take of a refund, in percent; it comes out of what is sent back.",
    lambda name, value: _change_refund_terms(fee_percent=count(name, value, 50)),
)
option(
    "lyceum-refund-window",
    90 * 24 * 3600,
    "Seconds after a token's expiry in which its holder may still take back what is left.",
    lambda name, value: _change_refund_terms(window_s=count(name, value, MOST_SECONDS)),
)
option(
    "lyceum-max-payment-msat",
    1_000_000,
    "Most that any single payment for a token may be, in msat, whoever asks.",
    _change_limits,
)
option(
    "lyceum-budget-hour-msat",
    5_000_000,
    "Most that may leave the wallet for tokens within an hour, in msat, fees counted; 0 for no limit.",
    _change_limits,
)
option(
    "lyceum-budget-day-msat",
    20_000_000,
    "Most that may leave the wallet for tokens within 24 hours, in msat, fees counted; 0 for no limit.",
    _change_limits,
)
option(
    "lyceum-budget-peer-msat",
    5_000_000,
    "Most that may go to any one seller within 24 hours, in msat, fees counted; 0 for no limit.",
    _change_limits,
)
option(
    "lyceum-budget-purpose-msat",
    0,
    "Most that may be spent for any one purpose within 24 hours, in msat, fees counted; 0 for no limit.",
    _change_limits,
)
option(
    "lyceum-challenges-per-minute",
    30,
    "Most challenges that one network (IPv4 /24, IPv6 /48) is shown in a minute.",
    lambda name, value: _change_terms(challenges_per_minute=count(name, value)),
)
option(
    "lyceum-open-challenges",
    1000,
    "Most unpaid invoices of challenges that the node keeps at a time; lazy ones are not kept.",
    lambda name, value: _change_terms(open_challenges=count(name, value)),
)
option(
    "lyceum-freebies",
    0,
    "Requests that each network (IPv4 /24, IPv6 /48) has for nothing, in each service.",
    lambda name, value: _change_terms(freebies=count(name, value, least=0)),
)
option(
    "lyceum-prices",
    "",
    "Percent of the list price by model, such as economist=150,*=90; * is all others.",
    lambda name, value: _change_tariff(models=shares(name, value)),
)
option(
    "lyceum-price-per-waiting",
    0,
    "Percent that each request being served adds to a model's price.",
    lambda name, value: _change_tariff(per_waiting=count(name, value, 1000, least=0)),
)
option(
    "lyceum-price-tiers",
    "",
    "Percent by what a token was credited in all, such as 100000=90,1000000=80: from 100,000 msat on, 90 percent.",
    lambda name, value: _change_tariff(tiers=tiers(name, value)),
)
option(
    "lyceum-price-floor",
    50,
    "Least percent that load and tier together may leave of a price.",
    lambda name, value: _change_tariff(floor=count(name, value, 100)),
)
option(
    "lyceum-price-cap",
    300,
    "Most percent that load and tier together may make of a price.",
    lambda name, value: _change_tariff(cap=count(name, value, 10_000, least=100)),
)
option("lyceum-peers", "", "Sellers to consult: their servers' URLs, separated by commas.", urls)
option("lyceum-patience", 30, "Seconds that a seller may be silent before an answer goes on without it.", count)


@plugin.init()
def init(configuration: dict[str, Any], **_: Any) -> dict[str, str] | None:
    try:
        _furnish(Path(configuration["lightning-dir"]))
    except (LyceumError, ValueError) as error:
        return {"disable": str(error)}
    threading.Thread(target=_recover_payments, name="recovery", daemon=True).start()
    threading.Thread(target=_pay_refunds, name="refunds", daemon=True).start()
    return None


def _furnish(directory: Path) -> None:
    plugin.wallet = wallet = LazyWallet(plugin.rpc, time.monotonic)
    database = Database(directory / "lyceum.sqlite3")
    root_key = bytes.fromhex(call(plugin.rpc, "makesecret", {"string": ROOT_KEY})["secret"])
    terms = replace(TillTerms(*map(plugin.get_option, TERMS)), tariff=_tariff())
    limits = PurseLimits(**{field: msat(name, plugin.get_option(name)) for name, field in PURSE_LIMITS.items()})
    plugin.peers()
    plugin.patience_s()
    topups = Topups(wallet, TopupBook(database), now=_now, random_bytes=secrets.token_bytes)
    plugin.till = Till(
        wallet,
        TillBook(database),
        root_key,
        terms,
        now=_now,
        random_bytes=secrets.token_bytes,
        topups=topups,
        freebies=FreebieBook(database),
    )
    plugin.journal = Journal(database)
    plugin.refunds = Refunds(wallet, RefundBook(database), topups, _refund_terms(), now=_now)
    plugin.counter = Counter(plugin.till, topups, plugin.refunds, now=_now)
    plugin.purse = Purse(wallet, PurseBook(database), Bills(BillBook(database), now=_now), now=_now, limits=limits)


def _tariff() -> Tariff:
    named = {field: (name, plugin.get_option(name)) for name, field in TARIFF.items()}
    numbers = {field: count(*named[field], least=0) for field in ("per_waiting", "floor", "cap")}
    return Tariff(models=shares(*named["models"]), tiers=tiers(*named["tiers"]), **numbers)


def _refund_terms() -> RefundTerms:
    names = ("lyceum-refund-least-msat", "lyceum-refund-fee-percent", "lyceum-refund-window")
    return RefundTerms(*map(plugin.get_option, names))


def _recover_payments() -> None:
    """What an earlier run left open is looked up, again and again until the node can say what became of it."""
    while _or_logged(lambda: len(plugin.purse.recover())) != 0:
        time.sleep(RECOVERY_S)


def _pay_refunds() -> None:
    """As long as the plugin runs: what is owed is tried when it is due, also what an earlier run left open."""
    while True:
        wait_s = _or_logged(_begin_due_refunds) or IDLE_S
        refund_claimed.wait(wait_s)
        refund_claimed.clear()


def _begin_due_refunds() -> int:
    """Seconds until it should be called again."""
    for token_id in plugin.refunds.due():
        refunding.submit(_or_logged, partial(plugin.refunds.attempt, token_id))
    return plugin.refunds.wait_s(IDLE_S)


def _or_logged(work: Callable[[], int | None]) -> int | None:
    try:
        return work()
    except Exception as error:
        plugin.log(f"tried again later: {type(error).__name__} in {_place(error)}", level="warn")
        return None


def _now() -> int:
    return int(time.time())


# The till: for any HTTP service beside the node, with or without models.


@method("l402-admit", quick)
def admit(
    service: Any,
    amount_msat: Any,
    authorization: Any = None,
    model: Any = None,
    max_tokens: Any = None,
    client: Any = "",
    least_msat: Any = None,
    waiting: Any = 0,
) -> dict[str, Any]:
    """Verify the Authorization header line(s) of a request and reserve {amount_msat} of its token.

    Answers `admitted` with a reservation to settle, `declined` with the reason and the headers of a
    402 that sells a token for {service}, or `limited` with a code and when to come back. {client}
    says who asks, best as an address's network, and {waiting} how many are being served before.
    A balance below {amount_msat} is reserved whole if it is at least {least_msat}.
    """
    admission = _admission(service, amount_msat, authorization, model, max_tokens, client, least_msat, waiting)
    try:
        answer = plugin.till.admit(admission)
    except (RateLimited, TooManyChallenges) as limit:
        return _limited(limit)
    return {"declined" if isinstance(answer, Declined) else "admitted": asdict(answer)}


@method("l402-settle", quick)
def settle(reservation: Any, charge_msat: Any) -> dict[str, Any]:
    """Charge {charge_msat} of a {reservation}, at most all of it; the rest returns to the token."""
    return asdict(plugin.till.settle(word("reservation", reservation), msat("charge_msat", charge_msat)))


@method("l402-quote", quick)
def quote(amount_msat: Any, client: Any = "") -> dict[str, Any]:
    """Say what a first payment for a request of {amount_msat} would be now; no invoice is made.

    Too many of one {client} are `limited`, as by l402-admit.
    """
    try:
        return {"first_payment_msat": plugin.till.quote(msat("amount_msat", amount_msat), str(client)[:64])}
    except RateLimited as limit:
        return _limited(limit)


def _limited(limit: RateLimited | TooManyChallenges) -> dict[str, Any]:
    return {"limited": {"code": limit.code, "detail": limit.message, "retry_after_s": limit.retry_after_s}}


@method("l402-verify", quick)
def verify(service: Any, authorization: Any, model: Any = None, max_tokens: Any = None) -> dict[str, Any]:
    """Say whether an Authorization header is good for {service} and what its token holds. Charges nothing."""
    found = plugin.till.verify(_admission(service, 1, authorization, model, max_tokens))
    if isinstance(found, l402.Refusal):
        return {"valid": False, "reason": found.reason, "detail": found.detail}
    return {"valid": True, **_sold(found)}


@method("l402-tokens", quick)
def tokens(limit: Any = 100) -> dict[str, Any]:
    """The newest tokens that were sold and bought here, without their secrets."""
    most = count("limit", limit)
    return {
        "sold": [_sold(token) for token in plugin.till.tokens(most)],
        "bought": [_bought(purchase) for purchase in plugin.purse.purchases(most)],
    }


@method("l402-revoke", quick)
def revoke(token_id: Any) -> dict[str, Any]:
    """Refuse the token {token_id} from now on. What its holder had left is not paid back by this."""
    return {"token_id": token_id, "revoked_now": plugin.till.revoke(word("token_id", token_id))}


@method("l402-challenge", quick)
def challenge(service: Any, amount_msat: Any, authorization: Any = None) -> dict[str, Any]:
    """An invoice of {amount_msat} that adds to the token that {authorization} holds; without it, the challenge
    for a new token of {service}."""
    header, amount = lines("authorization", authorization), msat("amount_msat", amount_msat)
    if not header:
        return asdict(plugin.till.admit(_admission(service, amount, None, None, None)))
    return _for_holder(lambda: _topup(plugin.counter.top_up(header, word("service", service), amount)))


@method("l402-token", quick)
def token(service: Any, authorization: Any) -> dict[str, Any]:
    """What is on the token that {authorization} holds, what was paid for it, and what it paid for."""
    header = lines("authorization", authorization)
    return _for_holder(lambda: _account_of(plugin.counter.token(header, word("service", service))))


@method("l402-reclaim", quick)
def reclaim(service: Any, authorization: Any, address: Any) -> dict[str, Any]:
    """Close the token that {authorization} holds and send what is left to {address}: a BOLT12 offer, or a
    BOLT11 invoice. Asked again with another address, it is sent there, unless it has arrived meanwhile."""
    header = lines("authorization", authorization)
    return _for_holder(
        lambda: _claimed(plugin.counter.reclaim(header, word("service", service), word("address", address)))
    )


@method("l402-refund", quick)
def refund(token_id: Any, address: Any) -> dict[str, Any]:
    """Close the token {token_id} and send what is left of it to {address}, for its holder; also one that was
    revoked or whose time to ask is over."""
    found = plugin.till.token(word("token_id", token_id))
    if found is None:
        raise BadRequest("no such token: l402-tokens lists those that were paid for and used", "token_id")
    return _claimed(plugin.refunds.claim(found, word("address", address)))


@method("l402-refunds", quick)
def refunds(limit: Any = 100) -> dict[str, Any]:
    """The newest refunds: how far each is, the last thing that went wrong, and each payment for it."""
    return {
        "refunds": [
            {**_refund(each), "address": each.address, "payouts": _payouts(each.token_id)}
            for each in plugin.refunds.refunds(count("limit", limit))
        ]
    }


@method("l402-terms", quick)
def terms() -> dict[str, Any]:
    """On what terms this till sells."""
    return asdict(plugin.till.terms)


@method("l402-stats", quick)
def stats() -> dict[str, Any]:
    """What was sold (and what of it holders can still use or take back), given back, and bought; the terms.

    `accounts` adds both sides up with what the node itself says its invoices received.
    """
    node_received_msat = plugin.wallet.received_in_all_msat(LABELS)
    sold, given_back, bought = _sales(), plugin.refunds.sums(), plugin.purse.spending()
    return {
        "accounts": add_up(sold, given_back, bought, node_received_msat),
        "sold": sold,
        "refunds": given_back,
        "bought": bought,
        "terms": asdict(plugin.till.terms),
    }


@method("l402-export", quick)
def export(since: Any = 0, after: Any = "") -> dict[str, Any]:
    """Both sides of the books from {since} on (a date such as 2026-11-01, or Unix seconds), in order of time.

    At most 2,000 postings; the rest is asked for with the `at` of the last one as {since} and its
    `mark` as {after}.
    """
    return {"postings": [asdict(row) for row in plugin.journal.postings(moment("since", since), str(after), PAGE)]}


# The purse.


@method("l402-pay", patient)
def pay(
    challenge: Any,
    origin: Any,
    cap_msat: Any,
    fee_cap_msat: Any = 5000,
    payee: Any = "",
    purpose: Any = "",
    model: Any = "",
) -> dict[str, Any]:
    """Pay the {challenge} (the text of a WWW-Authenticate header) of {origin}, and return the credential.

    At most {cap_msat} for the invoice and {fee_cap_msat} for its route; {payee}, if given, is the
    node that must be paid. {purpose} says for whom, and {model} for what. The same challenge is never
    paid twice.
    """
    parsed = l402.parse_challenge([word("challenge", challenge)])
    caps_msat = msat("cap_msat", cap_msat), msat("fee_cap_msat", fee_cap_msat)
    terms = Terms(*caps_msat, str(payee), str(purpose)[:MOST_NAME], str(model)[:MOST_NAME])
    return {"ticket": asdict(plugin.purse.pay(parsed, word("origin", origin), terms))}


@method("l402-kept", patient)
def kept(origin: Any, service: Any = "", need_msat: Any = 0, tried: Any = None) -> dict[str, Any]:
    """The usable credential bought from {origin} (scheme://host:port) that fits best, if there is one.

    {service} as the seller's challenge names it, {need_msat} the most that the request may cost,
    {tried} the payment hashes of credentials that it refused already.
    """
    refused = lines("tried", tried)
    ticket = plugin.purse.kept(Wanted(word("origin", origin), str(service), msat("need_msat", need_msat), refused))
    return {"ticket": asdict(ticket)} if ticket else {}


@method("l402-exhausted", quick)
def exhausted(payment_hash: Any, need_msat: Any = 0) -> dict[str, Any]:
    """Remember that the credential bought with {payment_hash} does not hold {need_msat}, as its seller says."""
    plugin.purse.exhausted(word("payment_hash", payment_hash), msat("need_msat", need_msat))
    return {"payment_hash": payment_hash}


@method("l402-discard", quick)
def discard(payment_hash: Any) -> dict[str, Any]:
    """Forget the credential bought with {payment_hash}: its seller refuses it for good."""
    plugin.purse.discard(word("payment_hash", payment_hash))
    return {"payment_hash": payment_hash}


@method("l402-report", quick)
def report(delivery: Any) -> dict[str, Any]:
    """Write down what a credential was spent on. A {delivery} with a complaint ends all trust in its origin."""
    plugin.purse.bills.enter(_delivery(delivery))
    return {}


@method("l402-distrusted", quick)
def distrusted() -> dict[str, Any]:
    """The origins that overcharged and are neither asked nor paid, each with the complaint."""
    return {"origins": plugin.purse.bills.distrusted()}


# The desk.


@method("lyceum-ask", patient)
def ask(
    request: Request, question: Any, budget_msat: Any, max_tokens: Any = None, purpose: Any = "ask"
) -> dict[str, Any]:
    """Ask the specialists of your peers a {question} and pay them, {budget_msat} in all at most.

    {purpose} says for whom, in the books and in the budget of a purpose. Answers with the text, who
    contributed, and what each was paid. Callers that enable notifications get the text as it is
    written, as messages of level debug.
    """
    if max_tokens is not None:
        max_tokens = count("max_tokens", max_tokens)
    asked = Ask("ensemble", (Message("user", str(question)),), max_tokens, budget_msat=msat("budget_msat", budget_msat))
    if not plugin.peers():
        raise NoAnswer("no peers to ask: set lyceum-peers to the URLs of sellers")
    text, end = asyncio.run(_consult(asked, str(purpose)[:MOST_NAME], lambda words: request.notify(words, "debug")))
    return {
        "network": call(plugin.rpc, "getinfo")["network"],
        "answer": text,
        **account(end),
        "budget_msat": asked.budget_msat,
    }


async def _consult(asked: Ask, purpose: str, show: Callable[[str], None]) -> tuple[str, End]:
    payer, patience_s = PursePayer(plugin.purse), plugin.patience_s() + LONGEST_PAYMENT_S
    async with httpx.AsyncClient(timeout=plugin.patience_s()) as client:
        ensemble = Ensemble(
            EVERYBODY, lambda: muster(client, plugin.peers(), payer, purpose=purpose), patience_s=patience_s
        )
        text = ""
        async for chunk in ensemble.stream(asked):
            if isinstance(chunk, End):
                return text, chunk
            text += chunk.text
            show(chunk.text)
    raise NoAnswer("the ensemble broke off")


def account(end: End) -> dict[str, Any]:
    return {
        "finish": end.finish,
        "members": [asdict(member) for member in end.members],
        "total_msat": sum(member.charged_msat + member.fee_msat for member in end.members),
        "paid_msat": sum(member.paid_msat + member.fee_msat for member in end.members),
    }


@method("lyceum-models", patient)
def models() -> dict[str, Any]:
    """The specialists that your peers sell now, with fields, limits and prices; and who overcharged before."""
    complaints = plugin.purse.bills.distrusted()
    return {
        "models": [
            {
                "url": seller.url,
                "model": offer.model,
                "complaint": complaints.get(seller.origin, ""),
                **write_offer(offer)["lyceum"],
            }
            for seller in _visit_all()
            for offer in seller.offers
        ]
    }


@method("lyceum-peers", patient)
def peers() -> dict[str, Any]:
    """The sellers in lyceum-peers: who answers, with how many models, who does not, and who overcharged."""
    complaints = plugin.purse.bills.distrusted()
    return {
        "peers": [
            {
                "url": seller.url,
                "node_id": seller.node_id,
                "models": len(seller.offers),
                "error": seller.error,
                "complaint": complaints.get(seller.origin, ""),
            }
            for seller in _visit_all()
        ]
    }


@method("lyceum-trust", quick)
def trust(url: Any) -> dict[str, Any]:
    """Ask and pay the seller at {url} again, which was refused because it overcharged."""
    (wanted,) = urls("url", word("url", url)) or [""]
    origin = origin_of(httpx.URL(wanted))
    return {"origin": origin, "trusted_now": plugin.purse.bills.trust(origin)}


@method("lyceum-bill", quick)
def bill(since: Any = 0) -> dict[str, Any]:
    """What was bought from whom from {since} on (a date such as 2026-11-01, or Unix seconds), by seller and model."""
    return {"bill": [asdict(line) for line in plugin.purse.bills.bill(moment("since", since))]}


@method("lyceum-prune", quick)
def prune(before: Any) -> dict[str, Any]:
    """Forget what was bought answer by answer {before} a date such as 2026-11-01; payments and tokens stay."""
    return {"pruned": plugin.purse.bills.prune(moment("before", before))}


def _visit_all() -> Sequence[Seller]:
    async def visit_all() -> Sequence[Seller]:
        async with httpx.AsyncClient() as client:
            return await asyncio.gather(*(visit(client, url) for url in plugin.peers()))

    return asyncio.run(visit_all())


# Shapes of the answers.


def _admission(
    service: Any,
    amount_msat: Any,
    authorization: Any,
    model: Any,
    max_tokens: Any,
    client: Any = "",
    least_msat: Any = None,
    waiting: Any = 0,
) -> Admission:
    header, amount = lines("authorization", authorization), msat("amount_msat", amount_msat)
    tokens = None if max_tokens is None else count("max_tokens", max_tokens)
    try:
        return Admission(
            header,
            word("service", service),
            amount,
            model and word("model", model),
            tokens,
            str(client)[:64],
            None if least_msat is None else msat("least_msat", least_msat),
            count("waiting", waiting, least=0),
        )
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _delivery(given: Any) -> Delivery:
    try:
        return Delivery(**{**given, "usage": Usage(**given["usage"])})
    except (TypeError, KeyError, ValueError) as error:
        raise BadRequest(f"delivery is not what ports.Delivery describes: {error}", "delivery") from None


def _sales() -> dict[str, int]:
    """`owed_msat` is what holders can still use or take back; `lapsed_msat` what nobody took back in time."""
    sums = plugin.till.sales()
    lapsed_msat = plugin.till.lapsed_msat(_now() - plugin.refunds.terms.window_s)
    return {**sums, "lapsed_msat": lapsed_msat, "owed_msat": sums["balance_msat"] + sums["reserved_msat"] - lapsed_msat}


def _for_holder(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A refused credential is an answer, so that its reason reaches the caller; an RPC error has none."""
    try:
        return work()
    except TokenRefused as error:
        return {"refused": {"reason": error.reason, "detail": error.message}}


def _claimed(refund: Refund) -> dict[str, Any]:
    refund_claimed.set()
    return _refund(refund)


def _refund(refund: Refund) -> dict[str, Any]:
    return {name: value for name, value in asdict(refund).items() if name != "address"}


def _payouts(token_id: str) -> list[dict[str, Any]]:
    hidden = {"invoice", "token_id", "number"}
    rows: Sequence[Payout] = plugin.refunds.payouts(token_id)
    return [{name: value for name, value in asdict(row).items() if name not in hidden} for row in rows]


def _topup(topup: Topup) -> dict[str, Any]:
    shown = asdict(topup)
    return {"invoice": shown.pop("bolt11"), **shown}


def _account_of(token: Token) -> dict[str, Any]:
    """A token as its holder sees it."""
    claim = plugin.refunds.refund(token.token_id)
    return {
        "token": {**_sold(token), "refundable_until": token.expires_at + plugin.refunds.terms.window_s},
        "answers": [asdict(answer) for answer in plugin.till.answers(token.token_id, MOST_ANSWERS)],
        "topups": [_topup(topup) for topup in plugin.counter.topups(token.token_id, MOST_ANSWERS)],
        "refund": claim and {**_refund(claim), "payouts": _payouts(token.token_id)},
    }


def _sold(token: Token) -> dict[str, Any]:
    return {**asdict(token), "balance_msat": token.balance_msat}


def _bought(purchase: Purchase) -> dict[str, Any]:
    secret = {"macaroon", "preimage", "bolt11"}
    return {name: value for name, value in asdict(purchase).items() if name not in secret}


def main() -> None:
    plugin.run()


if __name__ == "__main__":
    main()
