"""`manage.py audit`: check the trail (exit code 1 when anything is wrong), export it, replace its signing key."""

from __future__ import annotations

import json
import re
import time
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from controlplane.audit import exporting
from controlplane.audit.events import Event
from controlplane.audit.keys import present, rotate, signer
from controlplane.audit.models import SigningKey
from controlplane.audit.services import Subject, record
from controlplane.audit.verification import Anchor, Report, verify_organisation
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import system_principal

_ANCHOR = re.compile(r"([1-9][0-9]{0,17}):(sha256:[0-9a-f]{64})\Z")


class Command(BaseCommand):
    help = "Check or export the audit trail. Exit code of verify: 0 intact, 1 broken or not checkable."

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
        export = actions.add_parser("export", help="write entries, signatures and the verifier into one zip file")
        export.add_argument("--organisation", metavar="SLUG", required=True)
        export.add_argument("--from", dest="start", metavar="NUMBER|DATE", type=_bound, help="default: the first entry")
        export.add_argument(
            "--to", dest="end", metavar="NUMBER|DATE", type=_bound, help="both included; default: the head"
        )
        export.add_argument("--output", metavar="FILE", required=True, type=Path)
        key = actions.add_parser("key", help="print the ids and public keys that sign; note them elsewhere")
        rotation = actions.add_parser("rotate-key", help="replace the signing key; the old one endorses the new one")
        for action in (export, key, rotation):
            action.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        {
            "verify": self._verify,
            "export": self._export,
            "key": self._keys,
            "rotate-key": self._rotate,
        }[options["action"]](options)

    def _export(self, options: dict[str, Any]) -> None:
        organisation = Organisation.objects.filter(slug=options["organisation"]).first()
        if organisation is None:
            raise CommandError(f"There is no organisation “{options['organisation']}”.")
        end = options["end"]
        if isinstance(end, datetime):
            end += timedelta(days=1)
        try:
            wanted = exporting.range_of(organisation_id=organisation.pk, start=options["start"], end=end)
            with transaction.atomic():
                record(
                    event=Event.AUDIT_EXPORT_ASKED,
                    actor=system_principal(organisation_id=organisation.pk, name="Operator"),
                    subject=Subject("organisation", organisation.pk, organisation.name),
                    payload=asdict(wanted),
                )
            exporting.export_to(organisation_id=organisation.pk, target=options["output"], wanted=wanted)
        except (RemitError, OSError) as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            facts = {"file": str(options["output"]), **asdict(wanted), "signed_by": str(signer().id)}
            self.stdout.write(json.dumps(facts))
            return
        self.stdout.write(f"{options['output']}: entries {wanted.first} to {wanted.last}, signed by {signer().id}")

    def _keys(self, options: dict[str, Any]) -> None:
        signing = present()
        if options["json"]:
            self.stdout.write(
                json.dumps({"keys": [_key(key, signing) for key in SigningKey.objects.order_by("created_at")]})
            )
            return
        for key in SigningKey.objects.order_by("created_at"):
            mark = "signs now" if key.pk == signing else "signed before"
            self.stdout.write(f"{key.pk}  {key.public_key}  since {key.created_at.isoformat()}  {mark}")

    def _rotate(self, options: dict[str, Any]) -> None:
        new, configured = rotate()
        if options["json"]:
            self.stdout.write(json.dumps({"id": str(new.id), "set_audit_key": configured or None}))
            return
        self.stdout.write(f"The new key is {new.id}. What the old one signed stays checkable.")
        if configured:
            self.stdout.write(f"Set REMIT_AUDIT_KEY to {configured} and start every process again.")

    def _verify(self, options: dict[str, Any]) -> None:
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


def _bound(text: str) -> int | datetime:
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    except ValueError:
        raise ArgumentTypeError("a sequence number, or a day as 2026-01-31 (UTC)") from None


def _key(key: SigningKey, signing: object) -> dict[str, Any]:
    return {
        "id": str(key.pk),
        "public_key": key.public_key,
        "created_at": key.created_at.isoformat(),
        "signs_now": key.pk == signing,
    }


def _anchor(text: str) -> Anchor:
    match = _ANCHOR.match(text)
    if match is None:
        raise ArgumentTypeError("as `audit verify` prints the head: 42:sha256:… with 64 hex digits")
    return Anchor(int(match[1]), match[2])
