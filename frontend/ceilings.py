"""What a mission can spend at most whatever its own budget says: the tightest budget above it, in words."""

from __future__ import annotations

import uuid
from decimal import Decimal

from agents.models import Mission
from budgets import selectors as budgets
from budgets import services as accounts
from budgets.types import Balance, Level, WindowKind
from frontend.templatetags.amounts import money_text

_WHOSE = {
    Level.ORGANISATION: "The organisation",
    Level.TEAM: "The team",
    Level.AGENT: "The agent",
}
_WINDOWS = {
    WindowKind.TOTAL: "in total",
    WindowKind.DAY: "a day",
    WindowKind.WEEK: "a week",
    WindowKind.MONTH: "a month",
}


def ceiling_of_team(team_id: uuid.UUID) -> Balance | None:
    """For a mission that is yet to be made in the team."""
    account_id = accounts.account_of(subject_type="team", subject_id=team_id)
    return budgets.ceiling(account_id=account_id) if account_id else None


def tighter_than(mission: Mission, wanted: Decimal) -> str:
    """Why the mission can't spend what it is meant to, as a sentence; empty when it can."""
    above = _account_above(mission)
    found = budgets.ceiling(account_id=above) if above else None
    if found is None or found.left.money is None or found.left.money >= wanted:
        return ""
    return f"{in_words(found)}: this mission can't spend more."


def in_words(ceiling: Balance) -> str:
    """ "The team Finance operations has $100.00 a month and $87.20 of it left"."""
    whose = f"{_WHOSE.get(ceiling.level, 'The budget')} {ceiling.name}"
    limit = money_text(ceiling.limits.money or Decimal(0), ceiling.currency)
    left = money_text(ceiling.left.money or Decimal(0), ceiling.currency)
    has = f"{whose} has {limit} {_WINDOWS[ceiling.window]}"
    return has if left == limit else f"{has} and {left} of it left"


def _account_above(mission: Mission) -> uuid.UUID | None:
    return mission.agent.account_id or accounts.account_of(subject_type="team", subject_id=mission.team_id)
