"""What costs know of missions: told by the pillar that owns them, kept here so that a page joins small tables only."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Final

from django.db import transaction

from budgets.costs.models import CostActivity, CostMission, CostState
from budgets.types import MissionBook, MissionFacts, Standing
from controlplane.common.clock import now

_BOOKS: Final[list[MissionBook]] = []
_BATCH: Final = 500
# Calls and refusals of missions under way come in without a sign; their counts are read again this often.
OPEN_AGAIN: Final = timedelta(seconds=60)


def register_missions(book: MissionBook) -> None:
    """Missions stand above budgets: their pillar registers at start who tells of them."""
    _BOOKS[:] = [book]


def refresh(mission_ids: Collection[uuid.UUID]) -> None:
    """Read these missions anew, inside the caller's transaction. Those nobody knows stay unknown."""
    if not mission_ids:
        return
    for book in _BOOKS:
        _store(book.facts(mission_ids))


def refresh_changed() -> int:
    """Missions that were started, decided or renamed since, and the open ones once a minute. Returns how many."""
    from budgets.costs.folding import locked_state

    count = 0
    for book in _BOOKS:
        with transaction.atomic():
            if locked_state() is None:
                return count
            due = _due(book)
            for start in range(0, len(due), _BATCH):
                refresh(due[start : start + _BATCH])
            CostState.objects.filter(pk=1).update(facts_at=now())
            count += len(due)
    return count


def _due(book: MissionBook) -> list[uuid.UUID]:
    told = book.stamps()
    stale = now() - OPEN_AGAIN
    known = {
        key: (stamp, standing, at)
        for key, stamp, standing, at in CostMission.objects.values_list("pk", "stamp", "standing", "refreshed_at")
    }
    due = []
    for key, stamp in told.items():
        before = known.get(key)
        if before is None or before[0] != stamp or (before[1] == Standing.OPEN and before[2] < stale):
            due.append(key)
    return due


def _store(told: Iterable[MissionFacts]) -> None:
    facts, moment = list(told), now()
    rows = [
        CostMission(
            id=each.mission_id,
            organisation_id=each.organisation_id,
            team_id=each.team_id,
            agent_id=each.agent_id,
            goal=each.goal[:80],
            goal_name=each.goal_name[:160],
            title=each.title[:160],
            standing=each.standing,
            decided_on=each.decided_on,
            stamp=each.stamp,
            refreshed_at=moment,
        )
        for each in facts
    ]
    fields = ["team_id", "agent_id", "goal", "goal_name", "title", "standing", "decided_on", "stamp", "refreshed_at"]
    CostMission.objects.bulk_create(rows, update_conflicts=True, unique_fields=["id"], update_fields=fields)
    CostActivity.objects.filter(mission_id__in=[each.mission_id for each in facts]).delete()
    CostActivity.objects.bulk_create(
        CostActivity(
            organisation_id=each.organisation_id,
            team_id=each.team_id,
            mission_id=each.mission_id,
            day=day.day,
            attempts=day.attempts,
            retries=day.retries,
            calls=day.calls,
            denied=day.denied,
            human_seconds=day.human_seconds,
        )
        for each in facts
        for day in each.days
    )
