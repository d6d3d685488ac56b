"""`manage.py secrets`: under which key the credentials of servers are wrapped, and wrapping them with the new one."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Count

from agents.models import ServerCredential
from agents.servers.credentials import rewrap_credentials
from controlplane.common.envelope import wrapping_keys


class Command(BaseCommand):
    help = "Credentials of MCP servers: which keys wrap them, and `rotate` to wrap them with the first of them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", choices=["status", "rotate"])
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["what"] == "status":
            self._status(as_json=options["json"])
        else:
            self._rotate(as_json=options["json"])

    def _status(self, *, as_json: bool) -> None:
        counts = dict(ServerCredential.objects.values_list("key_id").annotate(Count("pk")).order_by("key_id"))
        configured = [key.id for key in wrapping_keys()]
        lost = {key: count for key, count in counts.items() if key not in configured}
        if as_json:
            self.stdout.write(json.dumps({"keys": configured, "wrapped": counts, "lost": lost}))
            return
        for position, key in enumerate(configured):
            role = "wraps what is set now" if position == 0 else "opens what was wrapped before"
            self.stdout.write(f"{key}  {counts.get(key, 0):>5}  {role}")
        for key, count in lost.items():
            self.stdout.write(f"{key}  {count:>5}  not configured: these can't be opened")

    def _rotate(self, *, as_json: bool) -> None:
        done = rewrap_credentials()
        if as_json:
            self.stdout.write(
                json.dumps(
                    {
                        "key": done.key_id,
                        "rewrapped": done.rewrapped,
                        "already": done.already,
                        "unreadable": done.unreadable,
                    }
                )
            )
        else:
            self.stdout.write(f"{done.rewrapped} wrapped with {done.key_id} now, {done.already} were already.")
        if done.unreadable:
            raise CommandError(
                f"Not opened by any configured key: {', '.join(done.unreadable)}. Put the earlier key back behind the "
                "new one in REMIT_SECRETS_KEY and repeat, or set these credentials anew."
            )
