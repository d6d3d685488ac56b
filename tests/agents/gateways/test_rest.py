"""`/api/v1/actions` over real connections to the whole application: shapes of answers, repeats, races, bad input."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import uuid
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from agents import services
from agents.choices import Runtime
from agents.gateways import repeats as repeating
from agents.gateways.repeats import Repeats
from agents.models import Mission
from agents.services.onboarding import Person, create_organisation
from budgets import selectors as budgets
from budgets.types import Limits as Money
from controlplane.common import rate_limits
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import credentials, tokens
from controlplane.tenancy.models import Organisation, Team, Token, TokenKind, User
from controlplane.tenancy.types import Principal, Role
from governance import permits
from governance import services as governance
from governance.choices import ActionState
from governance.models import Action, Decision, Escalation, Permit

from .rest_client import Api

API_PAGE = Path(__file__).resolve().parents[3] / "docs" / "api.md"
BOM = b"\xef\xbb\xbf"
CREDIT = {"kind": "tool.call", "tool": "books__apply_credit", "arguments": {"invoice": "INV-1", "amount": "40.00"}}
LARGE_CREDIT = {**CREDIT, "arguments": {"invoice": "INV-2", "amount": "250.00"}}
TOO_LARGE_CREDIT = {**CREDIT, "arguments": {"invoice": "INV-3", "amount": "900.00"}}
FORBIDDEN = {"kind": "tool.call", "tool": "books__delete_everything", "arguments": {}}


@pytest.fixture
def make_rival(address: str, company: Organisation, owner: Principal) -> Callable[[], Api]:
    """Another agent of the same team with a mission and a run token of its own."""

    def make() -> Api:
        team = Team.objects.get(organisation=company)
        agent = services.register_agent(
            actor=owner, team_id=team.pk, name=f"Rival {uuid.uuid4().hex[:6]}", runtime=Runtime.EXTERNAL
        )
        text = tokens.issue(
            kind=TokenKind.AGENT,
            organisation_id=company.pk,
            team_id=team.pk,
            agent_id=agent.pk,
            name=agent.name,
            expires_at=now() + timedelta(hours=1),
        )[1]
        return Api(address, text)

    return make


@pytest.fixture
def stranger(address: str) -> Api:
    """A person of another organisation, with every role there."""
    other = create_organisation(
        name="Elsewhere",
        currency="USD",
        monthly_limit=Money(),
        teams={"Sales": Money()},
        people=(Person("charlie@elsewhere.example", "Charlie", tuple(Role), None),),
    )
    user = User.objects.get(email="charlie@elsewhere.example")
    text = tokens.issue(
        kind=TokenKind.PERSON,
        organisation_id=other.pk,
        user_id=user.pk,
        name="Charlie",
        expires_at=now() + timedelta(hours=1),
    )[1]
    return Api(address, text)


@pytest.fixture
def person_token(owner: Principal) -> str:
    user = User.objects.get(pk=owner.user_id)
    return credentials.issue_personal_token(
        principal=owner, user=user, name="laptop", expires_at=now() + timedelta(days=1)
    )[1]


def everything(connection: socket.socket) -> bytes:
    """What the server says until it closes, or falls silent for a second."""
    connection.settimeout(10)
    answer = b""
    with suppress(TimeoutError, ConnectionError):
        while piece := connection.recv(65536):
            answer += piece
            connection.settimeout(1)
    return answer


def count() -> int:
    """Tool calls; starting the mission was an action too."""
    return Action.objects.filter(kind="tool.call").count()


def the_call() -> Action:
    return Action.objects.get(kind="tool.call")


def approve(approver: Principal, action_id: str, *, agree: bool = True) -> None:
    question = Escalation.objects.get(action_id=action_id)
    governance.decide(
        approver=approver, escalation_id=question.pk, version=question.version, approve=agree, reason="as agreed"
    )


# Shapes ---------------------------------------------------------------------------------------------------------------

ANSWER = {"id", "state", "verdict", "reason_code", "message", "remedies", "digest", "permit", "escalation"}


def test_allowed_proposal_answers_with_a_permit_that_lives_a_minute(api: Api, upstream: Any) -> None:
    reply = api.propose(CREDIT)
    assert reply.status == 201
    assert set(reply.body) == ANSWER
    assert (reply.body["verdict"], reply.body["state"], reply.body["escalation"]) == ("allow", "permitted", None)
    assert set(reply.body["permit"]) == {"token", "expires_at"}
    assert reply.body["digest"].startswith("sha256:")
    assert reply.headers["location"] == f"/api/v1/actions/{reply.body['id']}"
    assert upstream.calls == []


def test_refused_proposal_says_why_and_what_would_be_allowed(api: Api) -> None:
    reply = api.propose(TOO_LARGE_CREDIT)
    assert (reply.status, reply.body["verdict"], reply.body["state"]) == (201, "deny", "denied")
    assert reply.body["reason_code"] == "grant.argument_above_limit"
    assert "100.00" in " ".join(reply.body["remedies"])
    assert reply.body["permit"] is None
    ungranted = api.propose(FORBIDDEN)
    assert (ungranted.body["verdict"], ungranted.body["reason_code"]) == ("deny", "grant.missing")


def test_proposal_above_its_limit_waits_and_says_for_how_long(api: Api) -> None:
    reply = api.propose(LARGE_CREDIT)
    assert (reply.status, reply.body["verdict"], reply.body["state"]) == (201, "escalate", "waiting")
    assert set(reply.body["escalation"]) == {"id", "url", "expires_at"}
    assert reply.body["escalation"]["url"].endswith(f"/actions/{reply.body['id']}")
    assert reply.body["permit"] is None
    shown = api.get(f"/{reply.body['id']}").body
    assert shown["escalation"] == reply.body["escalation"]


def test_item_and_list_show_the_action_with_money_as_text(api: Api) -> None:
    first = api.propose(CREDIT).body["id"]
    second = api.propose(FORBIDDEN).body["id"]
    shown = api.get(f"/{first}")
    assert shown.status == 200
    assert shown.body["arguments"] == CREDIT["arguments"]
    assert isinstance(shown.body["price"]["amount"], str)
    assert shown.body["price"]["currency"] == "USD"
    assert [item["id"] for item in api.get("?kind=tool.call").body["items"]] == [second, first]
    assert [item["id"] for item in api.get("?verdict=deny").body["items"]] == [second]
    page = api.get("?kind=tool.call&limit=1").body
    assert [item["id"] for item in page["items"]] == [second]
    rest = api.get(f"?kind=tool.call&limit=1&cursor={page['next']}").body
    assert ([item["id"] for item in rest["items"]], rest["next"]) == ([first], None)


def test_batch_answers_each_action_by_itself(api: Api) -> None:
    items = [CREDIT, FORBIDDEN, {"kind": 1}, LARGE_CREDIT]
    reply = api.post(":batch", {"items": items}, idempotency_key="b1")
    assert reply.status == 200
    first, second, third, fourth = reply.body["items"]
    assert [first["verdict"], second["verdict"], fourth["verdict"]] == ["allow", "deny", "escalate"]
    assert (third["status"], third["code"], third["errors"][0]["pointer"]) == (422, "action.malformed", "/kind")
    assert len(third["trace_id"]) == 32
    again = api.post(":batch", {"items": items}, idempotency_key="b1").body["items"]
    assert [item.get("id") for item in again] == [item.get("id") for item in reply.body["items"]]
    assert [item["status"] for item in again] == [200, 200, 422, 200]
    assert count() == 3


def test_batch_of_none_or_too_many_is_refused_whole(api: Api) -> None:
    for items in ([], [CREDIT] * 101, "x", None):
        reply = api.post(":batch", {"items": items}, idempotency_key="b2")
        assert (reply.status, reply.code) == (422, "batch.size")
    assert count() == 0


def test_execute_makes_the_call_and_answers_with_its_result(api: Api, upstream: Any, mission: Mission) -> None:
    proposed = api.propose(CREDIT).body
    reply = api.post(f"/{proposed['id']}:execute", {"permit": proposed["permit"]["token"]})
    assert (reply.status, reply.body["state"]) == (200, "succeeded")
    assert reply.body["result"]["isError"] is False
    assert upstream.calls == [("apply_credit", CREDIT["arguments"])]
    assert budgets.mission_spend(mission_ids=[mission.pk])[mission.pk].held.money == 0


def test_waiting_action_runs_once_a_person_agreed(api: Api, approver: Principal, upstream: Any) -> None:
    action_id = api.propose(LARGE_CREDIT).body["id"]
    early = api.post(f"/{action_id}:execute", {})
    assert (early.status, early.code) == (409, "permit.none")
    approve(approver, action_id)
    assert api.get(f"/{action_id}").body["state"] == "permitted"
    assert api.post(f"/{action_id}:execute", {}).body["state"] == "succeeded"
    assert upstream.calls == [("apply_credit", LARGE_CREDIT["arguments"])]


def test_denied_question_stays_denied(api: Api, approver: Principal, upstream: Any) -> None:
    action_id = api.propose(LARGE_CREDIT).body["id"]
    approve(approver, action_id, agree=False)
    assert api.get(f"/{action_id}").body["state"] == "denied"
    assert api.post(f"/{action_id}:execute", {}).status == 409
    assert upstream.calls == []


def test_waiting_request_returns_when_the_state_changes(api: Api, approver: Principal) -> None:
    action_id = api.propose(LARGE_CREDIT).body["id"]
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(api.get, f"/{action_id}?wait=30")
        time.sleep(0.5)
        assert not pending.done()
        approve(approver, action_id)
        assert pending.result(25).body["state"] == "permitted"
    assert time.monotonic() - started < 25


def test_wait_ends_by_itself_and_is_not_needed_for_what_has_ended(api: Api) -> None:
    waiting = api.propose(LARGE_CREDIT).body["id"]
    started = time.monotonic()
    assert api.get(f"/{waiting}?wait=1").body["state"] == "waiting"
    assert time.monotonic() - started >= 1
    denied = api.propose(FORBIDDEN).body["id"]
    started = time.monotonic()
    assert api.get(f"/{denied}?wait=30").body["state"] == "denied"
    assert time.monotonic() - started < 20


def test_outside_executor_redeems_and_reports(api: Api, upstream: Any) -> None:
    proposed = api.propose(CREDIT).body
    report = {"outcome": "success", "effects": ["credit.applied"], "usage": {}, "summary": "done"}
    reply = api.post(f"/{proposed['id']}:outcome", {**report, "permit": proposed["permit"]["token"]})
    assert (reply.status, reply.body["state"], reply.body["outcome"]["summary"]) == (200, "succeeded", "done")
    assert reply.body["cost"]["currency"] == "USD"
    assert upstream.calls == []
    other = api.post(f"/{proposed['id']}:outcome", {"outcome": "failure"})
    assert (other.status, other.code) == (409, "outcome.already_recorded")


def test_outcome_without_a_start_is_refused(api: Api) -> None:
    proposed = api.propose(CREDIT).body
    reply = api.post(f"/{proposed['id']}:outcome", {"outcome": "success"})
    assert (reply.status, reply.code) == (409, "outcome.never_started")


UNUSABLE_REPORTS: list[dict[str, Any]] = [
    {"outcome": "splendid"},
    {"outcome": 1},
    {"outcome": "success", "effects": "x"},
    {"outcome": "success", "effects": ["x" * 61]},
    {"outcome": "success", "usage": {"money": "0"}},
    {"outcome": "success", "agent_id": "me"},
]


def test_report_that_cannot_be_taken_leaves_the_permit_unused(api: Api) -> None:
    proposed = api.propose(CREDIT).body
    for report in UNUSABLE_REPORTS:
        reply = api.post(f"/{proposed['id']}:outcome", {**report, "permit": proposed["permit"]["token"]})
        assert reply.status == 422, report
        assert reply.code
        assert the_call().state == ActionState.PERMITTED
        assert Permit.objects.get().consumed_at is None


def test_withdrawn_action_gives_its_hold_back_and_runs_no_more(api: Api, mission: Mission, upstream: Any) -> None:
    proposed = api.propose(CREDIT).body
    reply = api.post(f"/{proposed['id']}:withdraw", {"reason": "changed my mind"})
    assert (reply.status, reply.body["state"]) == (200, "withdrawn")
    assert budgets.mission_spend(mission_ids=[mission.pk])[mission.pk].held.money == 0
    assert api.post(f"/{proposed['id']}:execute", {"permit": proposed["permit"]["token"]}).status == 409
    again = api.post(f"/{proposed['id']}:withdraw", {})
    assert (again.status, again.code) == (409, "action.not_open")
    assert upstream.calls == []


# Repeats --------------------------------------------------------------------------------------------------------------


def test_same_key_and_body_give_the_same_action_and_one_live_permit(api: Api, mission: Mission) -> None:
    first = api.propose(CREDIT, key="k1")
    second = api.propose(CREDIT, key="k1")
    assert (first.status, second.status) == (201, 200)
    assert first.body["id"] == second.body["id"]
    assert count() == 1
    stale = api.post(f"/{first.body['id']}:execute", {"permit": first.body["permit"]["token"]})
    assert (stale.status, stale.code) == (409, "permit.superseded")
    fresh = api.post(f"/{first.body['id']}:execute", {"permit": second.body["permit"]["token"]})
    assert fresh.body["state"] == "succeeded"


def test_spelling_of_the_body_does_not_make_it_another_request(api: Api) -> None:
    first = api.propose(json.dumps(CREDIT).encode(), key="k2")
    reordered = dict(reversed(list(CREDIT.items())))
    second = api.propose(json.dumps(reordered, indent=4).encode(), key="k2")
    assert (second.status, second.body["id"]) == (200, first.body["id"])


def test_same_key_with_another_body_is_refused_and_changes_nothing(api: Api) -> None:
    api.propose(CREDIT, key="k3")
    reply = api.propose(LARGE_CREDIT, key="k3")
    assert (reply.status, reply.code) == (422, "idempotency.other_body")
    assert count() == 1


def test_keys_of_two_agents_do_not_meet(api: Api, make_rival: Callable[[], Api]) -> None:
    mine = api.propose(CREDIT, key="k4")
    theirs = make_rival().propose(LARGE_CREDIT, key="k4")
    assert mine.status == 201
    assert theirs.code != "idempotency.other_body"


def test_proposal_without_a_key_is_told_to_bring_one(api: Api) -> None:
    for path, body in (("", CREDIT), (":batch", {"items": [CREDIT]})):
        reply = api.post(path, body)
        assert (reply.status, reply.code) == (428, "idempotency.key_missing")
        assert "Idempotency-Key" in reply.body["remedies"][0]
    assert count() == 0


def test_odd_keys_are_refused(api: Api) -> None:
    for key in ("x" * 121, "two words", "caf\xe9"):
        reply = api.propose(CREDIT, key=key)
        assert (reply.status, reply.code) == (422, "idempotency.key_malformed")
    assert count() == 0


def test_many_at_once_with_one_key_are_one_action(api: Api, mission: Mission) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: api.propose(CREDIT, key="k5"), range(16)))
    assert {reply.status for reply in replies} <= {200, 201, 409}
    assert [reply.status for reply in replies].count(201) == 1
    assert all(reply.code == "idempotency.in_flight" for reply in replies if reply.status == 409)
    assert count() == 1
    assert Decision.objects.filter(action=the_call()).count() == 1


def test_repeated_execute_with_one_key_gets_the_same_result_and_calls_once(api: Api, upstream: Any) -> None:
    proposed = api.propose(CREDIT).body
    body = {"permit": proposed["permit"]["token"]}
    first = api.post(f"/{proposed['id']}:execute", body, idempotency_key="e1")
    second = api.post(f"/{proposed['id']}:execute", body, idempotency_key="e1")
    assert first.status == second.status == 200
    assert first.body == second.body
    assert len(upstream.calls) == 1
    other = api.post(f"/{proposed['id']}:execute", {}, idempotency_key="e1")
    assert (other.status, other.code) == (422, "idempotency.other_body")


def test_execute_in_flight_says_so_to_a_repeat_with_its_key(api: Api, upstream: Any) -> None:
    release = threading.Event()

    async def slow() -> None:
        import asyncio

        await asyncio.get_running_loop().run_in_executor(None, release.wait, 20)

    upstream.behave = lambda _name, _arguments: slow()
    proposed = api.propose(CREDIT).body
    body = {"permit": proposed["permit"]["token"]}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(api.post, f"/{proposed['id']}:execute", body, idempotency_key="e2")
        deadline = time.monotonic() + 20
        while not upstream.calls and time.monotonic() < deadline:
            time.sleep(0.02)
        second = api.post(f"/{proposed['id']}:execute", body, idempotency_key="e2")
        assert (second.status, second.code) == (409, "idempotency.in_flight")
        release.set()
        assert first.result(30).body["state"] == "succeeded"


async def test_refusals_are_repeated_and_breakdowns_are_not() -> None:
    repeats, done = Repeats(), []

    async def fail(status: int) -> dict[str, Any]:
        done.append(status)
        raise RemitError("some.code", "No.", status)

    for status, times in ((409, 1), (503, 2)):
        done.clear()
        for _ in range(2):
            with pytest.raises(RemitError) as refused:
                await repeats.once(("a", str(status)), b"body", lambda status=status: fail(status))
            assert refused.value.status == status
        assert len(done) == times


async def test_large_answers_are_remembered_only_as_far_as_they_fit() -> None:
    repeats, done = Repeats(), []
    text = "x" * (repeating.MOST_BYTES // 8)

    async def work(number: int) -> dict[str, Any]:
        done.append(number)
        return {"number": number, "text": text}

    for number in [*range(12), 11, 0]:
        assert (await repeats.once(("a", str(number)), b"body", lambda number=number: work(number)))["number"] == number
    assert done == [*range(12), 0]


# Permits and races ----------------------------------------------------------------------------------------------------


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


# Identity -------------------------------------------------------------------------------------------------------------


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


# Encoding -------------------------------------------------------------------------------------------------------------


def body_with(arguments: bytes) -> bytes:
    return b'{"kind": "tool.call", "tool": "books__overdue", "arguments": ' + arguments + b"}"


MEANINGLESS = [
    (body_with(b'{"a": 1, "a": 2}'), "json.duplicate_key"),
    (b'{"kind": "tool.call", "kind": "mission.widen"}', "json.duplicate_key"),
    (body_with(b'{"a": NaN}'), "json.number_not_finite"),
    (body_with(b'{"a": -Infinity}'), "json.number_not_finite"),
    (body_with(b'{"a": 1e400}'), "json.number_not_finite"),
    (body_with(b'{"a": -0}'), "json.number_not_finite"),
    (body_with(b'{"a": 1e-400}'), "json.number_not_finite"),
    (body_with(b'{"a": ' + b"9" * 4300 + b"}"), "json.integer_too_large"),
    (body_with(b'{"a": 9007199254740993}'), "json.integer_too_large"),
    (body_with(b'{"a": "\\u0000"}'), "json.nul"),
    (body_with(b'{"a": "\\ud800"}'), "json.lone_surrogate"),
    (body_with(b'{"\\udc00": 1}'), "json.lone_surrogate"),
    (body_with(b'{"a": "\xff"}'), "json.invalid_utf8"),
    (body_with(b'{"a": "\xed\xa0\x80"}'), "json.invalid_utf8"),
    (body_with(b"[" * 100_000 + b"]" * 100_000), "json.too_deep"),
    (body_with(b'{"a":' * 40 + b"1" + b"}" * 40), "json.too_deep"),
    (body_with(b'{"a": [' + b"1," * 60_000 + b"1]}"), "json.too_many_values"),
    (BOM + json.dumps(CREDIT).encode(), "json.malformed"),
    (body_with(b"{}") + b"{}", "json.malformed"),
    (b"kind=tool.call", "json.malformed"),
    (b"[1]", "request.malformed"),
    (b"null", "request.malformed"),
    (b"", "action.malformed"),
    (body_with(b"[]"), "action.malformed"),
    (body_with('{"am\u200bount": "1"}'.encode()), "action.confusable_name"),
    (body_with('{"ａmount": "1"}'.encode()), "action.confusable_name"),
    (body_with('{"cafe\u0301": "1"}'.encode()), "action.confusable_name"),
    ('{"kind": "tool.call", "tool": "bооks__overdue", "arguments": {}}'.encode(), "action.malformed"),
    (b'{"kind": "tool.call", "tool": "books__overdue ", "arguments": {}}', "action.malformed"),
    (b'{"kind": "tool.call", "tool": "books__over\\u202edue", "arguments": {}}', "action.malformed"),
    (b'{"kind": "tool.fly", "tool": "books__overdue", "arguments": {}}', "action.unknown_kind"),
]


def test_body_that_means_no_one_thing_is_refused_unjudged(api: Api) -> None:
    for raw, code in MEANINGLESS:
        reply = api.propose(raw)
        assert (reply.status, reply.code) == (422, code), raw[:80]
    assert count() == 0


def test_name_in_letters_of_another_script_is_not_the_name_it_looks_like(api: Api) -> None:
    amount = "am\N{CYRILLIC SMALL LETTER O}unt"
    reply = api.propose({**CREDIT, "arguments": {"invoice": "INV-1", amount: "40.00"}})
    assert (reply.status, reply.body["verdict"]) == (201, "deny")


def test_one_and_one_point_zero_are_one_number(api: Api) -> None:
    first = api.propose(body_with(b'{"a": 1}'), key="n1")
    second = api.propose(body_with(b'{"a": 1.0}'), key="n1")
    assert second.body["id"] == first.body["id"]
    assert second.body["digest"] == first.body["digest"]


def test_composed_and_decomposed_text_stay_two_texts(api: Api) -> None:
    first = api.propose(body_with('{"a": "caf\u00e9"}'.encode())).body
    second = api.propose(body_with('{"a": "cafe\u0301"}'.encode())).body
    assert first["digest"] != second["digest"]


def test_compressed_bodies_are_not_opened(api: Api) -> None:
    reply = api.propose(zlib.compress(json.dumps(CREDIT).encode()), content_encoding="gzip")
    assert (reply.status, reply.code) == (415, "body.compressed")


def test_body_must_call_itself_json(api: Api) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"):
        reply = api.propose(CREDIT, content_type=kind)
        assert (reply.status, reply.code) == (415, "body.not_json")
    assert count() == 0


def test_fifty_megabytes_are_refused_by_their_announcement(api: Api) -> None:
    with socket.create_connection(api.address.split(":"), timeout=20) as connection:  # type: ignore[arg-type]
        connection.sendall(
            f"POST /api/v1/actions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {api.token}\r\n"
            "idempotency-key: big\r\ncontent-type: application/json\r\ncontent-length: 52428800\r\n\r\n".encode()
        )
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body.too_large" in answer


def test_endless_body_without_a_length_is_cut_off(api: Api) -> None:
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with socket.create_connection(api.address.split(":"), timeout=20) as connection:  # type: ignore[arg-type]
        connection.sendall(
            f"POST /api/v1/actions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {api.token}\r\n"
            "idempotency-key: big\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        )
        sent = 0
        try:
            while sent < 50 * 2**20:
                connection.sendall(piece)
                sent += 65536
        except OSError:
            pass
        assert sent < 50 * 2**20 or b" 413 " in connection.recv(100)
    assert count() == 0


def test_large_body_of_a_stranger_is_not_read(address: str) -> None:
    with socket.create_connection(urlsplit(address).netloc.split(":"), timeout=20) as connection:  # type: ignore[arg-type]
        connection.sendall(
            b"POST /api/v1/actions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 900000\r\n\r\n"
        )
        assert everything(connection).startswith(b"HTTP/1.1 401")


def test_slow_body_is_not_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from agents.gateways import rest

    read = rest.read_body
    monkeypatch.setattr(rest, "read_body", lambda scope, receive, **more: read(scope, receive, seconds=0.3, **more))
    with socket.create_connection(api.address.split(":"), timeout=20) as connection:  # type: ignore[arg-type]
        connection.sendall(
            f"POST /api/v1/actions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {api.token}\r\n"
            "idempotency-key: slow\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{".encode()
        )
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"body.too_slow" in answer


# The address ----------------------------------------------------------------------------------------------------------


NOT_SERVED = [
    ("PUT", "", "GET, POST"),
    ("DELETE", "", "GET, POST"),
    ("GET", ":batch", "POST"),
    ("POST", "/0190a000-0000-7000-8000-000000000000", "GET"),
    ("GET", "/0190a000-0000-7000-8000-000000000000:execute", "POST"),
    ("HEAD", "/0190a000-0000-7000-8000-000000000000:outcome", "POST"),
]


def test_other_methods_are_told_which_are_served(api: Api) -> None:
    for method, path, allow in NOT_SERVED:
        reply = api.send(method, path)
        assert (reply.status, reply.headers["allow"]) == (405, allow)
        if method != "HEAD":
            assert reply.code == "request.method"


NOWHERE = [
    "/x",
    "/0190a000-0000-7000-8000-000000000000:approve",
    "/0190A000-0000-7000-8000-000000000000",
    "/0190a000-0000-7000-8000-000000000000/../x",
    "foo",
    ":batch/x",
]


def test_unknown_addresses_are_problems_too(api: Api) -> None:
    for path in NOWHERE:
        reply = api.post(path, {})
        assert (reply.status, reply.code) == (404, "page.not_found"), path


def test_unknown_id_is_not_found(api: Api, nobody: uuid.UUID) -> None:
    for reply in (api.get(f"/{nobody}"), api.get(f"/{nobody}?wait=5"), api.post(f"/{nobody}:execute", {})):
        assert (reply.status, reply.code) == (404, "action.not_found")


ODD_QUERIES = [
    ("mission=x", "filter.invalid"),
    ("mission=", "filter.invalid"),
    ("agent=0190A000-0000-7000-8000-000000000000", "filter.invalid"),
    ("state=happy", "filter.invalid"),
    ("verdict=maybe", "filter.invalid"),
    ("mission_id=0190a000-0000-7000-8000-000000000000", "query.unknown"),
    ("state=denied&state=waiting", "query.unknown"),
    ("tool=%00", "query.unknown"),
    ("tool=%ff", "query.malformed"),
    ("limit=-1", "query.number"),
    ("limit=1e3", "query.number"),
    ("cursor=x", "cursor.invalid"),
    ("&".join(f"a{n}=1" for n in range(30)), "query.malformed"),
]


def test_query_that_cannot_be_taken_shows_nothing_else_instead(api: Api) -> None:
    for query, code in ODD_QUERIES:
        reply = api.get(f"?{query}")
        assert (reply.status, reply.code) == (422, code), query


def test_odd_waits_are_refused(api: Api, nobody: uuid.UUID) -> None:
    for wait in ("x", "-1", "1.5", ""):
        assert api.get(f"/{nobody}?wait={wait}").code == "query.number"


def test_database_that_is_gone_is_a_problem_and_no_permit(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    from agents.gateways import rest

    def gone(**_: Any) -> None:
        raise OperationalError("connection refused at 10.0.0.1")

    monkeypatch.setattr(rest.governance, "propose", gone)
    reply = api.propose(CREDIT)
    assert (reply.status, reply.code) == (503, "database.unavailable")
    assert "10.0.0.1" not in json.dumps(reply.body)


def test_examples_of_the_documentation_work_as_they_are_printed(address: str, token: str, upstream: Any) -> None:
    """Every shell block of docs/api.md, one after the other in one shell, with a token of this installation."""
    if shutil.which("jq") is None or shutil.which("curl") is None:
        pytest.skip("curl and jq are not installed")
    blocks = re.findall(r"^```sh\n(.*?)^```", API_PAGE.read_text(), re.DOTALL | re.MULTILINE)
    script = "set -euo pipefail\n" + "\necho ---\n".join(blocks)
    told = {"PATH": os.environ["PATH"], "REMIT_URL": address, "REMIT_TOKEN": token}
    done = subprocess.run(
        ["bash", "-c", script], env=told, capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    proposed, executed, reported, waiting, withdrawn = (part.split("\n") for part in done.stdout.split("---\n"))
    assert proposed[:2] == ["allow", "permitted"]
    assert executed[0] == '"succeeded"'
    assert reported[0] == '"succeeded"'
    assert waiting[0] == '"waiting"'
    assert withdrawn[0] == '"withdrawn"'
    assert upstream.calls == [("apply_credit", {"invoice": "INV-0113", "amount": "40.00"})]


def test_an_action_that_nobody_carried_out_says_so(api: Api) -> None:
    identifier = api.propose(CREDIT).body["id"]
    Action.objects.filter(pk=identifier).update(decided_at=now() - timedelta(seconds=90))
    governance.sweep()
    shown = api.get(f"/{identifier}").body
    assert (shown["state"], shown["reason_code"]) == ("expired", "permit.expired")
    assert "nobody carried it out" in shown["message"]
    assert shown["remedies"]


# How often ------------------------------------------------------------------------------------------------------------


def _limited(monkeypatch: pytest.MonkeyPatch, url: str, limit: int, at_once: int) -> None:
    """As many places as `limit`, in a count of its own."""
    name = f"rate:{uuid.uuid4().hex}"
    limiter = rate_limits.RateLimiter(url, limit, name=name, taken_at_once=at_once)
    monkeypatch.setattr(rate_limits, "_LIMITERS", {"actions": limiter})


def test_every_answer_says_what_is_left_and_too_many_are_told_when_to_come_back(
    api: Api, make_rival: Callable[[], Api], monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    _limited(monkeypatch, settings.REDIS_URL, 4, at_once=2)
    answers = [api.get(), api.propose({"kind": "nothing"}), api.get(f"/{uuid.uuid4()}"), api.get("?wait=x")]
    assert [answer.status for answer in answers] == [200, 422, 404, 422]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["3", "2", "1", "0"]
    assert {answer.headers["ratelimit-limit"] for answer in answers} == {"4"}
    before = count()
    refused = api.propose(CREDIT)
    assert (refused.status, refused.body["code"]) == (429, "rate_limit.reached")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert count() == before
    assert make_rival().get().status == 200


def test_processes_share_one_count_and_ask_for_it_seldom(settings: Any) -> None:
    name = f"rate:{uuid.uuid4().hex}"
    processes = [rate_limits.RateLimiter(settings.REDIS_URL, 20, name=name, taken_at_once=5) for _ in range(3)]
    places = [processes[number % 3].count("somebody").used for number in range(30)]
    assert len(set(places)) == len(places)
    assert sum(place <= 20 for place in places) <= 20


def test_without_valkey_a_process_allows_agents_a_part_and_never_everything(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    _limited(monkeypatch, "unix:///nonexistent/valkey.sock", 8, at_once=2)
    assert [api.get().status for _ in range(3)] == [200, 200, 429]


def test_a_person_settles_what_nobody_reported_on(api: Api, address: str, person_token: str) -> None:
    proposed = api.propose(CREDIT).body
    identifier = proposed["id"]
    person = Api(address, person_token)
    asked = {"outcome": "success", "reason": "The credit note is in the books."}
    early = person.post(f"/{identifier}:settle", asked)
    assert (early.status, early.code) == (409, "action.not_unknown")
    report = {"outcome": "unknown", "permit": proposed["permit"]["token"]}
    assert api.post(f"/{identifier}:outcome", report).body["state"] == "unknown"
    assert api.post(f"/{identifier}:settle", asked).status == 404
    settled = person.post(f"/{identifier}:settle", asked)
    assert (settled.status, settled.body["state"]) == (200, "succeeded")


def test_a_stranger_is_not_counted(address: str) -> None:
    answer = Api(address, "rmt_run_" + "a" * 40).get()
    assert answer.status == 401
    assert "ratelimit-limit" not in answer.headers
