"""Who asks: tokens that are none, dead or of somebody else, and what their bearers see."""

from __future__ import annotations

import http.client
import json
import socket
import time
import uuid
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from agents import services
from agents.models import Mission
from controlplane.common.clock import now
from controlplane.tenancy import credentials, tokens
from controlplane.tenancy.models import Token, User
from controlplane.tenancy.types import Permission, Principal
from governance import services as governance
from governance.choices import ActionState
from governance.models import Action, Escalation
from governance.types import Proposal
from tests.agents.gateways.rest_client import Api, everything

from .calls import CREDIT, LARGE_CREDIT, count, the_call


def test_nobody_without_a_token(address: str) -> None:
    nobody = Api(address, None)
    for reply in (nobody.get(), nobody.propose(CREDIT), nobody.get(f"/{uuid.uuid4()}")):
        assert (reply.status, reply.code) == (401, "token.missing")
        assert reply.headers["www-authenticate"] == "Bearer"
    assert nobody.send("GET", "", authorization="Basic YTpi").code == "token.missing"
    assert count() == 0


MADE_UP_TOKENS = [
    ("rmt_run_" + "x" * 43 + "_00000000", "token.malformed"),
    ("Robert'); DROP TABLE tenancy_token;--", "token.malformed"),
    (f"rmt_run_{'x' * 43}_{zlib.crc32(b'run_' + b'x' * 43):08x}", "token.unknown"),
]


def test_made_up_tokens_are_refused(address: str) -> None:
    for token, code in MADE_UP_TOKENS:
        reply = Api(address, token).propose(CREDIT)
        assert (reply.status, reply.code) == (401, code)


def test_two_authorization_headers_are_refused(api: Api) -> None:
    with socket.create_connection(api.address.split(":"), timeout=20) as connection:  # type: ignore[arg-type]
        line = f"authorization: Bearer {api.token}\r\n"
        connection.sendall(f"GET /api/v1/actions HTTP/1.1\r\nhost: x\r\n{line}{line}\r\n".encode())
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"request.repeated_header" in answer


def test_revoked_token_dies_before_the_next_request_of_an_open_connection(api: Api, owner: Principal) -> None:
    connection = http.client.HTTPConnection(api.address, timeout=30)
    headers = {"authorization": f"Bearer {api.token}"}
    connection.request("GET", "/api/v1/actions", headers=headers)
    first = connection.getresponse()
    assert (first.status, bool(first.read())) == (200, True)
    credentials.revoke_token(principal=owner, token_id=Token.objects.get(hash=tokens.keyed_hash(api.token or "")).pk)
    connection.request("GET", "/api/v1/actions", headers=headers)
    second = connection.getresponse()
    assert second.status == 401
    assert json.loads(second.read())["code"] == "token.revoked"
    connection.close()


def test_token_that_is_revoked_while_it_waits_learns_nothing_more(api: Api, owner: Principal) -> None:
    action_id = api.propose(LARGE_CREDIT).body["id"]
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(api.get, f"/{action_id}?wait=30")
        time.sleep(0.5)
        credentials.revoke_token(
            principal=owner, token_id=Token.objects.get(hash=tokens.keyed_hash(api.token or "")).pk
        )
        reply = pending.result(25)
    assert (reply.status, reply.code) == (401, "token.revoked")


def test_expired_token_and_the_token_of_a_stopped_mission_are_dead(
    api: Api, owner: Principal, mission: Mission
) -> None:
    Token.objects.filter(hash=tokens.keyed_hash(api.token or "")).update(expires_at=now() - timedelta(seconds=1))
    assert api.propose(CREDIT).code == "token.expired"
    Token.objects.filter(hash=tokens.keyed_hash(api.token or "")).update(expires_at=now() + timedelta(hours=1))
    services.stop_mission(actor=owner, mission_id=mission.pk, reason="enough")
    assert api.propose(CREDIT).code == "token.revoked"
    assert count() == 0


def test_agent_named_in_the_arguments_changes_nothing_about_who_acts(
    api: Api, make_rival: Callable[[], Api], mission: Mission
) -> None:
    claimed = {"kind": "tool.call", "tool": "books__overdue", "arguments": {"agent_id": str(mission.agent_id)}}
    theirs = make_rival().propose(claimed)
    assert theirs.status == 422
    assert theirs.code == "mission.ambiguous"
    for field in ("agent", "agent_id", "proposer", "mission", "audience", "idempotency_key"):
        reply = api.propose({**CREDIT, field: "x"})
        assert (reply.status, reply.code, reply.body["errors"][0]["pointer"]) == (422, "action.malformed", f"/{field}")
    mine = api.propose(claimed)
    assert str(Action.objects.get(pk=mine.body["id"]).agent_id) == str(mission.agent_id)
    assert count() == 1


def test_person_does_not_propose_tool_calls(api: Api, person_token: str) -> None:
    reply = Api(f"http://{api.address}", person_token).propose(CREDIT)
    assert (reply.status, reply.code) == (403, "action.not_an_agent")
    assert count() == 0


def test_other_tenant_sees_and_moves_nothing(api: Api, stranger: Api, upstream: Any) -> None:
    proposed = api.propose(CREDIT).body
    permit = {"permit": proposed["permit"]["token"]}
    for reply in (
        stranger.get(f"/{proposed['id']}"),
        stranger.post(f"/{proposed['id']}:execute", permit),
        stranger.post(f"/{proposed['id']}:outcome", {"outcome": "success", **permit}),
        stranger.post(f"/{proposed['id']}:withdraw", {}),
        stranger.post(f"/{proposed['id']}:answer", {"text": "Because"}),
        stranger.post(f"/{proposed['id']}:settle", {"outcome": "success", "reason": "I looked"}),
    ):
        assert (reply.status, reply.code) == (404, "action.not_found")
    assert stranger.get().body == {"items": [], "next": None}
    mission_id = the_call().mission_id
    assert stranger.get(f"?mission={mission_id}").body["items"] == []
    assert the_call().state == ActionState.PERMITTED
    assert upstream.calls == []


def test_other_run_does_not_see_this_runs_mission(api: Api, make_rival: Callable[[], Api]) -> None:
    proposed = api.propose(CREDIT).body
    rival = make_rival()
    assert rival.get(f"/{proposed['id']}").status == 404
    assert rival.get().body["items"] == []


def test_a_token_that_only_reads_takes_back_nothing_its_person_asked_for(
    address: str, owner: Principal, mission: Mission
) -> None:
    arguments = {"account_id": str(mission.account_id), "money": "1.00", "reason": "More"}
    asked = governance.propose(proposer=owner, proposal=Proposal("budget.topup", arguments, audience="remit"))
    path = f"/{asked.action_id}"

    def token(*scopes: Permission) -> Api:
        fields = {"name": "Board", "expires_at": now() + timedelta(hours=1), "scopes": set(scopes)}
        user = User.objects.get(pk=owner.user_id)
        return Api(address, credentials.issue_personal_token(principal=owner, user=user, **fields)[1])

    reader = token(Permission.ACTION_VIEW)
    assert reader.get(path).status == 200
    refused = reader.post(f"{path}:withdraw", {})
    assert (refused.status, Action.objects.get(pk=asked.action_id).state) == (404, ActionState.WAITING)
    done = token(Permission.ACTION_VIEW, Permission.MISSION_OPERATE).post(f"{path}:withdraw", {})
    assert (done.status, done.body["state"]) == (200, "withdrawn")


@pytest.mark.parametrize("turned", [False, True], ids=["asked by the run", "asked by the credential"])
def test_one_attempt_is_one_agent_whichever_of_its_tokens_speaks(
    api: Api, address: str, owner: Principal, approver: Principal, mission: Mission, upstream: Any, *, turned: bool
) -> None:
    text = services.issue_credential(
        actor=owner, agent_id=mission.agent_id, name="Settings", expires_at=now() + timedelta(days=1)
    )[1]
    asker, other = (Api(address, text), api) if turned else (api, Api(address, text))
    allowed, waits = asker.propose(CREDIT).body, asker.propose(LARGE_CREDIT).body
    assert other.post(f"/{allowed['id']}:execute", {"permit": allowed["permit"]["token"]}).status == 200
    assert len(upstream.calls) == 1
    row = Escalation.objects.get(action_id=waits["id"])
    governance.ask_agent(actor=approver, escalation_id=row.pk, text="Why so much?")
    assert other.post(f"/{waits['id']}:answer", {"text": "Agreed in March."}).status == 200
    assert other.post(f"/{waits['id']}:withdraw", {}).body["state"] == "withdrawn"
    mine = asker.propose(CREDIT).body
    report = {"permit": mine["permit"]["token"], "outcome": "success"}
    assert other.post(f"/{mine['id']}:outcome", report).body["state"] == "succeeded"
