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
    """In words by question, as `names_in_words` has them; TOO_FEW where nobody can settle it as things are.

    Constant queries; none without questions. `action` and `votes` of each question must be fetched. The names are those
    of the principal's own organisation."""
    asked = [row for row in questions if row.organisation_id == principal.organisation_id]
    return {key: left_in_words(left) for key, left in governance.left_to_answer(asked).items()}


def left_in_words(left: governance.Left, *, most: int | None = None) -> str:
    return names_in_words([user.name for user in left.people], left.missing, most=most)


def names_in_words(names: Sequence[str], needed: int = 1, *, most: int | None = None) -> str:
    """ "Dana", "Dana or Ravi", "Dana or 3 others"; where several are needed "Dana and Ravi", or "2 of Dana, Ravi and 3
    others". `most`: so many at most, the others being one of them."""
    if not names:
        return TOO_FEW
    most = most or (2 if needed == 1 else 3)
    others = len(names) - most + 1
    *first, last = names if others < 2 else [*names[: most - 1], f"{others} others"]
    said = f"{', '.join(first)} {'or' if needed == 1 else 'and'} {last}" if first else last
    return f"{needed} of {said}" if 1 < needed < len(names) else said
