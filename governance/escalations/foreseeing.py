"""Whom a question would ask that nobody has opened yet, for pages that say so before anything is sent. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Final

from controlplane.common.clock import now
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance.approval_models import ApprovalRoute
from governance.escalations.electorate import Electorate, electorate_of
from governance.escalations.ways import Asked, Way, amount_of, chosen_way, why_not
from governance.models import Action, Escalation
from governance.registry import kind_of
from governance.types import Prepared, Proposal

_STEP: Final = Decimal("0.000001")


@dataclass(frozen=True)
class Foreseen:
    """`above`: from more than that amount on; None: from the start. `group` is empty where every approver of the team
    is asked. `people` could answer now, by name; `in_reach`: enough of them for the approvals that are needed."""

    above: Decimal | None
    group: str
    needed: int
    people: Sequence[User]
    in_reach: bool


def whom_it_asks(
    *, proposer: Principal, kind: str, prepared: Prepared, arguments: Mapping[str, Any] | None = None
) -> Foreseen:
    """For facts as they would be proposed. The way a question takes when it is opened, and who is left on it."""
    asked = _asked(kind, prepared, arguments or {})
    return _foreseen(proposer, prepared, chosen_way(_routes(proposer), asked, seconds=prepared.escalation_ttl_seconds))


def whom_it_asks_by_amount(*, proposer: Principal, proposal: Proposal, argument: str) -> list[Foreseen]:
    """The same where the amount is not typed yet: one answer for the smallest, then one for each amount above which
    it is another. `argument` is what the kind calls its amount, of which the proposal names any. Raises what
    preparing the proposal raises."""
    kind, routes = proposal.kind, _routes(proposer)
    prepared = kind_of(kind).prepare(proposer=proposer, proposal=proposal)
    found: list[Foreseen] = []
    for above in (None, *_limits(routes, _asked(kind, prepared, {argument: "0"}))):
        amount = _STEP if above is None else above.quantize(_STEP, rounding=ROUND_FLOOR) + _STEP
        facts = replace(prepared, amount=amount)
        asked = _asked(kind, facts, {argument: f"{amount:f}"})
        way = chosen_way(routes, asked, seconds=prepared.escalation_ttl_seconds)
        foreseen = _foreseen(proposer, facts, way, above=above)
        if not found or replace(foreseen, above=found[-1].above) != found[-1]:
            found.append(foreseen)
    return found


def _routes(proposer: Principal) -> list[ApprovalRoute]:
    rows = ApprovalRoute.objects.filter(organisation_id=proposer.organisation_id)
    return list(rows.select_related("group", "next_group").order_by("position"))


def _asked(kind: str, prepared: Prepared, arguments: Mapping[str, Any]) -> Asked:
    return Asked(
        kind=kind,
        team_id=prepared.team_id,
        arguments=arguments,
        amount=amount_of(prepared),
        irreversible=prepared.irreversible,
    )


def _limits(routes: Sequence[ApprovalRoute], asked: Asked) -> list[Decimal]:
    """The amounts above which some route begins to fit this question."""
    large = replace(asked, amount=Decimal("Infinity"), arguments=dict.fromkeys(asked.arguments, "Infinity"))
    return sorted({row.amount_above for row in routes if row.amount_above is not None and not why_not(row, large)})


def _foreseen(proposer: Principal, prepared: Prepared, way: Way, *, above: Decimal | None = None) -> Foreseen:
    question = _question(proposer, prepared, way)
    electorate = electorate_of(question)
    if way.next_seconds is not None and electorate.reachable([]) < way.needed:
        question.tier = 2  # as it would be at once: the first tier can't reach the quorum
        electorate = electorate_of(question)
    return Foreseen(
        above=above,
        group=_names_of_groups(question),
        needed=way.needed,
        people=_people(electorate),
        in_reach=electorate.reachable([]) >= way.needed,
    )


def _question(proposer: Principal, prepared: Prepared, way: Way) -> Escalation:
    """Never saved: what the electorate reads of a question."""
    return Escalation(
        organisation_id=proposer.organisation_id,
        action=Action(organisation_id=proposer.organisation_id, proposer_id=proposer.id),
        team_id=prepared.team_id,
        excluded_user_ids=list(prepared.excluded_user_ids),
        group_id=way.group_id,
        next_group_id=way.next_group_id,
        needed=way.needed,
        opened_at=now(),
        tier=1,
    )


def _names_of_groups(question: Escalation) -> str:
    if question.group is None or (question.tier > 1 and question.next_group is None):
        return ""
    if question.tier > 1 and question.next_group is not None:
        return f"{question.group.name} and {question.next_group.name}"
    return question.group.name


def _people(electorate: Electorate) -> list[User]:
    able = [user_id for user_id in electorate.people if electorate.seat_for(user_id, []) is not None]
    return list(User.objects.filter(pk__in=able).order_by("name", "pk"))
