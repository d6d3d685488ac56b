"""`./manage.py seed_size`: an organisation as large as asked for, to try pages and upgrades on."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agents.catalogue.size import Size, seed
from controlplane.common.errors import RemitError


class Command(BaseCommand):
    help = (
        "Fill an empty database with the organisation “Size”: 10000x1000000 is missions x actions. Refused where any "
        "organisation is: it holds a table of the ledger."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--size", default="10000x1000000", help="missions x actions (default 10000x1000000)")
        parser.add_argument("--escalations", type=int, default=5000, help="open questions (default 5000)")
        parser.add_argument("--audit", type=int, help="audit entries (default: a fifth of the actions)")

    def handle(self, *args: Any, **options: Any) -> None:
        missions, cross, actions = str(options["size"]).partition("x")
        if not cross or not missions.isdigit() or not actions.isdigit() or not int(missions) or not int(actions):
            raise CommandError("--size reads MISSIONSxACTIONS, both above 0, such as 10000x1000000.")
        audit = options["audit"] if options["audit"] is not None else int(actions) // 5
        size = Size(int(missions), int(actions), max(options["escalations"], 0), max(audit, 0))
        try:
            seed(size, self.stdout.write)
        except RemitError as error:
            raise CommandError(f"{error.message} {' '.join(error.remedies)}") from error
        self.stdout.write("Sign in with: ./manage.py signin --user nadia@size.example")
