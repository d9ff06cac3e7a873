#!/usr/bin/env python3
"""A static plugin that sets a feature bit of the node, as only static plugins may."""

from __future__ import annotations

from pyln.client import Plugin

BIT = 303

plugin = Plugin(dynamic=False, node_features=f"{1 << BIT:078x}")
plugin.run()
