"""`manage.py web`: serves pages, API, MCP and websockets from this process."""

from __future__ import annotations

import importlib
import socket
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from controlplane.common.sockets import make_private
from controlplane.embedded.failures import StartError
from controlplane.embedded.listening import listen_tcp, listen_unix
from controlplane.embedded.serving import serve, wait_for_go


class Command(BaseCommand):
    help = "Serve pages, API, MCP and websockets on a TCP port and on the unix socket that local sandboxes reach."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--no-gateway-socket", action="store_true", help="serve TCP only: no sandboxes run here")
        parser.add_argument("--inherit", type=int, nargs="+", metavar="FD", help="listening sockets `up` hands over")
        parser.add_argument("--go", type=int, metavar="FD", help="serve when this pipe is closed at its other end")

    def handle(self, *args: Any, **options: Any) -> None:
        # Loading the views takes longest; where a supervisor is still migrating, it happens beside that.
        importlib.import_module(settings.ROOT_URLCONF)
        if options["go"] is not None:
            wait_for_go(options["go"])
        try:
            serve(self._listeners(options))
        except StartError as error:
            raise CommandError(str(error)) from error

    def _listeners(self, options: dict[str, Any]) -> list[socket.socket]:
        if options["inherit"]:
            return [socket.socket(fileno=descriptor) for descriptor in options["inherit"]]
        listeners = [listen_tcp(options["host"], options["port"])]
        if not options["no_gateway_socket"]:
            path = settings.CONFIG.gateway_socket
            make_private(path.parent)
            if _is_served(path):
                listeners[0].close()
                raise CommandError(
                    f"Another web process serves the sandboxes at {path}. Take --no-gateway-socket for a second one."
                )
            listeners.append(listen_unix(path))
        return listeners


def _is_served(path: Path) -> bool:
    """Whether somebody listens there. Taking the place of one that lives would cut off its sandboxes when we end."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (TimeoutError, BlockingIOError):  # a full backlog is somebody's
            return True
        except OSError:
            return False
    return True
