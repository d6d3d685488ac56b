"""Remit's own processes as supervised services: which command each one is, and how to tell that it is ready."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.embedded.processes import Program

ROOT = Path(__file__).resolve().parents[3]


def _always(_pid: int) -> bool:
    return True


def manage(*arguments: str) -> list[str]:
    """Command line of a Django command."""
    return [sys.executable, str(ROOT / "manage.py"), *arguments]


@dataclass
class OwnProcess:
    """Service of `Child`. Change `argv` and the next start uses it."""

    name: str
    argv: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    stop_seconds: float = 6.0
    descriptors: Sequence[int] = ()
    ready: Callable[[int], bool] = _always
    stop_signal: signal.Signals = field(default=signal.SIGTERM, init=False)

    def program(self) -> Program:
        # Threads would each bring a memory arena of their own; two are enough.
        environment = {"MALLOC_ARENA_MAX": "2", **self.environment}
        return Program(argv=self.argv, log=self.log, environment=environment, descriptors=self.descriptors)

    def is_ready(self, pid: int) -> bool:
        return self.ready(pid)


def answers_health(gateway: Path, host: str) -> bool:
    """True when the web process behind the socket answers /healthz with 200. Waits up to a second for it."""
    request = f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(gateway))
            client.sendall(request.encode())
            return client.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
