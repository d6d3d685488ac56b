"""Routes whose approvals nobody could ever give, so that whoever sets them reads it before a question is lost."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from controlplane.tenancy.types import Principal
from governance.approval_models import ApprovalRoute
from governance.escalations.electorate import deciders_of, members_of


def never_settled(principal: Principal, routes: Sequence[ApprovalRoute]) -> dict[uuid.UUID, str]:
    """A sentence for each that needs more approvals than there are people to give them, in the team that has most of
    them. Two queries. `routes` are the principal's own."""
    groups = {group for row in routes for group in (row.group_id, row.next_group_id) if group}
    deciders, members = deciders_of(principal.organisation_id), members_of(groups)
    said = {}
    for row in routes:
        teams = [row.team_id] if row.team_id else list(deciders)
        asked = [row.group_id] if row.next_seconds is None else [row.group_id, row.next_group_id]
        whom = None if None in asked else {user for group in asked if group for user in members.get(group, ())}
        number = max(
            (_number(deciders.get(None, set()) | deciders.get(team, set()), whom) for team in teams), default=0
        )
        if number < row.needed:
            said[row.pk] = _in_words(row.needed, number)
    return said


def _number(people: set[uuid.UUID], whom: set[uuid.UUID] | None) -> int:
    return len(people if whom is None else people & whom)


def _in_words(needed: int, number: int) -> str:
    approvals, them = ("1 approval is", "it") if needed == 1 else (f"{needed} approvals are", "them")
    people = {0: "nobody", 1: "only 1 person"}.get(number, f"only {number} people")
    return f"{approvals} needed, but {people} can give {them}: each such question ends refused at its deadline."
