"""The whole check: every day's sums counted anew from the journal and compared. It stops the folding while it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db import connection, transaction

from budgets.costs.folding import CHARGES, locked_state
from budgets.costs.models import CostState
from budgets.zones import DAY_OF_HOLD
from controlplane.common.clock import now

MOST_WRONG: Final = 200
# Nothing of the folding is used here: sums straight from the lines, and from the expense side of their postings.
_COMPARE: Final = f"""
WITH counted AS (
    SELECT j.organisation_id, a.team_id, {DAY_OF_HOLD} AS day, sum(j.money) AS journal, sum(p.money) AS postings
    FROM budgets_journal AS j
    JOIN budgets_hold AS h ON h.id = j.hold_id
    JOIN budgets_account AS a ON a.id = j.account_id
    JOIN tenancy_organisation AS o ON o.id = j.organisation_id
    LEFT JOIN budgets_posting AS p ON p.journal_id = j.id AND p.side = 'expense'
    WHERE j.id <= %(upto)s AND j.kind IN {CHARGES}
    GROUP BY 1, 2, 3
), folded AS (
    SELECT organisation_id, team_id, day, sum(money) AS money FROM budgets_costday GROUP BY 1, 2, 3
)
SELECT coalesce(c.organisation_id, f.organisation_id)::text, coalesce(c.team_id, f.team_id)::text,
    coalesce(c.day, f.day)::text, coalesce(c.journal, 0)::text, coalesce(f.money, 0)::text,
    coalesce(c.postings, 0)::text
FROM counted AS c
FULL JOIN folded AS f ON f.organisation_id = c.organisation_id AND f.day = c.day
    AND coalesce(f.team_id::text, '') = coalesce(c.team_id::text, '')
WHERE coalesce(c.journal, 0) <> coalesce(f.money, 0) OR coalesce(c.journal, 0) <> coalesce(c.postings, 0)
ORDER BY 3 DESC LIMIT {MOST_WRONG}
"""  # noqa: S608 only constants of this package


@dataclass(frozen=True)
class Wrong:
    """One day of one team whose sums differ: what the journal says, and what the pages would show."""

    organisation_id: str
    team_id: str | None
    day: str
    journal: str
    folded: str
    postings: str


def check_all() -> list[Wrong] | None:
    """Compare everything folded so far; the result is kept for the pages. None: somebody is folding, ask again."""
    with transaction.atomic():
        state = locked_state()
        if state is None:
            return None
        with connection.cursor() as cursor:
            cursor.execute(_COMPARE, {"upto": state.folded_id})
            wrong = [Wrong(*row) for row in cursor.fetchall()]
        CostState.objects.filter(pk=1).update(
            checked_at=now(), checked_id=state.folded_id, wrong=[vars(each) for each in wrong]
        )
    return wrong


def never_checked() -> bool:
    """After an installation or a rebuild the first check does not wait for its hour."""
    return not CostState.objects.filter(pk=1, checked_at__isnull=False).exists()
