"""Since when a question has been put to people: an edited one since the question it stands in the place of."""

from __future__ import annotations

from typing import Final

from django.db.models import DateTimeField
from django.db.models.expressions import RawSQL

# What a person edited asks anew in the moment in which the question before it ends.
_FIRST_ASKED: Final = """(
WITH RECURSIVE asked(action_id, opened_at) AS (
    SELECT {question}.action_id, {question}.opened_at
    UNION ALL
    SELECT before.action_id, before.opened_at
    FROM asked
    JOIN governance_action AS edited ON edited.id = asked.action_id
    JOIN governance_escalation AS before
        ON before.action_id = edited.replaces_id AND before.closed_at = asked.opened_at
)
SELECT min(opened_at) FROM asked)"""


def first_asked(question: str) -> str:
    """SQL: since when people were asked, for the row of `governance_escalation` that the statement calls `question`."""
    return _FIRST_ASKED.format(question=question)


# The same for a query set of questions that is not joined to others.
FIRST_ASKED: Final = RawSQL(first_asked("governance_escalation"), (), output_field=DateTimeField())  # noqa: S611
