"""One daemon as a child process: start it, know when it answers, end it.

Knows lightningd's command line only as a list of words that it is given, so that the stand-in and
the real node are started, stopped and killed by the same lines.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pyln.client import LightningRpc, RpcError

from lyceum.errors import NodeError

START_SECONDS = 120
STOP_SECONDS = 40
POLL_SECONDS = 0.1
TAIL_LINES = 15


def environment() -> dict[str, str]:
    """Ours, with this interpreter first on PATH: a plugin's `env python3` must find the package."""
    bin_directory = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([bin_directory, os.environ.get("PATH", os.defpath)])}


def tail(path: Path) -> str:
    """The last lines of a log, for the person who has to find out what went wrong."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-TAIL_LINES:])


@dataclass
class Daemon:
    """A child process whose output goes to `console`."""

    name: str
    argv: Sequence[str]
    console: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def spawn(self) -> None:
        """In a session of its own: the person's Ctrl-C is for us, and we end it in order."""
        self.console.parent.mkdir(parents=True, exist_ok=True)
        with self.console.open("ab") as console:
            self.process = subprocess.Popen(  # noqa: S603  (our own words, no shell)
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )

    def await_ready(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if not self.running:
                raise NodeError(f"{self.name} ended while starting:\n{tail(self.console)}")
            if time.monotonic() > deadline:
                self.kill()
                raise NodeError(f"{self.name} gave no answer in {START_SECONDS} s:\n{tail(self.console)}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def end(self) -> None:
        """SIGTERM unless it is already on its way out, then SIGKILL if it will not go."""
        if self.process is None:
            return
        try:
            self.process.terminate()
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass
class ProcessNode:
    """A `Node`: a daemon with a Lightning RPC socket. `ready` judges its getinfo answer."""

    name: str
    daemon: Daemon
    rpc_path: Path
    log_path: Path
    ready: Callable[[Mapping[str, Any]], bool]

    @property
    def rpc(self) -> LightningRpc:
        return LightningRpc(str(self.rpc_path))

    @cached_property
    def node_id(self) -> str:
        return str(self.rpc.getinfo()["id"])

    def balance_msat(self) -> int:
        return sum(int(channel["our_amount_msat"]) for channel in self.rpc.listfunds()["channels"])

    def start(self) -> None:
        if self.daemon.running:
            return
        self.daemon.spawn()
        self.daemon.await_ready(self._answers)

    def stop(self) -> None:
        if not self.daemon.running:
            return
        try:
            self.rpc.stop()
        except (OSError, ValueError):
            self.daemon.end()
        self._await_end()

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        self.daemon.kill()

    def _answers(self) -> bool:
        """It has its say in `getinfo`, and every plugin is through its init."""
        try:
            plugins = self.rpc.plugin_list()["plugins"]
            return self.ready(self.rpc.getinfo()) and all(plugin["active"] for plugin in plugins)
        except (OSError, RpcError):
            return False

    def _await_end(self) -> None:
        if self.daemon.process is None:
            return
        try:
            self.daemon.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.daemon.end()
