"""The background worker killed in the middle of its tasks, doubled, or gone with the beat: sweeps catch up, once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import httpx2
import pytest

from tests.end_to_end.conftest import ROOT, environment
from tests.end_to_end.faults.site import EXECUTING_LIMIT_SECONDS, Agent, Mission, Site, wait_until

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300)]


def leave_silent(agent: Agent, calls: int) -> None:
    """Calls of a server that never answers, made by a client that hangs up: only the sweep will end them."""
    for _ in range(calls):
        with pytest.raises(httpx2.ReadTimeout):
            agent.call("hostile__hang", {}, seconds=2)


def silent_actions(site: Site, mission: Mission) -> list[tuple[str, int]]:
    """(state, how often the audit trail tells that nobody knows what came of it) of each."""
    return site.rows(
        "SELECT a.state, (SELECT count(*) FROM audit_entry e WHERE e.subject_id = a.id AND e.event = 'action.unknown')"
        " FROM governance_action a WHERE a.mission_id = %s AND a.tool = 'hostile__hang'", mission.id,
    )  # fmt: skip


def test_work_left_by_a_worker_that_is_gone_for_a_while_and_killed_in_its_tasks_is_done_once(
    site: Site, agent: Agent, mission: Mission
) -> None:
    with site.silent("worker") as worker:  # and with it the beat
        leave_silent(agent, 2)
        for number in range(10):
            agent.write(f"line-{number}")
        time.sleep(EXECUTING_LIMIT_SECONDS)
        assert {state for state, _ in silent_actions(site, mission)} == {"executing"}
        worker.resume()
        time.sleep(0.3)  # in the middle of what piled up
        site.kill("worker")
    wait_until(lambda: {row[0] for row in silent_actions(site, mission)} == {"unknown"}, "the sweep")
    assert silent_actions(site, mission) == [("unknown", 1)] * 2
    assert site.diary(mission) == {"hang": 1} | {f"line-{number}": 1 for number in range(10)}
    site.reconcile(*unknown_ids(site, mission))
    assert site.open_holds(mission) == 0
    site.check_audit()


@pytest.fixture
def second_worker(site: Site) -> Iterator[None]:
    variables = environment(STATE_DIR=str(site.state), REMIT_EXECUTING_LIMIT_SECONDS=str(EXECUTING_LIMIT_SECONDS))
    with (site.folder / "second-worker").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "worker"], env=variables, stdout=log, stderr=log
        )
    wait_until(lambda: b" ready." in (site.folder / "second-worker").read_bytes(), "the second worker")
    yield
    process.kill()
    process.wait()


def test_two_workers_with_two_beats_do_each_thing_once(
    site: Site, agent: Agent, mission: Mission, second_worker: None
) -> None:
    leave_silent(agent, 3)
    for number in range(10):
        agent.write(f"line-{number}")
    wait_until(lambda: {row[0] for row in silent_actions(site, mission)} == {"unknown"}, "the sweep")
    assert silent_actions(site, mission) == [("unknown", 1)] * 3
    site.reconcile(*unknown_ids(site, mission))
    assert site.open_holds(mission) == 0
    site.check_audit()


def unknown_ids(site: Site, mission: Mission) -> list[str]:
    return [
        row[0]
        for row in site.rows(
            "SELECT id::text FROM governance_action WHERE mission_id = %s AND state = 'unknown'", mission.id
        )
    ]
