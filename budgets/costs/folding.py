"""Folds the journal's new lines into sums per account, mission, day and kind. Each line once, whatever dies meanwhile.

A line's number is drawn before its transaction commits, so a small number may become visible after a larger one. What
has been drawn is therefore noted first, and then who is writing to the journal at that moment: every writer keeps the
table's lock from before it draws a number until its end. Once all of those have ended, the noted lines are all there,
and are folded. Sums and progress move in one transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection, transaction

from budgets import alerts
from budgets.costs import facts
from budgets.costs.models import CostState
from budgets.types import ChargeKind
from budgets.zones import DAY_OF_HOLD
from controlplane.common.clock import now

BATCH: Final = 20_000
MOST_BATCHES: Final = 25
CHARGES: Final = "('settle', 'correct')"  # what a hold was charged, and what a later report changed about it

# A line belongs to the local day of its hold, as its budget's windows do: a late report corrects the day of the work.
_NOTE: Final = """
SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('budgets_journal', 'id')::regclass), 0)
"""
# What this transaction has written itself, it sees.
_WRITERS: Final = """
SELECT coalesce(array_agg(DISTINCT virtualtransaction), '{}') FROM pg_locks
WHERE locktype = 'relation' AND relation = 'budgets_journal'::regclass AND mode = 'RowExclusiveLock' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND pid IS DISTINCT FROM pg_backend_pid()
"""
_FOLD: Final = f"""
WITH line AS MATERIALIZED (
    SELECT j.organisation_id, a.team_id, j.account_id, j.mission_id, j.money, j.tokens, j.steps, h.window_ids,
        {DAY_OF_HOLD} AS day,
        CASE WHEN j.action_id IS NOT NULL THEN '{ChargeKind.CALL}'
            WHEN j.mission_id IS NOT NULL THEN '{ChargeKind.SANDBOX}' ELSE '{ChargeKind.OTHER}' END AS kind
    FROM budgets_journal AS j
    JOIN budgets_hold AS h ON h.id = j.hold_id
    JOIN budgets_account AS a ON a.id = j.account_id
    JOIN tenancy_organisation AS o ON o.id = j.organisation_id
    WHERE j.id > %(after)s AND j.id <= %(upto)s AND j.kind IN {CHARGES}
), folded AS (
    INSERT INTO budgets_costday AS c (
        organisation_id, team_id, account_id, mission_id, day, kind, money, tokens, steps, lines
    )
    SELECT organisation_id, team_id, account_id, mission_id, day, kind, sum(money), sum(tokens), sum(steps), count(*)
    FROM line GROUP BY organisation_id, team_id, account_id, mission_id, day, kind
    ON CONFLICT (account_id, mission_id, day, kind) DO UPDATE SET
        money = c.money + excluded.money, tokens = c.tokens + excluded.tokens, steps = c.steps + excluded.steps,
        lines = c.lines + excluded.lines
)
SELECT (SELECT count(*) FROM line),
    (SELECT coalesce(array_agg(DISTINCT mission_id), '{{}}') FROM line WHERE mission_id IS NOT NULL),
    (SELECT coalesce(array_agg(DISTINCT w), '{{}}') FROM line, unnest(window_ids) AS w)
"""  # noqa: S608 only constants of this module


@dataclass(frozen=True)
class Folded:
    """`waits`: lines are there whose transactions have not ended, or somebody else is folding."""

    lines: int = 0
    batches: int = 0
    waits: bool = False


def fold_all(*, most_batches: int = MOST_BATCHES) -> Folded:
    """Everything that is complete by now, in short transactions; another worker that folds already is left alone."""
    lines = batches = 0
    while batches < most_batches:
        step = _step()
        if step is None:
            return Folded(lines, batches, waits=True)
        if step < 0:
            break
        lines += step
        batches += 1
    return Folded(lines, batches)


def start_anew() -> None:
    """Forget every sum and begin with the first line. The pages say how far the counting is meanwhile."""
    from budgets.costs.models import CostActivity, CostDay, CostMission

    with transaction.atomic():
        _state()
        state = CostState.objects.select_for_update().get(pk=1)
        for table in (CostDay, CostActivity, CostMission):
            table.objects.all().delete()
        state.folded_id = state.noted_id = 0
        state.noted_writers, state.wrong, state.checked_at = [], [], None
        state.save()


def locked_state() -> CostState | None:
    """The leave to change sums, for the rest of the transaction; None while somebody else has it."""
    _state()
    return CostState.objects.select_for_update(skip_locked=True).filter(pk=1).first()


def _step() -> int | None:
    """Lines folded; -1 when nothing is left; None when it has to wait."""
    with transaction.atomic():
        state = locked_state()
        if state is None:
            return None
        if state.folded_id >= state.noted_id:
            _note(state)
            if state.folded_id >= state.noted_id:
                CostState.objects.filter(pk=1).update(folded_at=now())
                return -1
        if not set(state.noted_writers).isdisjoint(_one(_WRITERS)):
            return None
        upto = min(state.noted_id, state.folded_id + BATCH)
        return _fold(state, upto)


def _note(state: CostState) -> None:
    """The number first, then the writers: whoever drew a number up to it is among them, or has ended."""
    state.noted_id = max(_one(_NOTE), state.folded_id)
    state.noted_writers = _one(_WRITERS)
    state.save(update_fields=["noted_id", "noted_writers"])


def _fold(state: CostState, upto: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(_FOLD, {"after": state.folded_id, "upto": upto})
        row: tuple[int, Collection[uuid.UUID], Collection[int]] | None = cursor.fetchone()
        cursor.execute("SET LOCAL enable_seqscan = on")
    assert row is not None  # noqa: S101 an aggregate without groups is one row
    lines, missions, windows = row
    facts.refresh(missions)
    alerts.raise_for(windows)
    CostState.objects.filter(pk=1).update(folded_id=upto, folded_at=now())
    return lines


def _state() -> None:
    CostState.objects.bulk_create([CostState(pk=1)], ignore_conflicts=True)


def _one(sql: str, parameters: Any = None) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        row = cursor.fetchone()
    return row[0] if row else None
