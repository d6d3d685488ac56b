"""Listening sockets, made before the process that serves them: the port is ours, and a restart drops no caller."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

from controlplane.embedded.failures import StartError

BACKLOG = 1024
UNREAD_SECONDS = 30


def listen_tcp(host: str, port: int) -> socket.socket:
    """StartError when the port is taken or not ours to open."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Else what a reader never reads stays in the kernel's buffers, megabytes each, long after we hung up.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise _refused(host, port, error) from error
    return listener


def port_of(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 1 <= port <= 65535:
        raise StartError(f"“{text}” is no port.", "Choose a number from 1 to 65535: `make run PORT=8000`.")
    return port


def listen_unix(path: Path) -> socket.socket:
    """For this user alone. The caller holds the state folder, so a socket found there is a dead one."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartError(
            f"The socket {path} cannot be made: {error.strerror or error}.", "Choose another STATE=folder."
        ) from error
    return listener


def _refused(host: str, port: int, error: OSError | OverflowError) -> StartError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return StartError(
            f"Port {port} on {host} is taken by another program.",
            f"Stop that program, or choose another port: `make run PORT={port + 1}`.",
        )
    if number == errno.EACCES:
        return StartError(
            f"Port {port} needs privileges this user lacks.", "Choose a port above 1023: `make run PORT=8000`."
        )
    return StartError(
        f"Nothing can listen on {host}, port {port}: {error}.",
        "Choose a host of this machine and a port from 1 to 65535.",
    )
