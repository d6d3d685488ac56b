"""`POST /api/v1/actions`, its batches and what is read of an action: shapes of answers, waiting, repeats."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agents.models import Mission
from controlplane.common import ending
from controlplane.tenancy.types import Principal
from governance.models import Decision
from tests.agents.gateways.rest_client import Api

from .calls import CREDIT, FORBIDDEN, LARGE_CREDIT, TOO_LARGE_CREDIT, approve, count, the_call

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


def test_a_process_that_is_told_to_end_keeps_nobody_waiting(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_TOLD", threading.Event())
    action_id = api.propose(LARGE_CREDIT).body["id"]
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(api.get, f"/{action_id}?wait=30")
        time.sleep(0.5)
        assert not pending.done()
        ending.begin()
        assert pending.result(25).body["state"] == "waiting"
    assert time.monotonic() - started < 20


def test_wait_ends_by_itself_and_is_not_needed_for_what_has_ended(api: Api) -> None:
    waiting = api.propose(LARGE_CREDIT).body["id"]
    started = time.monotonic()
    assert api.get(f"/{waiting}?wait=1").body["state"] == "waiting"
    assert time.monotonic() - started >= 1
    denied = api.propose(FORBIDDEN).body["id"]
    started = time.monotonic()
    assert api.get(f"/{denied}?wait=30").body["state"] == "denied"
    assert time.monotonic() - started < 20


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
