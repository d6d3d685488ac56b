"""A new organisation with everything it needs to work: teams, budgets, prices, policy, servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.utils.text import slugify

from agents.services.teams import add_team
from budgets import prices
from budgets import services as budgets
from budgets.types import Level, Limits, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.common.errors import FieldError, invalid
from controlplane.tenancy.models import Membership, Organisation, Team, User
from controlplane.tenancy.types import Principal, Role, system_principal
from governance import bundles


@dataclass(frozen=True)
class Person:
    """Someone to be given roles; `team` None: in the whole organisation."""

    email: str
    name: str
    roles: tuple[Role, ...]
    team: str | None = None
    time_zone: str = "UTC"


def create_organisation(
    *,
    name: str,
    currency: str,
    monthly_limit: Limits,
    teams: Mapping[str, Limits],
    people: tuple[Person, ...],
    time_zone: str = "UTC",
) -> Organisation:
    """All of it in one transaction, audited as Remit's own doing: nobody is signed in yet who could have asked.

    Raises 422 `organisation.invalid`, `team.invalid` and `budget.limit_invalid`."""
    slug = slugify(name)[:60]
    if problems := _problems(name, slug, currency, people):
        raise invalid("organisation.invalid", "The organisation can't be made.", *problems)
    with transaction.atomic():
        organisation = Organisation.objects.create(name=name, slug=slug, currency=currency, time_zone=time_zone)
        actor = system_principal(organisation_id=organisation.pk)
        bundles.ensure_baseline()
        prices.load_default_prices(organisation_id=organisation.pk)
        record(event=Event.ORGANISATION_CREATED, actor=actor, subject=Subject("organisation", organisation.pk, name))
        budgets.open_account(
            actor=actor,
            organisation_id=organisation.pk,
            team_id=None,
            parent_id=None,
            level=Level.ORGANISATION,
            name=name,
            subject_type=Level.ORGANISATION.value,
            subject_id=organisation.pk,
            limits=monthly_limit,
            window=WindowKind.MONTH,
        )
        made = {team: add_team(actor=actor, name=team, limits=limits) for team, limits in teams.items()}
        for person in people:
            _add_person(actor, organisation, person, made.get(person.team or ""))
    return organisation


def _problems(name: str, slug: str, currency: str, people: tuple[Person, ...]) -> list[FieldError]:
    found: list[FieldError] = []
    if not slug or len(name) > 120:
        found.append(FieldError("/name", "1 to 120 characters, with letters of a to z or digits for its short name"))
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.isupper()):
        found.append(FieldError("/currency", "three letters such as USD or EUR"))
    for person in people:
        try:
            validate_email(person.email)
        except ValidationError:
            found.append(FieldError("/people", f"“{person.email}” is no e-mail address"))
        if len(person.name) > 120:
            found.append(FieldError("/people", "the name of a person has at most 120 characters"))
    return found


def _add_person(actor: Principal, organisation: Organisation, person: Person, team: Team | None) -> None:
    user = User.objects.filter(email__iexact=person.email).first()
    if user is None:
        user = User.objects.create_user(person.email, None, name=person.name, time_zone=person.time_zone)
    for role in person.roles:
        Membership.objects.get_or_create(organisation=organisation, team=team, user=user, role=role.value)
        record(
            event=Event.MEMBER_ADDED,
            actor=actor,
            subject=Subject("person", user.pk, user.name, team.pk if team else None),
            payload={"role": role.value, "team": team.name if team else ""},
        )
