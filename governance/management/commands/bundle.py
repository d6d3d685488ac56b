"""`manage.py bundle check | load | promote`: policy bundles from a folder of three files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from controlplane.common.errors import RemitError
from controlplane.common.ids import parse_id
from controlplane.tenancy.services import principal_of_user
from controlplane.tenancy.types import Principal
from governance import services
from governance.bundles import BundleSource, check_bundle
from governance.bundles.lifecycle import read_source
from governance.models import PolicyBundle


class Command(BaseCommand):
    help = "Check, load and promote policy bundles. A bundle is promoted by another person than the one who loaded it."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        check = actions.add_parser("check", help="parse, validate, run the golden cases; changes nothing")
        load = actions.add_parser("load", help="store a checked bundle as a draft")
        promote = actions.add_parser("promote", help="make a draft the organisation's rules")
        for sub in (check, load):
            sub.add_argument("folder", type=Path, help="policies.cedar, schema.cedarschema.json, golden.json")
        load.add_argument("--name", help="what people call it; default: the folder's name")
        promote.add_argument("bundle", help="the id that `load` printed")
        for sub in (load, promote):
            sub.add_argument("--user", required=True, help="e-mail of who does this; needs the role admin")
        for sub in (check, load, promote):
            sub.add_argument("--json", action="store_true", help="one JSON object on standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            answer = self._answer(options)
        except RemitError as error:
            details = "".join(f"\n  {item.message}" for item in error.errors)
            raise CommandError(f"{error.message}{details}") from error
        self.stdout.write(json.dumps(answer) if options["json"] else self._in_words(options["action"], answer))

    def _answer(self, options: dict[str, Any]) -> dict[str, Any]:
        match options["action"]:
            case "check":
                problems = check_bundle(_read(options["folder"]))
                if problems:
                    raise CommandError("This bundle can't be used as it is.\n  " + "\n  ".join(problems))
                return {"problems": []}
            case "load":
                source = _read(options["folder"])
                name = options["name"] or options["folder"].resolve().name
                return _described(services.load_bundle(actor=_person(options["user"]), name=name, source=source))
            case _:
                bundle_id = parse_id(options["bundle"])
                if bundle_id is None:
                    raise CommandError("That is not the id of a bundle.")
                return _described(services.promote_bundle(actor=_person(options["user"]), bundle_id=bundle_id))

    def _in_words(self, action: str, answer: dict[str, Any]) -> str:
        if action == "check":
            return "The bundle passes every check and all of its golden cases."
        return f"{answer['name']} ({answer['sha256'][:19]}) is {answer['state']}. Id: {answer['id']}"


def _read(folder: Path) -> BundleSource:
    try:
        return read_source(folder)
    except (OSError, ValueError) as error:
        raise CommandError(f"The folder can't be read as a bundle: {error}") from error


def _person(email: str) -> Principal:
    user = get_user_model().objects.filter(email__iexact=email).first()
    principal = principal_of_user(user=user) if user else None
    if principal is None:
        raise CommandError(f"Nobody with the address {email} is a member of an organisation.")
    return principal


def _described(bundle: PolicyBundle) -> dict[str, Any]:
    return {"id": str(bundle.pk), "name": bundle.name, "sha256": bundle.sha256, "state": bundle.state}
