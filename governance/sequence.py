"""Rules over what a run has done: each call may be fine and their sequence not. Reads recorded effects only."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.db import connection

from controlplane.common.clock import now
from controlplane.common.statements import planned
from governance.choices import Verdict
from governance.types import Finding

SECRET_READ: Final = "secret.read"  # noqa: S105
EGRESS: Final = "egress"
DELETE: Final = "delete"
BLAST_PREFIX: Final = "blast:"  # "blast:25": how many objects or people it touches

DELETES_ALLOWED: Final = 9
DELETE_WINDOW: Final = timedelta(minutes=5)
BLAST_ALLOWED: Final = 100
EGRESS_RULE: Final = "sequence/secret-then-egress"
BLAST_RULE: Final = "sequence/blast-radius"
_CALLS: Final = """
SELECT count(*) FROM governance_action WHERE run_id = %s AND tool = %s AND id IS DISTINCT FROM %s
AND state IN ('permitted', 'executing', 'succeeded', 'failed', 'unknown')
"""
_TOTAL: Final = r"""
SELECT least(coalesce(sum(CASE WHEN value IS NULL THEN 0
                               WHEN value ~ '^-?[0-9]{1,12}(\.[0-9]{1,6})?$' THEN greatest(value::numeric, 0) * 1000000
                               ELSE %(most)s END), 0), %(most)s)::bigint
FROM (SELECT arguments ->> %(argument)s AS value FROM governance_action
      WHERE mission_id = %(mission)s AND tool = %(tool)s AND id IS DISTINCT FROM %(besides)s
        AND state IN ('permitted', 'executing', 'succeeded', 'failed', 'unknown')) earlier
"""
_MOST_TOTAL: Final = 4 * 10**18
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"


@dataclass(frozen=True)
class History:
    """What a run has left behind so far, including what it is permitted to do but has not done yet."""

    effects: frozenset[str] = frozenset()
    recent_deletes: int = 0
    blast: int = 0


def concerns(effects: Collection[str]) -> bool:
    """Whether any rule asks about these effects: most actions need no look at the past."""
    return any(effect in (EGRESS, DELETE) or effect.startswith(BLAST_PREFIX) for effect in effects)


def read_history(*, run_id: uuid.UUID, besides: uuid.UUID | None = None) -> History:
    """Inside a transaction that has awaited the run, so that ten decisions at once can't each be the first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT effects, created_at FROM governance_action WHERE run_id = %s AND id IS DISTINCT FROM %s"
            " AND state IN ('permitted', 'executing', 'succeeded', 'failed', 'unknown') AND effects <> '{}'",
            [run_id, besides],
        )
        rows = cursor.fetchall()
    since = now() - DELETE_WINDOW
    counted = Counter(effect for effects, _ in rows for effect in effects)
    return History(
        effects=frozenset(counted),
        recent_deletes=sum(1 for effects, at in rows if DELETE in effects and at >= since),
        blast=sum(blast_of(effects) for effects, _ in rows),
    )


def await_run(run_id: uuid.UUID) -> None:
    """Inside a transaction: waits for other decisions of the run, and until it ends none adds to what is read then."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK, [f"sequence:{run_id}"])


def calls_so_far(run_id: uuid.UUID | None, tool: str, besides: uuid.UUID | None = None) -> int:
    """How often the run has been allowed this tool: read for the judgement, and again at its commit, under the lock."""
    return int(planned(_CALLS, [run_id, tool, besides])[0][0])


def await_totals(*, mission_id: uuid.UUID, run_id: uuid.UUID | None) -> None:
    """Inside a transaction: waits for other decisions of the mission that totals depend on. The run's lock comes first,
    as everywhere, so that two decisions never wait for each other."""
    if run_id is not None:
        await_run(run_id)
    with connection.cursor() as cursor:
        cursor.execute(_LOCK, [f"total:{mission_id}"])


def total_so_far(mission_id: uuid.UUID, tool: str, argument: str, besides: uuid.UUID | None = None) -> int:
    """What an argument has come to over the mission's allowed calls, in millionths. A value that can't be added up
    (another rule let it pass) counts as more than any limit."""
    with connection.cursor() as cursor:
        cursor.execute(
            _TOTAL,
            {
                "mission": mission_id,
                "tool": tool,
                "argument": argument,
                "besides": besides,
                "most": _MOST_TOTAL,
            },
        )
        return int(cursor.fetchone()[0])


def check(*, effects: Sequence[str], history: History, approved: Collection[str]) -> list[Finding]:
    """What there is to object to in doing this after that."""
    findings: list[Finding] = []
    if DELETE in effects and history.recent_deletes >= DELETES_ALLOWED:
        findings.append(
            Finding(
                Verdict.DENY,
                "sequence.too_many_deletes",
                f"This would be the tenth deletion within {DELETE_WINDOW.seconds // 60} minutes.",
                ("Wait a few minutes.", "Ask the mission's owner whether this many deletions are meant."),
            )
        )
    if EGRESS in effects and SECRET_READ in history.effects and EGRESS_RULE not in approved:
        findings.append(
            Finding(
                Verdict.ESCALATE,
                "sequence.egress_after_secret",
                "This run has read a secret and now wants to send something out.",
                policy=EGRESS_RULE,
            )
        )
    total = history.blast + blast_of(effects)
    if blast_of(effects) and total > BLAST_ALLOWED and BLAST_RULE not in approved:
        findings.append(
            Finding(
                Verdict.ESCALATE,
                "sequence.blast_radius",
                f"With this, one run would touch {total} objects; beyond {BLAST_ALLOWED} a person is asked.",
                policy=BLAST_RULE,
            )
        )
    return findings


def blast_of(effects: Collection[str]) -> int:
    """The sum of the blast labels; one that is no whole number counts as everything."""
    total = 0
    for effect in effects:
        if effect.startswith(BLAST_PREFIX):
            size = effect.removeprefix(BLAST_PREFIX)
            total += int(size) if size.isascii() and size.isdigit() and len(size) <= 9 else BLAST_ALLOWED + 1
    return total
