"""Servers that misbehave, through the whole gateway: the action has a named end, its hold too, the run goes on."""

from __future__ import annotations

import httpx2
import pytest

from tests.end_to_end.faults.site import Agent, Mission, Site

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("tool", "reason"),
    [("flood", "upstream.result_too_large"), ("die", "upstream.died"), ("garbage", "upstream.garbage")],
)
def test_a_server_that_floods_dies_or_answers_garbage_leaves_an_unknown_outcome(
    site: Site, agent: Agent, mission: Mission, tool: str, reason: str
) -> None:
    reply = agent.insist(f"hostile__{tool}", {}, key="once")
    assert not reply.carried_out
    assert (reply.said["state"], reply.said["reason_code"]) == ("unknown", reason)
    assert len(reply.text) < 1000
    # Asked again under the same key it is not done again, and the server is there for others.
    assert agent.insist(f"hostile__{tool}", {}, key="once").said["state"] == "unknown"
    assert agent.insist("hostile__echo", {"n": 1}).carried_out
    assert agent.write("meanwhile").carried_out
    assert site.diary(mission) == {tool: 1, "echo": 1, "meanwhile": 1}
    assert site.wait_ended(mission)["unknown"] == 1
    site.reconcile(reply.said["id"], outcome="failure")
    assert site.open_holds(mission) == 0


def test_a_server_that_answers_under_another_id_is_not_believed(site: Site, agent: Agent, mission: Mission) -> None:
    reply = agent.insist("hostile__wrong_id", {})
    assert reply.carried_out
    assert reply.text == "for you"
    assert agent.insist("hostile__echo", {"mine": True}).text == '{"mine": true}'
    assert site.wait_ended(mission)["unknown"] == 0
    assert site.open_holds(mission) == 0


def test_a_server_that_hangs_is_given_up_whether_or_not_its_caller_waits(
    site: Site, agent: Agent, mission: Mission
) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        agent.call("hostile__hang", {}, seconds=2)
    assert agent.write("meanwhile").carried_out
    assert site.wait_ended(mission)["unknown"] == 1
    assert site.diary(mission) == {"hang": 1, "meanwhile": 1}
    [(unknown, state)] = site.rows(
        "SELECT id::text, state FROM governance_action WHERE mission_id = %s AND tool = 'hostile__hang'", mission.id
    )
    assert state == "unknown"
    site.reconcile(unknown, outcome="failure")
    assert site.open_holds(mission) == 0
