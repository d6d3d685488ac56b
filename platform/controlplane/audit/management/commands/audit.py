"""`manage.py audit verify`: recomputes the audit trail and exits 1 when anything is wrong with it."""

from __future__ import annotations

import json
import re
import time
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.audit.verification import Anchor, Report, verify_organisation
from controlplane.tenancy.models import Organisation

_ANCHOR = re.compile(r"([1-9][0-9]{0,17}):(sha256:[0-9a-f]{64})\Z")


class Command(BaseCommand):
    help = "Check the audit trail. Exit code 0: intact, 1: broken or not checkable."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        verify = actions.add_parser("verify", help="recompute every payload hash and every link of the chain")
        verify.add_argument("--organisation", metavar="SLUG", help="only this one (default: all)")
        verify.add_argument(
            "--expect",
            metavar="SEQUENCE:HASH",
            type=_anchor,
            help="a head noted earlier that must still be in the chain; with --organisation",
        )
        verify.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["expect"] and not options["organisation"]:
            raise CommandError("--expect belongs to one chain: say which with --organisation.")
        organisations = Organisation.objects.order_by("slug")
        if options["organisation"]:
            organisations = organisations.filter(slug=options["organisation"])
            if not organisations:
                raise CommandError(f"There is no organisation “{options['organisation']}”.")
        started = time.monotonic()
        reports = {
            organisation.slug: verify_organisation(organisation_id=organisation.pk, anchor=options["expect"])
            for organisation in organisations
        }
        intact = all(report.intact for report in reports.values())
        if options["json"]:
            found = {slug: report.as_dict() for slug, report in reports.items()}
            self.stdout.write(json.dumps({"intact": intact, "organisations": found}))
        else:
            for slug, report in reports.items():
                self._say(slug, report)
            self.stdout.write(f"{'Intact' if intact else 'BROKEN'}, in {time.monotonic() - started:.1f} s.")
        if not intact:
            raise SystemExit(1)

    def _say(self, slug: str, report: Report) -> None:
        self.stdout.write(f"{slug}: {report.sealed} sealed, {report.unsealed} not yet sealed")
        if report.oldest_unsealed_at is not None:
            self.stdout.write(f"  oldest not yet sealed: {report.oldest_unsealed_at.isoformat()}")
        if report.head is not None:
            self.stdout.write(f"  head: {report.head.sequence}:{report.head.chain_sha256}")
        if report.flaw_count:
            self.stdout.write(f"  {report.flaw_count} broken; the first:")
        for finding in report.flaws:
            place = "outside the chain" if finding.sequence is None else f"at {finding.sequence}"
            self.stdout.write(f"  - {place}, entry {finding.entry_id or 'unknown'}: {finding.flaw.sentence}")


def _anchor(text: str) -> Anchor:
    match = _ANCHOR.match(text)
    if match is None:
        raise ArgumentTypeError("as `audit verify` prints the head: 42:sha256:… with 64 hex digits")
    return Anchor(int(match[1]), match[2])
