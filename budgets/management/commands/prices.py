"""`manage.py prices import FILE`: add dated rates of one organisation from a JSON or CSV file."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from budgets.prices import import_prices
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import system_principal


class Command(BaseCommand):
    help = "Import prices (per tool call, vCPU-second, GiB-second, model token). Rates never change in place."

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        importer = commands.add_parser("import", help="add the rates of a .json or .csv file, all or none")
        importer.add_argument("file", type=Path)
        importer.add_argument("--organisation", required=True, metavar="SLUG")
        importer.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        organisation = Organisation.objects.filter(slug=options["organisation"]).first()
        if organisation is None:
            raise CommandError(f"There is no organisation {options['organisation']}.")
        path: Path = options["file"]
        form = path.suffix.lower().lstrip(".")
        if form not in ("json", "csv"):
            raise CommandError("The file's name must end with .json or .csv.")
        try:
            count = import_prices(
                actor=system_principal(organisation_id=organisation.pk, name="Operator"),
                raw=path.read_bytes(),
                form=form,
                source=path.name,
            )
        except OSError as error:
            raise CommandError(f"{path} can't be read: {error.strerror}.") from error
        except RemitError as error:
            details = "".join(f"\n  {item}" for item in error.errors)
            raise CommandError(f"{error.message}{details}") from error
        self.stdout.write(json.dumps({"imported": count}) if options["json"] else f"{count} new prices.")
