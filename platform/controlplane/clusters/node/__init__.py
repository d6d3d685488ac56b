"""The local node process. Imports no Django, so that it stays small; knows no missions, runs or people."""

from __future__ import annotations

import sys
from pathlib import Path


def node_command(*, socket: Path, state: Path, gateway_socket: Path | None) -> list[str]:
    """Command line that starts the node as a process of its own, by path: less memory than through manage.py."""
    command = [sys.executable, "-I", str(Path(__file__).parent), "--socket", str(socket), "--state", str(state)]
    if gateway_socket is not None:
        command += ["--gateway-socket", str(gateway_socket)]
    return command
