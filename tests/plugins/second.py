#!/usr/bin/env python3
# mypy: disallow-untyped-decorators=False
"""A plugin to be started and stopped while its node runs."""

from __future__ import annotations

from typing import Any

from pyln.client import Plugin

plugin = Plugin()
plugin.add_option("second-text", "plain", "A text.")
plugin.add_option("second-number", 7, "A number.", opt_type="int")
plugin.add_option("second-refusal", "", "Why to stay out.")


@plugin.init()
def init(plugin: Plugin, **_kwargs: Any) -> dict[str, str] | None:
    why = plugin.get_option("second-refusal")
    return {"disable": why} if why else None


@plugin.method("second-options")
def options(plugin: Plugin, **_kwargs: Any) -> dict[str, Any]:
    """The values of all options, as this plugin sees them."""
    return {name: plugin.get_option(name) for name in plugin.options}


@plugin.subscribe("block_added")
def block_added(**_kwargs: Any) -> None:
    """Comes on real nodes only."""


plugin.run()
