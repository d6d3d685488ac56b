"""The newest lines of one budget and all below it, at a cost that follows what is shown, not what was ever written."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from django.core.exceptions import EmptyResultSet
from django.db.models import QuerySet

from budgets.models import Account, JournalEntry
from budgets.zones import DAY_OF_HOLD

# Above so many budgets it is quicker to go through everybody's lines and pick than to look at each budget's newest.
FEW: Final = 1000
# What people do to limits is rare among the lines: it has an index of its own, whose condition this has to repeat.
RARE_KINDS: Final = ("allocation", "freeze", "unfreeze", "guard", "overrun")


class Window(NamedTuple):
    """Only lines of holds that count in it. Without a row these are the days since its start, which is local."""

    id: int | None
    starts_at: datetime | None


class Narrowed(NamedTuple):
    kinds: Sequence[str] = ()
    window: Window | None = None
    before: int | None = None


# The newest lines of few budgets are in those of them that were used last: two short looks into one index. What is
# asked of a row is a subquery in SELECT's place, which is never turned into a join over all rows.
_OF_FEW: Final = """
WITH last_used AS MATERIALIZED (
    SELECT a.id, l.id AS newest FROM unnest(%(accounts)s::uuid[]) AS a (id)
    CROSS JOIN LATERAL (
        SELECT j.id FROM budgets_journal AS j WHERE j.account_id = a.id {narrowed} ORDER BY j.id DESC LIMIT 1
    ) AS l ORDER BY l.id DESC LIMIT %(limit)s
)
SELECT l.* FROM last_used AS a
CROSS JOIN LATERAL (
    SELECT j.* FROM budgets_journal AS j WHERE j.account_id = a.id {narrowed} ORDER BY j.id DESC LIMIT %(limit)s
) AS l ORDER BY l.id DESC LIMIT %(limit)s
"""
_COUNTS_IN: Final = """
AND (SELECT h.window_ids @> ARRAY[%(window)s::bigint] FROM budgets_hold AS h WHERE h.id = j.hold_id)
"""
_HELD_SINCE: Final = f"""
AND (
    SELECT {DAY_OF_HOLD} >= coalesce(%(first)s::date, '-infinity')
    FROM budgets_hold AS h JOIN tenancy_organisation AS o ON o.id = h.organisation_id WHERE h.id = j.hold_id
)
"""  # noqa: S608 only a constant
# What counts in a window is older than its start by less than this, and only where the time zone was changed in it.
_MOVED: Final = timedelta(days=2)
_OF_MANY: Final = """
SELECT j.* FROM budgets_journal AS j
WHERE j.organisation_id = %(organisation)s {narrowed}
    AND (SELECT true FROM ({visible}) AS v (id) WHERE v.id = j.account_id LIMIT 1)
ORDER BY j.id DESC LIMIT %(limit)s
"""


def newest(
    visible: QuerySet[Account], *, organisation_id: uuid.UUID, narrowed: Narrowed, limit: int
) -> list[JournalEntry]:
    """Of all lines of these budgets of one organisation. Two queries."""
    parameters: dict[str, Any] = {"organisation": organisation_id, "limit": limit}
    condition = _condition(narrowed, parameters)
    few = list(visible.order_by().values_list("pk", flat=True)[: FEW + 1])
    if len(few) <= FEW:
        return list(JournalEntry.objects.raw(_OF_FEW.format(narrowed=condition), {**parameters, "accounts": few}))
    try:
        sql = _named(visible.order_by().values("pk"), parameters)
    except EmptyResultSet:
        return []
    return list(JournalEntry.objects.raw(_OF_MANY.format(narrowed=condition, visible=sql), parameters))


def _condition(narrowed: Narrowed, parameters: dict[str, Any]) -> str:
    """SQL made here, of words made here; what was given goes into `parameters`."""
    parts = []
    if narrowed.kinds:
        names = {f"kind{number}": kind for number, kind in enumerate(narrowed.kinds)}
        parts.append(f"AND j.kind IN ({', '.join(f'%({name})s' for name in names)})")
        parameters |= names
    if narrowed.before is not None:
        parts.append("AND j.id < %(before)s")
        parameters["before"] = narrowed.before
    if narrowed.window is not None:
        parts.append(_HELD_SINCE if narrowed.window.id is None else _COUNTS_IN)
        start = narrowed.window.starts_at
        parameters |= {"window": narrowed.window.id, "first": start and start.date()}
        if start is not None:
            parts.append("AND j.at >= %(since)s")
            parameters["since"] = start - _MOVED
    return " ".join(parts)


def _named(rows: QuerySet[Any, Any], parameters: dict[str, Any]) -> str:
    """The ORM's SQL with names for its parameters, which join the others."""
    sql, values = rows.query.sql_with_params()
    names = [f"visible{number}" for number in range(len(values))]
    parameters |= dict(zip(names, values, strict=True))
    waiting = iter(names)
    return re.sub("%%|%s", lambda found: f"%({next(waiting)})s" if found[0] == "%s" else "%%", sql)
