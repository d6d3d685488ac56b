"""`manage.py organisation`: a new organisation with one team, its budgets and its first administrator."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import available_timezones

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError

from agents.services.onboarding import Person, create_organisation
from budgets.types import Limits
from controlplane.common.errors import RemitError
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Role


class Command(BaseCommand):
    help = "Make an organisation with a first team and an administrator, and print the administrator's sign-in link."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", required=True)
        parser.add_argument("--admin", required=True, metavar="E-MAIL")
        parser.add_argument("--admin-name", default="", help="how the administrator is shown (default: the address)")
        parser.add_argument("--team", default="First team")
        parser.add_argument("--currency", default="USD")
        parser.add_argument("--time-zone", default="UTC")
        parser.add_argument("--monthly-limit", default="100", help="money the whole organisation may spend in a month")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["time_zone"] not in available_timezones():
            raise CommandError(f"“{options['time_zone']}” is no time zone; one is Europe/Berlin.")
        email = options["admin"]
        name = options["admin_name"] or email[:120]
        admin = Person(email, name, (Role.ADMIN, Role.BUILDER), None, options["time_zone"])
        try:
            organisation = create_organisation(
                name=options["name"],
                currency=options["currency"].upper(),
                monthly_limit=Limits(money=Decimal(options["monthly_limit"])),
                teams={options["team"]: Limits()},
                people=(admin,),
                time_zone=options["time_zone"],
            )
        except InvalidOperation as error:
            raise CommandError(f"“{options['monthly_limit']}” is no amount.") from error
        except RemitError as error:
            details = "".join(f"\n  {item}" for item in error.errors)
            raise CommandError(f"{error.message}{details}") from error
        except IntegrityError as error:
            raise CommandError(f"An organisation like “{options['name']}” is there already.") from error
        link = tenancy.make_sign_in_link(user=User.objects.get(email__iexact=email))
        address = f"{settings.CONFIG.public_url}/sign-in/{link}"
        if options["json"]:
            self.stdout.write(json.dumps({"organisation": organisation.slug, "admin": email, "link": address}))
            return
        self.stdout.write(f"Made {organisation.name}. {email} signs in once with\n  {address}")
