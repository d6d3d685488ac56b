"""`manage.py worker`: one Celery worker with threads, and the beat beside it in the same process."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.embedded.worker import run


class Command(BaseCommand):
    help = "Run background tasks and their schedule in one process. Larger sites use `celery worker` and `celery beat`."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--threads", type=int, default=4, help="tasks at a time (default 4)")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["threads"] < 1:
            raise CommandError("--threads: at least 1.")
        run(threads=options["threads"])
