"""`manage.py token issue|revoke`: credentials from the command line of whoever runs this Remit."""

from __future__ import annotations

import json
import uuid
from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import credentials
from controlplane.tenancy.models import Organisation, Token, TokenKind, User
from controlplane.tenancy.types import Permission, Principal, system_principal


class Command(BaseCommand):
    help = "Issue and revoke tokens of people (pat), services (svc) and agents (agt). Runs get theirs when they start."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        issue = actions.add_parser("issue", help="print a new token; it is shown this once")
        issue.add_argument("--kind", required=True, choices=["pat", "svc", "agt"])
        issue.add_argument("--organisation", required=True, metavar="SLUG")
        issue.add_argument("--user", metavar="E-MAIL", help="whose it is (pat)")
        issue.add_argument("--agent", metavar="SLUG", help="which agent's it is (agt)")
        issue.add_argument("--name", default="Command line", help="how people recognise it (default: %(default)s)")
        issue.add_argument("--days", type=int, default=30, help="valid for so many days (default: %(default)s)")
        issue.add_argument(
            "--scope",
            action="append",
            choices=[item.value for item in Permission],
            metavar="PERMISSION",
            help="only this permission, for example mission.view; may be repeated (pat, svc)",
        )
        revoke = actions.add_parser("revoke", help="make a token useless at once")
        revoke.add_argument("--id", required=True, type=uuid.UUID, help="as `issue` printed it")
        for action in (issue, revoke):
            action.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["action"] == "issue":
                self._issue(options)
            else:
                self._revoke(options)
        except RemitError as error:
            details = "".join(f"\n  {item.pointer.strip('/')}: {item.message}" for item in error.errors)
            raise CommandError(error.message + details) from error

    def _issue(self, options: dict[str, Any]) -> None:
        organisation = Organisation.objects.filter(slug=options["organisation"]).first()
        if organisation is None:
            raise CommandError(f"There is no organisation “{options['organisation']}”.")
        operator = system_principal(organisation_id=organisation.pk, name="Operator")
        token, text = _issue(operator, options)
        facts = {"token": text, "id": str(token.pk), "kind": token.kind, "expires_at": token.expires_at.isoformat()}
        self.stdout.write(
            json.dumps(facts) if options["json"] else f"{text}\n(id {token.pk}, until {token.expires_at:%F})"
        )

    def _revoke(self, options: dict[str, Any]) -> None:
        token = Token.objects.filter(pk=options["id"]).first()
        if token is None:
            raise CommandError("There is no such token.")
        operator = system_principal(organisation_id=token.organisation_id, name="Operator")
        credentials.revoke_token(principal=operator, token_id=token.pk)
        self.stdout.write(json.dumps({"id": str(token.pk), "revoked": True}) if options["json"] else "Revoked.")


def _issue(operator: Principal, options: dict[str, Any]) -> tuple[Token, str]:
    scopes = {Permission(item) for item in options["scope"]} if options["scope"] else None
    name, expires_at = options["name"], _expiry(options["days"])
    for option, kind in (("user", TokenKind.PERSON), ("agent", TokenKind.AGENT)):
        if options[option] and options["kind"] != kind:
            raise CommandError(f"--{option} goes with --kind {kind.value} only; a token of this kind is not theirs.")
    match TokenKind(options["kind"]):
        case TokenKind.PERSON:
            return credentials.issue_personal_token(
                principal=operator, user=_person(options["user"]), name=name, expires_at=expires_at, scopes=scopes
            )
        case TokenKind.AGENT:
            if scopes is not None or not options["agent"]:
                raise CommandError(
                    "A token of an agent needs --agent, and takes no --scope: its mission says what it may."
                )
            agent = credentials.find_agent(organisation_id=operator.organisation_id, slug=options["agent"])
            return credentials.issue_agent_token(principal=operator, agent=agent, name=name, expires_at=expires_at)
        case _:
            return credentials.issue_service_token(principal=operator, name=name, expires_at=expires_at, scopes=scopes)


def _expiry(days: int) -> datetime:
    if not 1 <= days <= credentials.LONGEST_LIFE.days:
        raise CommandError(f"--days: from 1 to {credentials.LONGEST_LIFE.days}.")
    return now() + timedelta(days=days)


def _person(email: str | None) -> User:
    if not email:
        raise CommandError("A personal token needs --user.")
    user = User.objects.filter(email__iexact=email, is_active=True).first()
    if user is None:
        raise CommandError(f"Nobody active has the address {email}.")
    return user
