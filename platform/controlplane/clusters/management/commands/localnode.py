"""`manage.py localnode`: runs the local node with the places of the configuration. The work is in clusters.node."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from controlplane.clusters.node.server import main
from controlplane.config import configuration


class Command(BaseCommand):
    help = "Own the local sandboxes until stopped. Stopping it kills them."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--isolation", choices=("auto", "bubblewrap", "process"), default="auto")
        parser.add_argument("--limits", choices=("auto", "rlimits"), default="auto")

    def handle(self, *args: Any, **options: Any) -> None:
        places = configuration()
        arguments = ["--socket", str(places.node_socket), "--state", str(places.state_dir / "node")]
        arguments += ["--gateway-socket", str(places.gateway_socket)]
        arguments += ["--isolation", options["isolation"], "--limits", options["limits"]]
        code = main(arguments)
        if code:
            sys.exit(code)
