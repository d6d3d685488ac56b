"""A budget that is busy for a moment costs a moment: no mission is left paused for it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction

from agents import services
from agents.choices import MissionState, RunState, StopScope
from agents.models import Mission, Run
from budgets.models import Chain
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.clusters.types import SandboxPhase
from controlplane.tenancy.types import Principal
from tests.agents.test_runs_on_a_node import (
    WAITS,
    LocalNode,
    alice,
    company,
    local_node,
    node,
    one_pass,
    run_is,
    start,
    until,
)

__all__ = ["alice", "company", "local_node", "node", "start"]
pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def being_changed(account_id: uuid.UUID | None) -> Iterator[None]:
    """As while somebody sets its limit: charges go on, but what has to look up its windows anew waits."""
    Chain.objects.all().delete()
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT FROM budgets_account WHERE id = %s FOR NO KEY UPDATE", [account_id])
                taken.set()
                over.wait(60)
        finally:
            connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait(10)
    try:
        yield
    finally:
        over.set()
        holder.join()


def test_attempt_that_meets_a_busy_budget_starts_a_moment_later(start: Callable[..., Mission], node: LocalNode) -> None:
    mission = start("raise SystemExit(7)")
    one_pass()
    while any(status.phase is not SandboxPhase.EXITED for status in node.driver.observe()):
        pass
    with being_changed(mission.account_id):
        one_pass()
        one_pass()
        mission.refresh_from_db()
        assert (mission.state, mission.state_reason) == (MissionState.ACTIVE, "")
        assert Run.objects.get(mission=mission).state in (RunState.STARTING, RunState.RUNNING)
    until(run_is(mission, RunState.FAILED, 2))
    assert Entry.objects.filter(mission_id=mission.pk, event=Event.RUN_STARTED).count() >= 2


def test_mission_that_goes_on_after_a_stop_does_so_once_its_budget_is_free(
    start: Callable[..., Mission], node: LocalNode, alice: Principal
) -> None:
    mission = start(WAITS)
    services.stop(actor=alice, scope=StopScope.AGENT, scope_id=mission.agent_id, reason="Look first")
    [stop] = [entry.subject_id for entry in Entry.objects.filter(event=Event.STOP_MADE)]
    services.ask_to_lift(actor=alice, stop_id=stop, resume=True)
    with being_changed(mission.account_id):
        assert services.resume_lifted() == 0
        mission.refresh_from_db()
        assert mission.state == MissionState.PAUSED
        assert mission.paused_by_id == stop
    assert services.resume_lifted() == 1
    mission.refresh_from_db()
    assert mission.state == MissionState.ACTIVE
