"""`manage.py demo`: the demo organisation. With `--play` also its servers and its first mission, once everything
runs."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agents.catalogue import demo
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Organisation


class Command(BaseCommand):
    help = "Make the demo organisation Northwind with its people and budgets. Safe to repeat."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--play",
            action="store_true",
            help="also install the samples, register their servers, start the first mission",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        organisation = demo.seed_organisation()
        result: dict[str, Any] = {"organisation": organisation.slug, "people": [person.email for person in demo.PEOPLE]}
        if options["play"]:
            result["mission"] = self._play(organisation, quiet=options["json"])
        if options["json"]:
            self.stdout.write(json.dumps(result))

    def _play(self, organisation: Organisation, *, quiet: bool) -> str | None:
        def say(sentence: str) -> None:
            if not quiet:
                self.stdout.write(sentence)

        playing = demo.Playing(organisation, say)
        try:
            mission = playing.play()
        except RemitError as error:
            sentence = " ".join((error.message, *error.remedies))
            playing.fail(sentence)
            raise CommandError(sentence) from error
        except BaseException:
            playing.fail("The installation was interrupted. The next start of Remit goes on with it.")
            raise
        if mission is not None:
            say(f"The mission “{mission.title}” starts.")
        return None if mission is None else str(mission.pk)
