"""The local node and its sandboxes killed: another attempt follows, servers are started again, reasons are shown."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from tests.end_to_end.faults.site import Agent, Mission, Site, wait_until

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300)]

ASLEEP = ["/usr/bin/sleep", "4711"]


def attempts(site: Site, mission: str) -> list[tuple[int, str, str]]:
    """(attempt, state, reason), the first first."""
    return site.rows("SELECT attempt, state, reason FROM agents_run WHERE mission_id = %s ORDER BY attempt", mission)


def wait_attempt(site: Site, mission: str, number: int) -> None:
    wait_until(lambda: attempts(site, mission)[-1][:2] == (number, "running"), f"attempt {number} to run")


def mission_state(site: Site, mission: str) -> Any:
    return site.rows("SELECT state, state_reason FROM agents_mission WHERE id = %s", mission)[0]


def sleepers(site: Site) -> list[psutil.Process]:
    found = []
    for process in site.child("node").children(recursive=True):
        try:
            if process.cmdline()[-1:] == ASLEEP[-1:] and process.name() == "sleep":
                found.append(process)
        except psutil.Error:
            continue
    return found


def check_seconds_are_settled(site: Site, mission: str) -> None:
    """What was held for sandbox seconds of ended attempts is charged or given back."""
    holds = (
        "SELECT count(*) FROM agents_run r JOIN budgets_hold h ON h.id = r.hold_id"
        " WHERE r.mission_id = %s AND r.ended_at IS NOT NULL AND h.closed_at IS NULL"
    )
    assert site.value(holds, mission) == 0


def test_a_killed_node_ends_calls_as_unknown_and_runs_go_on_until_their_third_attempt(
    site: Site, agent: Agent, mission: Mission
) -> None:
    program = site.do("start_program", ASLEEP, 256)
    wait_attempt(site, program, 1)
    with ThreadPoolExecutor(1) as pool:
        in_flight = pool.submit(agent.write, "in flight", seconds_between=25)
        wait_until(lambda: site.diary(mission)["in flight"], "the call to reach its server")
        site.kill("node")
        reply = in_flight.result(30)
    assert not reply.carried_out
    assert (reply.said["state"], reply.said["reason_code"]) == ("unknown", "upstream.died")
    lines = iter(range(1000))
    wait_until(lambda: agent.write(f"after-{next(lines)}").carried_out, "the server to be started again")
    assert site.diary(mission)["in flight"] == 1
    assert site.wait_ended(mission)["unknown"] == 1
    site.reconcile(reply.said["id"])
    assert site.open_holds(mission) == 0

    for attempt in (2, 3):
        wait_attempt(site, program, attempt)
        assert attempts(site, program)[attempt - 2] == (attempt - 1, "lost", "The node that ran it was lost")
        assert len(sleepers(site)) == 1
        site.kill("node")
    wait_until(lambda: mission_state(site, program)[0] == "paused", "the mission to be paused")
    assert mission_state(site, program)[1] == "Attempt 3 ended: The node that ran it was lost"
    assert [state for _, state, _ in attempts(site, program)] == ["lost"] * 3
    assert sleepers(site) == []
    check_seconds_are_settled(site, program)
    site.check_audit()


def test_a_killed_sandbox_is_seen_and_the_next_attempt_starts(site: Site) -> None:
    program = site.do("start_program", ASLEEP, 256)
    wait_attempt(site, program, 1)
    wait_until(lambda: len(sleepers(site)) == 1, "its program")
    sleepers(site)[0].kill()
    wait_attempt(site, program, 2)
    assert attempts(site, program)[0][1] == "failed"
    assert "ended with code" in attempts(site, program)[0][2]
    site.do("stop_mission", program)
    wait_until(lambda: sleepers(site) == [], "the sandbox to be gone")
    check_seconds_are_settled(site, program)


def test_a_program_that_runs_out_of_memory_is_paused_after_three_attempts_and_says_why(site: Site) -> None:
    program = site.do("start_program", ["/usr/bin/tail", "/dev/zero"], 48)
    wait_until(lambda: mission_state(site, program)[0] == "paused", "the mission to be paused")
    reason = "It ran out of memory (limit 48 MiB)"
    assert attempts(site, program) == [(number, "failed", reason) for number in (1, 2, 3)]
    nadia = site.person("nadia")
    assert "ran out of memory (limit 48 MiB)" in nadia.get(f"/missions/{program}").text
    nadia.close()
    check_seconds_are_settled(site, program)
