"""The wording of a mission, and what another wording would change: in sentences, each saying whether it widens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import Final

from agents.choices import ChangeKind, Importance
from agents.grant_changes import Change, grant_changes
from agents.grants import Grant, parse_grants
from agents.models import Mission, MissionVersion
from budgets import selectors as budgets
from budgets.types import WindowKind

MOST_BUDGET: Final = 1_000_000
DEADLINES_BEFORE: Final = 2200  # pages could not show the last days of the calendar in every zone
_IMPORTANCE = list(Importance)


@dataclass(frozen=True)
class Remit:
    """The wording of a mission: what a version stores. `budget_money` is in the organisation's currency."""

    goal: str
    criteria: Sequence[str]
    grants: Sequence[Grant]
    budget_money: Decimal
    deadline: datetime
    budget_tokens: int | None = None
    budget_steps: int | None = None
    importance: Importance = Importance.NORMAL
    residency: str = ""


def remit_of(version: MissionVersion) -> Remit:
    """As the version was worded."""
    return Remit(
        goal=version.goal,
        criteria=list(version.criteria),
        grants=parse_grants(version.grants),
        budget_money=version.budget_money,
        deadline=version.deadline,
        budget_tokens=version.budget_tokens,
        budget_steps=version.budget_steps,
        importance=Importance(version.importance),
        residency=version.residency,
    )


def remit_in_force(mission: Mission, version: MissionVersion) -> Remit:
    """The version with the budget as it is today: requests for more and finance may have moved its limits since."""
    worded = remit_of(version)
    if mission.account_id is None:
        return worded
    limits = budgets.limits_decided(account_id=mission.account_id, window=WindowKind.TOTAL)
    if limits is None:
        return worded
    money = worded.budget_money if limits.money is None else limits.money
    return replace(worded, budget_money=money, budget_tokens=limits.tokens, budget_steps=limits.steps)


def widens(before: Remit, after: Remit) -> bool:
    """Whether the change needs a second person: more of anything, or another goal."""
    return any(change.kind is ChangeKind.WIDENS for change in changes(before, after, currency=""))


def changes(before: Remit, after: Remit, *, currency: str, zone: tzinfo = UTC) -> list[Change]:
    """Every difference, what widens first. Moments are said in `zone`."""
    found = [
        *_goal(before, after),
        *grant_changes(before.grants, after.grants),
        *_money(before, after, currency),
        *_count("steps", before.budget_steps, after.budget_steps),
        *_count("tokens", before.budget_tokens, after.budget_tokens),
        *_deadline(before, after, zone),
        *_importance(before, after),
        *_criteria(before.criteria, after.criteria),
        *_residency(before, after),
    ]
    order = list(ChangeKind)
    return sorted(found, key=lambda change: order.index(change.kind))


def _goal(before: Remit, after: Remit) -> list[Change]:
    if before.goal.strip() == after.goal.strip():
        return []
    return [Change(ChangeKind.WIDENS, "The goal is worded differently", "Another goal always counts as more.")]


def _money(before: Remit, after: Remit, currency: str) -> list[Change]:
    if before.budget_money == after.budget_money:
        return []
    kind = ChangeKind.WIDENS if after.budget_money > before.budget_money else ChangeKind.NARROWS
    new, old = (_amount(remit.budget_money) for remit in (after, before))
    return [Change(kind, f"The budget is {new} {currency}, was {old} {currency}")]


def _count(unit: str, before: int | None, after: int | None) -> list[Change]:
    if before == after:
        return []
    more = before is not None and (after is None or after > before)
    kind = ChangeKind.WIDENS if more else ChangeKind.NARROWS
    return [Change(kind, f"{_at_most(after, unit)}, was {_at_most(before, unit).lower()}")]


def _deadline(before: Remit, after: Remit, zone: tzinfo) -> list[Change]:
    if before.deadline == after.deadline:
        return []
    kind = ChangeKind.WIDENS if after.deadline > before.deadline else ChangeKind.NARROWS
    seconds = abs((after.deadline - before.deadline).total_seconds()) < 60
    new, old = (_moment(remit.deadline, zone, seconds=seconds) for remit in (after, before))
    return [Change(kind, f"It ends on {new}, was {old}")]


def _importance(before: Remit, after: Remit) -> list[Change]:
    if before.importance == after.importance:
        return []
    rises = _IMPORTANCE.index(after.importance) > _IMPORTANCE.index(before.importance)
    kind = ChangeKind.WIDENS if rises else ChangeKind.NARROWS
    return [Change(kind, f"Its importance is {after.importance.label.lower()}, was {before.importance.label.lower()}")]


def _criteria(before: Sequence[str], after: Sequence[str]) -> list[Change]:
    gone, new = Counter(before) - Counter(after), Counter(after) - Counter(before)
    found = [Change(ChangeKind.REWORDS, f"Also accepted only when: “{text}”") for text in new.elements()]
    found += [Change(ChangeKind.REWORDS, f"No longer a criterion: “{text}”") for text in gone.elements()]
    if not found and list(before) != list(after):
        found.append(Change(ChangeKind.REWORDS, "The criteria stand in another order"))
    return found


def _residency(before: Remit, after: Remit) -> list[Change]:
    if before.residency == after.residency:
        return []
    new, old = (remit.residency or "nowhere in particular" for remit in (after, before))
    return [Change(ChangeKind.REWORDS, f"Its data stays {new}, was {old}")]


def _amount(amount: Decimal) -> str:
    return f"{amount:,.2f}" if amount == round(amount, 2) else f"{amount.normalize():,f}"


def _at_most(count: int | None, unit: str) -> str:
    return f"Any number of {unit}" if count is None else f"At most {count:,} {unit}"


def _moment(moment: datetime, zone: tzinfo, *, seconds: bool) -> str:
    local = moment.astimezone(zone)
    return f"{local.day} {local:%B %Y at %H:%M:%S %Z}" if seconds else f"{local.day} {local:%B %Y at %H:%M %Z}"
