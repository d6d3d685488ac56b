"""A stop among decisions, over real connections: whatever the order, nothing starts after it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from django.db import connection, transaction

from agents import services, stop_proofs, stops
from agents.choices import MissionState, StopScope
from agents.models import Mission, Run, Stop
from budgets.models import Hold
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.clusters import services as clusters
from controlplane.common.errors import RemitError
from governance import services as gate
from governance.choices import ActionState
from governance.models import Action, Permit
from governance.types import Proposal

from .conftest import READ

R = TypeVar("R")
pytestmark = pytest.mark.django_db(transaction=True)


def on_its_own(call: Callable[[], R]) -> R:
    try:
        return call()
    finally:
        connection.close()


@pytest.mark.parametrize("scope", [StopScope.MISSION, StopScope.AGENT, StopScope.TEAM, StopScope.ORGANISATION])
def test_of_calls_hammered_while_it_commits_none_starts_after_it(scope, work, person) -> None:
    items = [work(f"Clerk {number}") for number in range(2)]
    agents = [item.principal() for item in items]
    nadia, over, answers = person("Nadia"), threading.Event(), []
    target = {
        StopScope.MISSION: items[0].mission.pk,
        StopScope.AGENT: items[0].agent.pk,
        StopScope.TEAM: items[0].mission.team_id,
        StopScope.ORGANISATION: items[0].mission.organisation_id,
    }[scope]

    def hammer(which: int) -> None:
        page = 0
        while not over.is_set():
            page += 1
            proposal = Proposal("tool.call", {"page": page, "who": which}, tool=READ, audience="mcp")
            try:
                judged = gate.propose_and_start(proposer=agents[which % 2], proposal=proposal)
            except RemitError as error:
                if error.retry_after_seconds is None:  # else the ledger was busy, and nothing was done
                    raise
            else:
                answers.append((which % 2, judged.started is not None, judged.action_id, judged.reason_code))

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(on_its_own, lambda which=which: hammer(which)) for which in range(4)]
        time.sleep(0.6)
        stop = services.stop(actor=nadia, scope=scope, scope_id=target, reason="It went astray")
        known = set(Action.objects.values_list("pk", flat=True))
        time.sleep(0.4)
        over.set()
        for each in running:
            each.result(30)
    reached = {0} if scope in (StopScope.MISSION, StopScope.AGENT) else {0, 1}
    later = [answer for answer in answers if answer[2] not in known]
    assert any(started for _, started, _, _ in answers)
    assert any(which in reached for which, *_ in later)
    assert not [answer for answer in later if answer[0] in reached and answer[1]]
    assert {code for which, _, _, code in later if which in reached} <= {"stop.in_force", "mission.ended"}
    assert not Permit.objects.filter(
        consumed_at__isnull=True, voided_at__isnull=True, action__in=stops.target_of(stop).reach().actions()
    ).exists()
    held = Hold.objects.filter(state="held", mission_id__in=[items[which].mission.pk for which in reached])
    assert not held.exists()


def test_a_permit_is_used_before_the_stop_or_not_at_all(work, person) -> None:
    clerk = work()
    who = clerk.principal()
    permits = [clerk.read(page) for page in range(12)]
    nadia = person("Nadia")

    def use(judgement: Any) -> bool:
        try:
            gate.redeem(holder=who, action_id=judgement.action_id, audience="api", permit_token=judgement.permit.token)
        except RemitError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        used = [pool.submit(on_its_own, lambda item=item: use(item)) for item in permits]
        stopped = pool.submit(
            on_its_own,
            lambda: services.stop(actor=nadia, scope=StopScope.AGENT, scope_id=clerk.agent.pk),
        )
        stopped.result(30)
        results = [each.result(30) for each in used]
    states = list(Action.objects.filter(kind="tool.call").order_by("id").values_list("state", flat=True))
    assert states == [ActionState.EXECUTING if done else ActionState.WITHDRAWN for done in results]
    assert set(Hold.objects.values_list("state", flat=True)) <= {"dispatched", "voided"}


def test_a_mission_signed_off_while_its_team_is_stopped_does_not_run(work, person, make_remit) -> None:
    clerk = work()
    alice, nadia = person("Alice"), person("Nadia")
    drafts = [
        services.draft_mission(actor=alice, agent_id=clerk.agent.pk, title=f"Draft {number}", remit=make_remit())
        for number in range(6)
    ]

    def submit(mission: Mission) -> None:
        try:
            services.submit_mission(actor=alice, mission_id=mission.pk)
        except RemitError as error:
            if error.retry_after_seconds is None:
                raise

    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(on_its_own, lambda each=each: submit(each)) for each in drafts]
        stopped = pool.submit(
            on_its_own,
            lambda: services.stop(actor=nadia, scope=StopScope.TEAM, scope_id=clerk.mission.team_id),
        )
        for each in [*sent, stopped]:
            each.result(30)
    assert not Mission.objects.filter(state=MissionState.ACTIVE).exists()
    assert not Run.objects.filter(state__in=stops.LIVE_RUNS).exists()


def test_a_start_that_came_first_is_found_by_the_stop_that_waited_for_it(work, person, make_remit) -> None:
    clerk = work()
    alice, nadia = person("Alice"), person("Nadia")
    draft = services.draft_mission(actor=alice, agent_id=clerk.agent.pk, title="Just now", remit=make_remit())
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            services.submit_mission(actor=alice, mission_id=draft.pk)
            stopped = pool.submit(
                on_its_own,
                lambda: services.stop(actor=nadia, scope=StopScope.TEAM, scope_id=clerk.mission.team_id),
            )
            time.sleep(0.4)
            assert not stopped.done()
        stopped.result(30)
    draft.refresh_from_db()
    assert draft.state == MissionState.PAUSED
    assert not Run.objects.filter(state__in=stops.LIVE_RUNS).exists()


def test_the_same_stop_clicked_many_times_at_once_is_one(work, person) -> None:
    clerk = work()
    nadia = person("Nadia")

    def click(_: int) -> Stop:
        return on_its_own(lambda: services.stop(actor=nadia, scope=StopScope.TEAM, scope_id=clerk.mission.team_id))

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(click, range(8)))
    assert len({stop.pk for stop in made}) == 1
    assert Entry.objects.filter(event=Event.STOP_MADE).count() == 1


def test_stops_of_an_agent_its_team_and_the_organisation_at_once_all_hold(work, person) -> None:
    items = [work(f"Clerk {number}") for number in range(3)]
    for item in items:
        item.read()
        item.ask()
    nadia = person("Nadia")
    wanted = [
        *[(StopScope.AGENT, item.agent.pk) for item in items],
        (StopScope.TEAM, items[0].mission.team_id),
        (StopScope.ORGANISATION, items[0].mission.organisation_id),
    ]
    with ThreadPoolExecutor(5) as pool:
        made = [
            pool.submit(on_its_own, lambda scope=scope, key=key: services.stop(actor=nadia, scope=scope, scope_id=key))
            for scope, key in wanted
        ]
        for each in made:
            each.result(30)
    for stop in Stop.objects.all():
        assert all(rung.holds for rung in stop_proofs.proofs(stop)), stop.scope
    assert set(Hold.objects.values_list("state", flat=True)) == {"voided"}


def test_a_process_that_dies_between_the_commit_and_the_kill_leaves_it_to_the_workers(
    work, person, monkeypatch
) -> None:
    clerk = work()

    def dies(**_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(clusters, "end_now", dies)
    monkeypatch.setattr("agents.services.stopping.note_proofs", lambda **_: False)
    try:
        stop = services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=clerk.agent.pk)
    except SystemExit:
        stop = Stop.objects.get()
    monkeypatch.undo()
    stop.refresh_from_db()
    assert stop.proven_at is None
    assert services.note_open_proofs() == 1
    stop.refresh_from_db()
    assert stop.proven_at is not None
