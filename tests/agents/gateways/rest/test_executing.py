"""`:execute`, `:outcome`, `:withdraw` and `:settle`: what comes of an action, and requests that are repeated."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from agents.gateways import repeats as repeating
from agents.gateways.repeats import Repeats
from agents.models import Mission
from budgets import selectors as budgets
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.choices import ActionState
from governance.models import Action, Permit
from tests.agents.gateways.rest_client import Api

from .calls import CREDIT, LARGE_CREDIT, approve, the_call


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


@pytest.fixture
def release(upstream: Any) -> Iterator[threading.Event]:
    """Calls last until it is set."""
    event = threading.Event()

    async def slow() -> dict[str, Any]:
        await asyncio.get_running_loop().run_in_executor(None, event.wait, 20)
        return {"content": [{"type": "text", "text": "the book is locked"}], "isError": True}

    upstream.behave = lambda _name, _arguments: slow()
    yield event
    event.set()


def await_call(upstream: Any) -> None:
    deadline = time.monotonic() + 20
    while not upstream.calls and time.monotonic() < deadline:
        time.sleep(0.02)


def reported(api: Api, action_id: str) -> list[tuple[int, str]]:
    """What an agent is told that says itself what came of a call."""
    replies = [
        api.post(f"/{action_id}:outcome", {"outcome": outcome, "summary": "paid", "result_sha256": "sha256:1"})
        for outcome in ("success", "failure", "unknown")
    ]
    return [(reply.status, reply.code) for reply in replies]


OTHER_EXECUTOR = [(403, "outcome.other_executor")] * 3


def test_of_a_call_that_remit_makes_the_agent_can_not_say_what_came_of_it(
    api: Api, agent: Any, approver: Principal, upstream: Any, release: threading.Event
) -> None:
    """By MCP, by `:execute` with a permit, and by `:execute` after an approval; while it runs, and after."""
    own, waiting = api.propose(CREDIT).body, api.propose(LARGE_CREDIT).body
    approve(approver, waiting["id"])
    ways = (
        lambda: agent.call("books__apply_credit", {"invoice": "INV-9", "amount": "1.00"}),
        lambda: api.post(f"/{own['id']}:execute", {"permit": own["permit"]["token"]}),
        lambda: api.post(f"/{waiting['id']}:execute", {}),
    )
    for way in ways:
        upstream.calls.clear()
        release.clear()
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(way)
            await_call(upstream)
            action = Action.objects.get(state=ActionState.EXECUTING)
            refused, outcome = reported(api, str(action.pk)), Action.objects.get(pk=action.pk).outcome
            release.set()
            call.result(30)
        assert (refused, outcome) == (OTHER_EXECUTOR, None)
        assert reported(api, str(action.pk)) == OTHER_EXECUTOR
        action.refresh_from_db()
        assert (action.state, action.outcome["error"]) == (ActionState.FAILED, "tool.error: the book is locked")


def test_execute_in_flight_says_so_to_a_repeat_with_its_key(api: Api, upstream: Any, release: threading.Event) -> None:
    proposed = api.propose(CREDIT).body
    body = {"permit": proposed["permit"]["token"]}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(api.post, f"/{proposed['id']}:execute", body, idempotency_key="e2")
        await_call(upstream)
        second = api.post(f"/{proposed['id']}:execute", body, idempotency_key="e2")
        assert (second.status, second.code) == (409, "idempotency.in_flight")
        release.set()
        assert first.result(30).body["state"] == "failed"


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


def test_an_action_that_nobody_carried_out_says_so(api: Api) -> None:
    identifier = api.propose(CREDIT).body["id"]
    Action.objects.filter(pk=identifier).update(decided_at=now() - timedelta(seconds=90))
    governance.sweep()
    shown = api.get(f"/{identifier}").body
    assert (shown["state"], shown["reason_code"]) == ("expired", "permit.expired")
    assert "nobody carried it out" in shown["message"]
    assert shown["remedies"]


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
