"""`manage.py signin --user E-MAIL`: prints a one-time sign-in link."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from controlplane.tenancy import services
from controlplane.tenancy.models import User


class Command(BaseCommand):
    help = "Print a sign-in link for a person. It works once, for twelve hours."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", required=True, metavar="E-MAIL")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(email__iexact=options["user"], is_active=True).first()
        if user is None:
            raise CommandError(f"Nobody active has the address {options['user']}.")
        link = f"{settings.CONFIG.public_url}/sign-in/{services.make_sign_in_link(user=user)}"
        self.stdout.write(json.dumps({"user": user.email, "link": link}) if options["json"] else link)
