"""`manage.py up`: lists the supervisor among Django's commands. manage.py itself starts it before Django is loaded."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from controlplane.embedded import supervisor


class Command(BaseCommand):
    help = "Start everything on this machine: embedded servers, migrations, web, worker and local node."
    requires_system_checks: list[str] = []

    def run_from_argv(self, argv: list[str]) -> None:
        sys.exit(supervisor.main(argv[2:]))

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(supervisor.main([]))
