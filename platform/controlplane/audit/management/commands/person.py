"""`manage.py person erase`: erases a person's data in every organisation, and says what stayed."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.audit import erasure
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Membership, Organisation, User
from controlplane.tenancy.types import system_principal


class Command(BaseCommand):
    help = "Erase a person's name, address and account; what they did stays under a pseudonym."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        erase = actions.add_parser("erase", help="can't be undone; make a backup's end of life part of your plan")
        erase.add_argument("--user", metavar="E-MAIL", required=True)
        erase.add_argument("--yes", action="store_true", help="don't ask")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(email__iexact=options["user"]).first()
        if user is None:
            raise CommandError(f"Nobody has the address {options['user']}.")
        if not options["yes"] and not _agreed(f"Erase {user.name} <{user.email}> for good? Type yes: "):
            raise CommandError("Nothing was erased.")
        home = Membership.objects.filter(user=user).values_list("organisation_id", flat=True).first()
        home = home or Organisation.objects.order_by("pk").values_list("pk", flat=True).first()
        if home is None:
            raise CommandError("There is no organisation.")
        try:
            erased = erasure.erase_person(
                actor=system_principal(organisation_id=home, name="Operator"), user_id=user.pk
            )
        except RemitError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"Erased. {erased.entries} audit entries and {erased.rows} other rows say {erased.pseudonym}."
        )
        for place, count in sorted(erased.kept.items()):
            self.stdout.write(f"  kept: {count} in {place}, which may not be changed")


def _agreed(question: str) -> bool:
    try:
        return input(question) == "yes"
    except EOFError:  # nobody is there to ask: a script needs --yes
        return False
