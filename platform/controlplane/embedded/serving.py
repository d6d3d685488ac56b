"""Serving the ASGI application: one uvicorn worker on a TCP port and on the unix socket that sandboxes reach."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from types import FrameType

import uvicorn

from controlplane.common import ending
from controlplane.embedded.web_protocol import LimitedProtocol

STOP_SECONDS = 4


def serve(listeners: Sequence[socket.socket]) -> None:
    """Serve until SIGTERM or SIGINT; open requests get four seconds to end."""
    config = uvicorn.Config(
        "controlplane.asgi:application",
        loop="uvloop",
        http=LimitedProtocol,
        ws="websockets-sansio",
        ws_max_size=64 * 1024,
        ws_max_queue=8,
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=STOP_SECONDS,
        limit_concurrency=1000,
    )
    _Server(config).run(sockets=list(listeners))


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        ending.begin()
        super().handle_exit(sig, frame)


def wait_for_go(descriptor: int) -> None:
    """Block until the supervisor closes its end of the pipe: the schema and the static files are then in place."""
    while os.read(descriptor, 64):
        pass
    os.close(descriptor)
