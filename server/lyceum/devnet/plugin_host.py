"""The plugins of a loopback node: started, checked, stopped, and asked, as lightningd does.

Knows manifests and options; not what a hook or a method is about.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lyceum.devnet.jsonrpc import INVALID_PARAMS, PLUGIN_ERROR, JsonObject, RpcFailure
from lyceum.devnet.loopback_log import Log
from lyceum.devnet.manifest import BadManifest, Hook, Manifest
from lyceum.devnet.plugin_process import PluginProcess

ANSWER_SECONDS = 60
SHUTDOWN_SECONDS = 30

Given = Mapping[str, Sequence[Any]]
"""Option values as the caller gave them; several for an option that may be given several times."""


class NotStarted(Exception):
    """The plugin was killed while starting; the message is lightningd's reason."""


@dataclass
class Plugin:
    process: PluginProcess
    manifest: Manifest
    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    active: bool = False

    @property
    def path(self) -> Path:
        return self.process.path


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What `init` tells a plugin about the node. `features` maps a place to its bits; `reserved` are
    the method names that are the node's own, `hooks` and `topics` what it ever calls."""

    directory: Path
    rpc_file: str
    network: str
    features: Mapping[str, int]
    reserved: Callable[[], Set[str]]
    hooks: Set[str]
    topics: Set[str]

    def configuration(self, startup: bool, features: Mapping[str, int]) -> JsonObject:
        return {
            "lightning-dir": str(self.directory),
            "rpc-file": self.rpc_file,
            "startup": startup,
            "network": self.network,
            "feature_set": {place: feature_hex(bits) for place, bits in features.items()},
        }


def feature_hex(bits: int) -> str:
    return bits.to_bytes((bits.bit_length() + 7) // 8, "big").hex()


class PluginHost:
    def __init__(self, surroundings: Surroundings, log: Log) -> None:
        self._surroundings = surroundings
        self._log = log
        self._plugins: list[Plugin] = []
        self._watchers: set[asyncio.Task[None]] = set()

    # What the plugins offer

    def __iter__(self) -> Iterator[Plugin]:
        return iter(self._plugins)

    @property
    def features(self) -> dict[str, int]:
        found = dict(self._surroundings.features)
        for plugin in self._plugins:
            for place, bits in plugin.manifest.features.items():
                found[place] = found.get(place, 0) | bits
        return found

    def method(self, name: str) -> Plugin | None:
        return next((plugin for plugin in self._plugins if name in plugin.manifest.methods), None)

    def option(self, name: str) -> Plugin | None:
        return next((plugin for plugin in self._plugins if name in plugin.manifest.options), None)

    def hooked(self, name: str) -> list[tuple[Plugin, Hook]]:
        """Who wants to be asked, in the order of their start."""
        return [(plugin, plugin.manifest.hooks[name]) for plugin in self._plugins if name in plugin.manifest.hooks]

    def publish(self, topic: str, fields: JsonObject) -> None:
        for plugin in self._plugins:
            if plugin.active and topic in plugin.manifest.subscriptions:
                plugin.process.notify(topic, {topic: fields})

    def listing(self) -> list[JsonObject]:
        return [
            {"name": str(plugin.path), "active": plugin.active, "dynamic": plugin.manifest.dynamic}
            for plugin in self._plugins
        ]

    # Starting

    async def introduce_all(self, paths: Sequence[Path], given: Given) -> None:
        """At the node's own start, before its sockets are open: manifests and option values.

        A plugin that fails is left out and the node goes on, but what is wrong on the command line
        itself raises NotStarted.
        """
        for path in paths:
            if not os.access(path, os.X_OK):
                raise NotStarted(f"--plugin={path}: not executable")
            with contextlib.suppress(NotStarted):
                await self._introduce(path)
        unknown = next((name for name in given if self.option(name) is None), None)
        if unknown is not None:
            raise NotStarted(f"--{unknown}: unrecognized option")
        for plugin in tuple(self._plugins):
            mine = {name: values for name, values in given.items() if name in plugin.manifest.options}
            self._configure(plugin, mine, "cmdline")

    async def initialise_all(self) -> None:
        """Then `init`, during which a plugin may call the node."""
        for plugin in tuple(self._plugins):
            with contextlib.suppress(NotStarted):
                await self._initialise(plugin, startup=True)

    async def start(self, path: Path, given: Given) -> None:
        """`plugin start`: raises RpcFailure with lightningd's reason."""
        if not os.access(path, os.X_OK):
            raise RpcFailure(INVALID_PARAMS, f"{path} is not executable: no such file, or no permission")
        if any(plugin.path == path for plugin in self._plugins):
            raise RpcFailure(INVALID_PARAMS, f"{path}: already registered")
        try:
            plugin = await self._introduce(path)
            if not plugin.manifest.dynamic:
                raise self._refuse(plugin, "Not a dynamic plugin")
            self._configure(plugin, given, "pluginstart")
            await self._initialise(plugin, startup=False)
        except NotStarted as problem:
            raise RpcFailure(PLUGIN_ERROR, f"{path}: {problem}") from None

    async def _introduce(self, path: Path) -> Plugin:
        """Start the process and read its manifest."""
        try:
            process = await PluginProcess.spawn(path, self._surroundings.directory, self._log)
        except OSError as problem:
            raise NotStarted(str(problem)) from None
        plugin = Plugin(process, Manifest())
        answer = await self._ask(plugin, "getmanifest", {"allow-deprecated-apis": False})
        try:
            manifest = Manifest.read(answer)
            self._refuse_clashes(manifest)
        except BadManifest as problem:
            raise self._refuse(plugin, str(problem)) from None
        if manifest.disabled is not None:
            raise self._refuse(plugin, f"disabled itself: {manifest.disabled}")
        plugin.manifest = manifest
        self._say_what_never_comes(plugin)
        self._plugins.append(plugin)
        self._watch(plugin)
        return plugin

    def _configure(self, plugin: Plugin, given: Given, source: str) -> None:
        try:
            plugin.values = plugin.manifest.values(given)
        except BadManifest as problem:
            raise self._refuse(plugin, str(problem)) from None
        plugin.sources = dict.fromkeys(given, source)

    async def _initialise(self, plugin: Plugin, *, startup: bool) -> None:
        """An error in the reply is no refusal: lightningd looks for `disable` only."""
        configuration = self._surroundings.configuration(startup, self.features)
        asked = {"options": plugin.values, "configuration": configuration}
        result = (await self._ask(plugin, "init", asked)).get("result")
        if isinstance(result, dict) and "disable" in result:
            raise self._refuse(plugin, f"disabled itself at init: {result['disable']}")
        plugin.active = True

    async def _ask(self, plugin: Plugin, method: str, params: JsonObject) -> JsonObject:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await plugin.process.request(method, params)
        except TimeoutError:
            raise self._refuse(plugin, f"timed out before replying to {method}") from None
        except RpcFailure:
            raise self._refuse(plugin, f"exited before replying to {method}") from None

    def _refuse(self, plugin: Plugin, reason: str) -> NotStarted:
        plugin.process.kill(reason)
        self._forget(plugin)
        return NotStarted(reason)

    def _say_what_never_comes(self, plugin: Plugin) -> None:
        hooks = plugin.manifest.hooks.keys() - self._surroundings.hooks
        for name in sorted(hooks | (plugin.manifest.subscriptions - self._surroundings.topics)):
            self._log.write("unusual", "loopback", f"{plugin.path.name} waits for {name}: it never comes here")

    def _refuse_clashes(self, manifest: Manifest) -> None:
        for name in manifest.methods:
            if name in self._surroundings.reserved() or self.method(name) is not None:
                raise BadManifest(f'Could not register method "{name}", it is already registered')
        for name in manifest.options:
            if self.option(name) is not None:
                raise BadManifest(f'Option "{name}" already registered')
        for place, bits in manifest.features.items():
            if bits & self.features.get(place, 0):
                raise BadManifest("Custom featurebits already present")

    # Ending

    async def stop(self, name: str) -> str:
        """`plugin stop`, by path or file name; returns the file name."""
        plugin = next((p for p in self._plugins if name in (str(p.path), p.path.name)), None)
        if plugin is None:
            raise RpcFailure(INVALID_PARAMS, f"Could not find plugin {name}")
        if not plugin.manifest.dynamic:
            raise RpcFailure(INVALID_PARAMS, f"{name} cannot be managed when lightningd is up")
        await self._end(plugin)
        return plugin.path.name

    async def stop_all(self) -> None:
        await asyncio.gather(*(self._end(plugin) for plugin in tuple(self._plugins)))

    async def _end(self, plugin: Plugin) -> None:
        """A plugin that subscribed to `shutdown` ends by itself, in its own time but not for ever."""
        if "shutdown" in plugin.manifest.subscriptions:
            plugin.process.notify("shutdown", {})
            try:
                async with asyncio.timeout(SHUTDOWN_SECONDS):
                    await plugin.process.wait()
            except TimeoutError:
                self._log.write("unusual", "loopback", f"{plugin.path}: timeout on shutdown")
        plugin.process.kill("stopped by lightningd via RPC")
        self._forget(plugin)
        await plugin.process.wait()

    def _watch(self, plugin: Plugin) -> None:
        async def forget_when_dead() -> None:
            await plugin.process.wait()
            self._forget(plugin)

        watcher = asyncio.create_task(forget_when_dead())
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    def _forget(self, plugin: Plugin) -> None:
        if plugin in self._plugins:
            self._plugins.remove(plugin)

    # Options while running

    async def set_option(self, name: str, value: Any) -> None:
        """`setconfig`: raises RpcFailure for an option that is not dynamic, or the plugin's own no."""
        plugin = self.option(name)
        if plugin is None or not plugin.manifest.options[name].dynamic:
            raise RpcFailure(INVALID_PARAMS, f"config: Not a dynamic option: invalid token '{name}'")
        option = plugin.manifest.options[name]
        try:
            parsed = [option.parse(v) for v in value] if option.multi else option.parse(value)
        except ValueError as problem:
            raise RpcFailure(INVALID_PARAMS, f"Error setting {name}: {problem}") from None
        answer = await plugin.process.request("setconfig", {"config": name, "val": str(value)})
        if "error" in answer:
            raise RpcFailure(int(answer["error"]["code"]), str(answer["error"]["message"]))
        plugin.values[name] = parsed
        plugin.sources[name] = "setconfig transient"

    def shown(self, name: str) -> JsonObject:
        """One option as `listconfigs` shows it."""
        plugin = self.option(name)
        assert plugin is not None  # noqa: S101  (asked for names that listconfigs found)
        option = plugin.manifest.options[name]
        fields = option.shown(plugin.values.get(name))
        row = {**fields, "source": plugin.sources.get(name, "default"), "plugin": str(plugin.path)}
        return {**row, "dynamic": True} if option.dynamic else row
