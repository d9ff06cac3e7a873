#!/usr/bin/env python3
# mypy: disallow-untyped-decorators=False
"""A plugin that does a little of everything a plugin can do, for the devnet tests."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from pyln.client import Plugin
from pyln.client.plugin import Request, RpcException

plugin = Plugin()
plugin.add_option("echo-text", "plain", "A text.")
plugin.add_option("echo-number", 7, "A number.", opt_type="int")
plugin.add_option("echo-loud", False, "A truth.", opt_type="bool")
plugin.add_option("echo-live", "before", "A text that setconfig may change.", dynamic=True)
plugin.add_flag_option("echo-flag", "A flag.")

seen: dict[str, list[Any]] = {"paid": [], "hooked": [], "told": [], "htlcs": []}


@plugin.method("echo-hello")
def hello(name: str = "world", **_kwargs: Any) -> dict[str, str]:
    """Greet somebody by name."""
    return {"hello": name}


@plugin.method("echo-options")
def options(plugin: Plugin, **_kwargs: Any) -> dict[str, Any]:
    """The values of all options, as this plugin sees them."""
    return {name: plugin.get_option(name) for name in plugin.options}


@plugin.method("echo-seen")
def seen_so_far(**_kwargs: Any) -> dict[str, list[Any]]:
    """What came by hook and by notification."""
    return seen


@plugin.method("echo-id")
def node_id(plugin: Plugin, **_kwargs: Any) -> dict[str, str]:
    """The node's id, asked of the node itself."""
    return {"id": plugin.rpc.getinfo()["id"]}


@plugin.method("echo-refuse")
def refuse(**_kwargs: Any) -> None:
    """Fail with a code of our own."""
    raise RpcException("no, thank you", code=4242)


@plugin.method("echo-die")
def die(**_kwargs: Any) -> None:
    """End the process without a word."""
    os._exit(3)


@plugin.async_method("echo-wait")
def wait(seconds: float, request: Request, **_kwargs: Any) -> None:
    """Answer after a while, from a thread, with a message half way."""

    def work() -> None:
        time.sleep(seconds / 2)
        request.notify("half way")
        time.sleep(seconds / 2)
        request.set_result({"waited": seconds})

    threading.Thread(target=work).start()


@plugin.async_hook("invoice_payment")
def invoice_payment(payment: dict[str, Any], request: Request, **_kwargs: Any) -> None:
    """Labels say what becomes of their payment: reject, hold for a while, or answer nonsense."""

    def work() -> None:
        if payment["label"].startswith("hold"):
            time.sleep(1.5)
        word = payment["label"].partition("-")[0]
        request.set_result({"result": word if word in ("reject", "nonsense") else "continue"})

    threading.Thread(target=work).start()


@plugin.async_hook("htlc_accepted")
def htlc_accepted(onion: dict[str, Any], htlc: dict[str, Any], request: Request, **more: Any) -> None:
    """Write down whatever comes, and let it go on."""
    seen["htlcs"].append({"onion": onion, "htlc": htlc, "forward_to": more.get("forward_to")})
    request.set_result({"result": "continue"})


@plugin.hook("custommsg")
def on_custommsg(peer_id: str, payload: str, **_kwargs: Any) -> dict[str, str]:
    seen["hooked"].append([peer_id, payload])
    return {"result": "continue"}


@plugin.subscribe("custommsg")
def told_custommsg(custommsg: dict[str, Any], **_kwargs: Any) -> None:
    seen["told"].append([custommsg["peer_id"], custommsg["payload"]])


@plugin.subscribe("invoice_payment")
def told_payment(invoice_payment: dict[str, Any], **_kwargs: Any) -> None:
    seen["paid"].append(invoice_payment)


plugin.run()
