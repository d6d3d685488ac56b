"""Permits over REST: used once, by whom they were given to, for what they were given, in their time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agents import services
from agents.models import Mission
from controlplane.tenancy.types import Principal
from governance import permits
from governance import services as governance
from governance.choices import ActionState
from governance.models import Action
from tests.agents.gateways.rest_client import Api

from .calls import CREDIT


def test_permit_works_once(api: Api, upstream: Any) -> None:
    proposed = api.propose(CREDIT).body
    body = {"permit": proposed["permit"]["token"]}
    assert api.post(f"/{proposed['id']}:execute", body).status == 200
    again = api.post(f"/{proposed['id']}:execute", body)
    assert (again.status, again.code) == (409, "permit.consumed")
    assert len(upstream.calls) == 1


def test_executing_twice_in_parallel_runs_once(api: Api, upstream: Any) -> None:
    proposed = api.propose(CREDIT).body
    body = {"permit": proposed["permit"]["token"]}
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda _: api.post(f"/{proposed['id']}:execute", body), range(6)))
    assert sorted(reply.status for reply in replies) == [200, 409, 409, 409, 409, 409]
    assert len(upstream.calls) == 1


def test_permit_is_of_no_use_to_another_agent(api: Api, make_rival: Callable[[], Api], upstream: Any) -> None:
    proposed = api.propose(CREDIT).body
    reply = make_rival().post(f"/{proposed['id']}:execute", {"permit": proposed["permit"]["token"]})
    assert reply.status in (403, 404)
    assert upstream.calls == []
    assert Action.objects.get(pk=proposed["id"]).state == ActionState.PERMITTED


def test_person_of_the_team_cannot_run_an_agents_permit(api: Api, person_token: str, upstream: Any) -> None:
    proposed = api.propose(CREDIT).body
    person = Api(f"http://{api.address}", person_token)
    reply = person.post(f"/{proposed['id']}:execute", {"permit": proposed["permit"]["token"]})
    assert (reply.status, reply.code) == (403, "permit.other_holder")
    assert upstream.calls == []


def test_altered_and_foreign_permits_are_refused(api: Api, upstream: Any) -> None:
    mine, other = api.propose(CREDIT).body, api.propose({**CREDIT, "tool": "books__overdue", "arguments": {}}).body
    token = mine["permit"]["token"]
    altered = token[:-3] + ("AAA" if token[-3:] != "AAA" else "BBB")
    for wrong, code in (
        (altered, "permit.forged"),
        ("", "permit.forged"),
        ("rmp_", "permit.forged"),
        (f"{token}=", "permit.forged"),
        ("eyJhbGciOiJub25lIn0.e30.", "permit.forged"),
        ("x" * 5000, "permit.forged"),
        (other["permit"]["token"], "permit.other_action"),
    ):
        reply = api.post(f"/{mine['id']}:execute", {"permit": wrong})
        assert (reply.status, reply.code) == (403, code)
    assert upstream.calls == []
    assert api.post(f"/{mine['id']}:execute", {"permit": token}).status == 200


def test_permit_of_an_mcp_call_does_not_open_this_edge(api: Api, token: str, upstream: Any) -> None:
    from controlplane.tenancy.services import principal_of_token
    from governance.types import Proposal

    judgement = governance.propose(
        proposer=principal_of_token(token),
        proposal=Proposal("tool.call", CREDIT["arguments"], tool=str(CREDIT["tool"]), audience="mcp"),
    )
    assert judgement.permit is not None
    reply = api.post(f"/{judgement.action_id}:execute", {"permit": judgement.permit.token})
    assert reply.status == 403
    assert upstream.calls == []


def test_permit_after_its_time_is_expired(api: Api, upstream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permits, "TTL_SECONDS", 1)
    proposed = api.propose(CREDIT).body
    time.sleep(1.2)
    for body in ({"permit": proposed["permit"]["token"]}, {}):
        reply = api.post(f"/{proposed['id']}:execute", body)
        assert (reply.status, reply.code) == (409, "permit.expired")
    assert upstream.calls == []


def test_stop_between_verdict_and_run_is_a_refusal(api: Api, owner: Principal, mission: Mission, upstream: Any) -> None:
    proposed = api.propose(CREDIT).body
    services.pause_mission(actor=owner, mission_id=mission.pk, reason="wait")
    reply = api.post(f"/{proposed['id']}:execute", {"permit": proposed["permit"]["token"]})
    assert (reply.status, reply.code) == (409, "mission.not_active")
    assert upstream.calls == []
