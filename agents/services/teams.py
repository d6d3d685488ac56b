"""Teams with their budgets: none works, and none spends, outside its organisation's budget."""

from __future__ import annotations

import uuid
from typing import Final

from django.db import transaction

from budgets import services as budgets
from budgets.types import Level, Limits, WindowKind
from controlplane.common.errors import RemitError
from controlplane.tenancy import members
from controlplane.tenancy.models import Team
from controlplane.tenancy.types import Principal, system_principal

NO_LIMITS: Final = Limits()


def add_team(*, actor: Principal, name: str, limits: Limits = NO_LIMITS) -> Team:
    """A new team of the actor's organisation, with its budget. Raises 403, 422 `team.invalid`, 409 `team.exists`."""
    with transaction.atomic():
        team = members.add_team(principal=actor, name=name)
        budget_of_team(team, limits)
    return team


def budget_of_team(team: Team, limits: Limits = NO_LIMITS) -> uuid.UUID | None:
    """The team's account, opened beneath the organisation's where there is none, with limits of a month. None: the
    organisation has none itself. For callers that have judged access to the team."""
    known = budgets.account_of(subject_type="team", subject_id=team.pk)
    top = budgets.account_of(subject_type="organisation", subject_id=team.organisation_id)
    if known is not None or top is None:
        return known
    try:
        return budgets.open_account(
            actor=system_principal(organisation_id=team.organisation_id),
            organisation_id=team.organisation_id,
            team_id=team.pk,
            parent_id=top,
            level=Level.TEAM,
            name=team.name,
            subject_type="team",
            subject_id=team.pk,
            limits=limits,
            window=WindowKind.MONTH,
        )
    except RemitError as error:
        if error.code != "budget.exists":  # somebody else opened it at the same moment
            raise
        return budgets.account_of(subject_type="team", subject_id=team.pk)
