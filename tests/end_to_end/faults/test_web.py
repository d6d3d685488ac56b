"""The web process killed where it hurts: after a commit nobody has heard of, and in the middle of a call."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import httpx2
import pytest

from tests.end_to_end.faults.site import Agent, Mission, Site, wait_until

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_decision_whose_hint_died_with_the_web_process_is_there_and_goes_on(
    site: Site, agent: Agent, mission: Mission
) -> None:
    with site.silent("valkey-server"):  # so that the hint can't have left
        asked = agent.insist("hostile__slow", {}, key="ask-once")
        assert asked.said["verdict"] == "escalate"
        site.kill("web")
    site.wait_recovered()
    again = agent.insist("hostile__slow", {}, key="ask-once")
    assert (again.said["id"], again.said["verdict"]) == (asked.said["id"], "escalate")
    assert site.states(mission)["waiting"] == 1
    dana = site.person("dana")
    inbox = dana.get("/approvals")
    assert str(asked.said["escalation"]["id"]) in inbox.text
    dana.close()
    site.do("approve", asked.action_id)
    assert agent.call("hostile__slow", {}).carried_out
    assert site.diary(mission) == {"slow": 1}
    assert site.states(mission)["waiting"] == 0
    assert site.open_holds(mission) == 0


def test_a_call_cut_off_with_the_web_process_becomes_unknown_and_never_runs_again(
    site: Site, agent: Agent, mission: Mission
) -> None:
    spent = "SELECT coalesce(sum(actual_money), 0) FROM budgets_hold WHERE action_id = %s"
    with ThreadPoolExecutor(1) as pool:
        cut_off = pool.submit(agent.call, "diary__write", {"line": "once", "seconds": 20}, key="cut-off")
        wait_until(lambda: site.diary(mission)["once"], "the call to reach its server")
        site.kill("web")
        assert isinstance(cut_off.exception(30), httpx2.TransportError)
    site.wait_recovered()
    # The server that wrote the line ended with its session; what it did is done, and nobody has its answer.
    again = agent.insist("diary__write", {"line": "once", "seconds": 20}, key="cut-off")
    assert not again.carried_out
    assert again.said["state"] in ("executing", "unknown")
    assert agent.write("meanwhile").carried_out
    assert site.wait_ended(mission)["unknown"] == 1
    unknown = again.said["id"]
    assert agent.insist("diary__write", {"line": "once", "seconds": 20}, key="cut-off").said["state"] == "unknown"
    assert site.diary(mission) == {"once": 1, "meanwhile": 1}

    site.reconcile(unknown)
    assert site.value("SELECT state FROM governance_action WHERE id = %s", unknown) == "succeeded"
    assert site.open_holds(mission) == 0
    assert site.value(spent, unknown) == Decimal("0.01")
    events = site.rows("SELECT event FROM audit_entry WHERE subject_id = %s ORDER BY id", unknown)
    assert [event for (event,) in events] == [
        "action.allowed",
        "permit.consumed",
        "action.unknown",
        "action.reconciled",
    ]
