"""Whom open questions wait for, by name: the people who may decide them and have not answered yet."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission, Principal
from governance.models import Escalation

NOBODY_KNOWN = "an approver"


def waited_for(principal: Principal, questions: Iterable[Escalation]) -> dict[uuid.UUID, str]:
    """ "Dana", "Dana or Ravi", "Dana or 3 others" by question. One query; none without questions.

    `votes` of each question must be prefetched. The names are those of the principal's own organisation."""
    asked = [row for row in questions if row.organisation_id == principal.organisation_id]
    if not asked:
        return {}
    holders = tenancy.holders_of(principal, Permission.ESCALATION_DECIDE)
    found: dict[uuid.UUID, str] = {}
    for question in asked:
        without = {*question.excluded_user_ids, *(vote.user_id for vote in question.votes.all())}
        names = {
            holder.user_id: holder.name
            for holder in holders
            if holder.team_id in (None, question.team_id) and holder.user_id not in without
        }
        found[question.pk] = names_in_words(list(names.values()))
    return found


def names_in_words(names: Sequence[str]) -> str:
    match names:
        case []:
            return NOBODY_KNOWN
        case [one]:
            return one
        case [one, other]:
            return f"{one} or {other}"
    return f"{names[0]} or {len(names) - 1} others"
