"""`manage.py prepare`: migrations, static files and demo data, as one step before anything serves."""

from __future__ import annotations

import dataclasses
import json
import os
from argparse import ArgumentParser
from typing import Any

import psycopg
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from controlplane.embedded import preparation


class Command(BaseCommand):
    help = (
        "Bring the database and the static files up to this version. Safe to run again; does nothing when all is done."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-demo", action="store_true", help="leave an empty installation empty")
        parser.add_argument(
            "--report", type=int, metavar="FD", help="write a JSON report, with sign-in links, to this pipe"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            preparation.check_database()
            done = self._prepare(options)
        except (psycopg.OperationalError, OperationalError) as error:
            reason = " ".join(str(error).split())
            raise CommandError(f"The database does not answer: {reason} Check DATABASE_URL.") from error
        for sentence in done:
            self.stdout.write(sentence)
        if options["report"] is not None:
            people = [dataclasses.asdict(person) for person in preparation.demo_sign_ins()]
            with os.fdopen(options["report"], "w") as report:
                json.dump({"done": done, "people": people}, report)

    def _prepare(self, options: dict[str, Any]) -> list[str]:
        done = []
        if count := preparation.migrate():
            done.append(f"Applied {count} migrations.")
        if preparation.collect_static():
            done.append("Collected the static files.")
        if not options["no_demo"] and preparation.load_demo():
            done.append("Loaded the demo.")
        return done
