"""`manage.py signin --user E-MAIL`: prints a one-time sign-in link; with an option, takes a lost second factor away."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from controlplane.tenancy import second_factor, services
from controlplane.tenancy.models import User


class Command(BaseCommand):
    help = "Print a sign-in link for a person. It works once, for twelve hours."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", required=True, metavar="E-MAIL")
        parser.add_argument(
            "--reset-second-factor", action="store_true", help="for who lost their phone and their recovery codes"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(email__iexact=options["user"], is_active=True).first()
        if user is None:
            raise CommandError(f"Nobody active has the address {options['user']}.")
        if options["reset_second_factor"]:
            second_factor.reset_by_operator(user=user)
        link = f"{settings.CONFIG.public_url}/sign-in/{services.make_sign_in_link(user=user)}"
        if not options["json"]:
            # Two installations may run on one machine: a link for the other one must not pass unnoticed.
            config = settings.CONFIG
            self.stderr.write(f"For {user.email} on the Remit at {config.public_url}, state folder {config.state_dir}:")
        self.stdout.write(json.dumps({"user": user.email, "link": link}) if options["json"] else link)
