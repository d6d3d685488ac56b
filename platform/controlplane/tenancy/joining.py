"""What the proof of an address brings: what somebody who only knew the address may hold ends, and people with an open
invitation, or of a domain that the operator mapped to an organisation, join without being added by hand."""

from __future__ import annotations

from collections.abc import Iterator

from allauth.account.models import EmailAddress
from django.conf import settings
from django.db import transaction

from controlplane.tenancy import credentials, invitations, members, sessions, trail
from controlplane.tenancy.models import Membership, Organisation, Team, User
from controlplane.tenancy.types import LEAST_ROLE, system_principal


def may_join(*, email: str) -> bool:
    return bool(invitations.open_for(email)) or any(True for _ in _mapped(email))


def note_proof(*, user: User) -> int | None:
    """The person reads the mail of their address, or the issuer says so. The first time, whoever opened the account may
    only have known the address: its sessions and personal tokens end. Says how many tokens that were; None when the
    address was proved before. Inside the caller's transaction."""
    if EmailAddress.objects.filter(user=user, email__iexact=user.email, verified=True).exists():
        return None
    EmailAddress.objects.update_or_create(
        user=user, email=user.email.lower(), defaults={"primary": True, "verified": True}
    )
    sessions.end_all_of(user)
    return credentials.end_all_of(user)


def join_on_proof(*, user: User) -> None:
    """Accept what waits for the person's proved address. Inside the caller's transaction."""
    for invitation in invitations.open_for(user.email):
        invitations.accept_as(invitation=invitation, user=user)
    for organisation, team in _mapped(user.email):
        if Membership.objects.filter(user=user, organisation=organisation).exists():
            continue  # also those who were deactivated there
        with transaction.atomic():
            members.join(organisation_id=organisation.pk, user=user, roles=[(team, LEAST_ROLE)])
            trail.record(
                event="member.joined",
                actor=system_principal(organisation_id=organisation.pk),
                subject_type="person",
                subject_id=user.pk,
                subject_name=str(user),
                team_id=team.pk if team else None,
                payload={"role": LEAST_ROLE.value, "team": team.name if team else "", "domain": _domain(user.email)},
            )


def _mapped(email: str) -> Iterator[tuple[Organisation, Team | None]]:
    """From `acme.example=acme, lab.example=acme/research`. Rules whose organisation or team is missing do nothing."""
    for rule in filter(None, (part.strip() for part in settings.OIDC_DOMAINS.split(","))):
        domain, _, place = rule.partition("=")
        slug, _, team_slug = place.partition("/")
        if domain.lower() != _domain(email):
            continue
        organisation = Organisation.objects.filter(slug=slug).first()
        team = Team.objects.filter(organisation=organisation, slug=team_slug).first() if team_slug else None
        if organisation is not None and (team is not None or not team_slug):
            yield organisation, team


def _domain(email: str) -> str:
    return email.rpartition("@")[2].lower()
