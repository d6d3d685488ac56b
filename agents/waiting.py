"""Whom open questions wait for, by name: the people who may decide them and have not answered yet."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

from controlplane.tenancy.types import Principal
from governance import selectors as governance
from governance.models import Escalation

NOBODY_KNOWN = "an approver"
TOO_FEW = "approvers who are missing"


def waited_for(principal: Principal, questions: Iterable[Escalation]) -> dict[uuid.UUID, str]:
    """ "Dana", "Dana or Ravi", "Dana or 3 others" by question; TOO_FEW where nobody can settle it as things are.

    Constant queries; none without questions. `action` and `votes` of each question must be fetched. The names are those
    of the principal's own organisation."""
    asked = [row for row in questions if row.organisation_id == principal.organisation_id]
    people = governance.left_to_answer(asked)
    return {key: names_in_words([user.name for user in users]) for key, users in people.items()}


def names_in_words(names: Sequence[str]) -> str:
    match names:
        case []:
            return TOO_FEW
        case [one]:
            return one
        case [one, other]:
            return f"{one} or {other}"
    return f"{names[0]} or {len(names) - 1} others"
