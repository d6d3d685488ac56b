"""PostgreSQL killed, restarted, or away for a while, in the middle of the work of several agents."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.end_to_end.faults.site import Agent, Mission, Reply, Site, wait_until

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300)]

CLIENTS = 4


def write_until(stop: threading.Event, agent: Agent, name: str) -> dict[str, Reply]:
    """One line after the other, each insisted on; what Remit said about each."""
    replies: dict[str, Reply] = {}
    while not stop.is_set():
        line = f"{name}-{len(replies)}"
        replies[line] = agent.write(line)
    return replies


def test_a_database_killed_again_and_again_under_load_loses_nothing_and_nothing_runs_twice(
    site: Site, agent: Agent, mission: Mission
) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        writers = [pool.submit(write_until, stop, agent, f"client-{number}") for number in range(CLIENTS)]
        try:
            for _ in range(4):
                time.sleep(1.5)
                site.kill("postgres")
            time.sleep(1.5)
            site.child("postgres").send_signal(2)  # and once in order, as an administrator restarts it
            site.wait_recovered()
            time.sleep(1)
        finally:
            stop.set()
        replies = {line: reply for writer in writers for line, reply in writer.result().items()}

    done = {line: reply for line, reply in replies.items() if reply.carried_out}
    assert len(done) > len(replies) / 2
    states = site.wait_ended(mission)
    diary = site.diary(mission)
    assert max(diary.values()) == 1
    assert set(done) <= set(diary)
    # What was acknowledged is in the database, each under its own action.
    acknowledged = {reply.action_id for reply in done.values()}
    rows = site.rows(
        "SELECT id::text, state, arguments->>'line' FROM governance_action WHERE mission_id = %s", mission.id
    )
    succeeded = {key: line for key, state, line in rows if state == "succeeded" and line}
    assert acknowledged <= set(succeeded)
    assert {succeeded[reply.action_id] for reply in done.values()} == set(done)
    # What nobody could say is named so, and a person who reads the diary settles it.
    unknown = [(key, line) for key, state, line in rows if state == "unknown"]
    assert len(unknown) == states["unknown"]
    site.reconcile(*(key for key, line in unknown if diary[line]))
    site.reconcile(*(key for key, line in unknown if not diary[line]), outcome="failure")
    wait_until(lambda: site.open_holds(mission) == 0, "every hold's end")
    assert set(diary) <= {line for _, _, line in rows}
    site.check_sums()
    site.check_audit()


def test_while_the_database_is_away_everyone_is_told_so_and_an_outcome_waits_for_it(
    site: Site, agent: Agent, mission: Mission
) -> None:
    agent.write("before")
    nadia = site.person("nadia")
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(agent.write, "during", seconds_between=2)
        wait_until(lambda: site.diary(mission)["during"], "the call to reach its server")
        with site.away("postgres"):
            over_mcp = agent.call("diary__write", {"line": "refused"})
            assert over_mcp.status == 503
            assert over_mcp.error["data"]["code"] == "database.unavailable"
            assert over_mcp.may_be_repeated
            headers = {"Authorization": f"Bearer {mission.token}", "Idempotency-Key": uuid.uuid4().hex}
            proposal = {"kind": "tool.call", "tool": "diary__write", "arguments": {"line": "refused"}}
            over_rest = httpx2.post(f"{site.url}/api/v1/actions", json=proposal, headers=headers, timeout=30)
            assert over_rest.status_code == 503
            assert over_rest.headers["retry-after"] == "1"
            assert over_rest.json()["code"] == "database.unavailable"
            page = nadia.get("/missions")
            assert page.status_code == 503
            assert "database does not answer" in page.text
            assert not site.answers()
        site.wait_recovered()
        reply = under_way.result(60)
    nadia.close()
    assert reply.carried_out
    assert site.value("SELECT state FROM governance_action WHERE id = %s", reply.action_id) == "succeeded"
    assert site.diary(mission) == {"before": 1, "during": 1}
    assert site.wait_ended(mission)["unknown"] == 0
    assert site.open_holds(mission) == 0
