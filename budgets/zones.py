"""The time zone in which an organisation's days and windows begin, and what a change of it does to them.

Days that are over stay as they were counted: their sums are never moved. A window under way goes on with what is held
and spent in it, and ends when that of the new zone does.
"""

from __future__ import annotations

import uuid
from typing import Final

from budgets import calls

# The local day of a hold `h` of organisation `o`, as the organisation's clock said when it was made.
DAY_OF_HOLD: Final = """(h.created_at AT TIME ZONE coalesce((
    SELECT f.zone FROM budgets_formerzone AS f
    WHERE f.organisation_id = o.id AND f.until > h.created_at ORDER BY f.until LIMIT 1
), o.time_zone))::date"""


def follow_zone(organisation_id: uuid.UUID, before: str) -> None:
    """Inside the transaction that changed the organisation's zone. Raises 503 `ledger.busy`."""
    calls.follow_zone(organisation_id=organisation_id, before=before)
