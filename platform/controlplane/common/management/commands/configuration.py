"""`manage.py configuration`: every environment variable Remit reads, as the table of docs/operations.md or as JSON."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, get_origin

from django.core.management.base import BaseCommand
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from controlplane.config import ROOT, Configuration


@dataclass(frozen=True)
class Variable:
    name: str
    default: str
    meaning: str


class Command(BaseCommand):
    help = "List the environment variables Remit reads, with their defaults. Values are never shown."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print a JSON list")

    def handle(self, *args: Any, **options: Any) -> None:
        found = variables()
        self.stdout.write(json.dumps([asdict(item) for item in found]) if options["json"] else table(found))


def variables() -> list[Variable]:
    """In the order of `controlplane.config`."""
    return [_variable(name, field) for name, field in Configuration.model_fields.items()]


def table(found: list[Variable]) -> str:
    rows = [f"| `{item.name}` | {f'`{item.default}`' if item.default else ''} | {item.meaning} |" for item in found]
    return "\n".join(["| Variable | Default | Meaning |", "|---|---|---|", *rows])


def _variable(name: str, field: FieldInfo) -> Variable:
    alias = field.validation_alias
    known = str(alias.choices[0]) if isinstance(alias, AliasChoices) else name.upper()
    default = str(field.default).replace(f"{ROOT}/", "")
    meaning = field.description or ""
    if get_origin(field.annotation) is Literal:
        meaning += f" ({', '.join(str(choice) for choice in get_args(field.annotation))})"
    return Variable(known, default, meaning)
