"""What holds for every request: made once per key, strict in what it reads, plain in how it refuses."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from agents.models import Agent, Mission
from controlplane.audit.models import Entry
from controlplane.common import rate_limits
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.idempotency import services as idempotency
from controlplane.idempotency.models import IdempotencyKey
from controlplane.tenancy.models import User
from tests.conftest import PASSWORD
from tests.frontend.api.conftest import Api

NEW_AGENT: dict[str, Any] = {"name": "Courier", "runtime": "external"}


@pytest.fixture
def new_agent(team: Any) -> dict[str, Any]:
    return {**NEW_AGENT, "team_id": str(team.pk)}


# Idempotency ----------------------------------------------------------------------------------------------------------


def test_the_same_key_and_body_get_the_same_answer_and_nothing_happens_twice(
    alice_api: Api, new_agent: dict[str, Any]
) -> None:
    first = alice_api.post("agents", new_agent, key="one")
    again = alice_api.post("agents", new_agent, key="one")
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert first["Location"] == again["Location"]
    assert first["ETag"] == again["ETag"]
    assert not first.has_header("Idempotency-Replayed")
    assert again["Idempotency-Replayed"] == "true"
    assert Agent.objects.count() == 1


def test_another_body_under_a_used_key_is_refused(alice_api: Api, new_agent: dict[str, Any]) -> None:
    alice_api.post("agents", new_agent, key="one")
    answer = alice_api.post("agents", {**new_agent, "name": "Other"}, key="one")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency.other_body")
    assert Agent.objects.count() == 1


def test_a_refusal_is_an_answer_too(alice_api: Api, mission: Mission) -> None:
    first = alice_api.post(f"missions/{mission.pk}:resume", key="one")
    assert (first.status_code, first.json()["code"]) == (409, "mission.state")
    Mission.objects.update(state="paused")
    assert alice_api.post(f"missions/{mission.pk}:resume", key="one").content == first.content
    assert alice_api.post(f"missions/{mission.pk}:resume", key="two").status_code == 200


def test_a_key_belongs_to_who_used_it(alice_api: Api, nadia_api: Api, new_agent: dict[str, Any], team: Any) -> None:
    alice_api.post("agents", new_agent, key="one")
    other = nadia_api.post("agents", {**new_agent, "name": "Hers"}, key="one")
    assert other.status_code == 201
    assert other.json()["name"] == "Hers"


def test_a_post_needs_a_key_of_visible_characters(alice_api: Api, new_agent: dict[str, Any]) -> None:
    missing = alice_api.post("agents", new_agent, key=None)
    assert (missing.status_code, missing.json()["code"]) == (428, "idempotency.key_missing")
    for key in ("with space", "x" * 121, "ü"):
        answer = alice_api.post("agents", new_agent, key=key)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency.key_malformed")
    assert not Agent.objects.exists()


def test_stored_answers_can_not_be_read_without_the_key(alice_api: Api, new_agent: dict[str, Any]) -> None:
    alice_api.post("agents", new_agent, key="a-key-of-alice")
    row = IdempotencyKey.objects.get()
    assert b"Courier" not in bytes(row.answer or b"")
    assert "a-key-of-alice" not in row.key_hash


def test_an_answer_is_forgotten_after_a_day(alice_api: Api, mission: Mission) -> None:
    alice_api.post(f"missions/{mission.pk}:pause", key="one")
    IdempotencyKey.objects.update(expires_at=now() - timedelta(seconds=1))
    assert alice_api.post(f"missions/{mission.pk}:pause", key="one").status_code == 409
    IdempotencyKey.objects.update(expires_at=now() - timedelta(seconds=1))
    assert idempotency.sweep() == 1
    assert not IdempotencyKey.objects.exists()


def _request(key: str = "one") -> idempotency.Request:
    return idempotency.Request(uuid.uuid4(), uuid.uuid4(), key, "0" * 64)


def _refused(error: RemitError) -> idempotency.Answer:
    return idempotency.Answer(error.status, b"{}")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("one_transaction", [True, False])
def test_a_request_in_flight_is_not_made_a_second_time(one_transaction: bool) -> None:
    request = _request()
    begun, go_on = threading.Event(), threading.Event()
    made: list[int] = []

    def work() -> idempotency.Answer:
        made.append(1)
        begun.set()
        assert go_on.wait(10)
        return idempotency.Answer(200, b"done")

    def first() -> None:
        try:
            idempotency.once(request=request, work=work, refused=_refused, one_transaction=one_transaction)
        finally:
            connection.close()

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(10)
    with pytest.raises(RemitError) as refusal:
        idempotency.once(request=request, work=work, refused=_refused, one_transaction=one_transaction)
    assert refusal.value.code == "idempotency.in_flight"
    go_on.set()
    thread.join()
    again = idempotency.once(request=request, work=work, refused=_refused, one_transaction=one_transaction)
    assert (again.body, again.replayed, made) == (b"done", True, [1])


@pytest.mark.django_db(transaction=True)
def test_what_broke_in_one_transaction_left_nothing_and_is_made_again() -> None:
    request = _request()

    def broken() -> idempotency.Answer:
        raise OSError("cut off")

    with pytest.raises(OSError, match="cut off"):
        idempotency.once(request=request, work=broken, refused=_refused)
    assert not IdempotencyKey.objects.exists()
    answer = idempotency.once(request=request, work=lambda: idempotency.Answer(200, b"done"), refused=_refused)
    assert answer.body == b"done"


@pytest.mark.django_db(transaction=True)
def test_what_broke_step_by_step_is_not_made_again() -> None:
    request = _request()

    def broken() -> idempotency.Answer:
        raise OSError("cut off")

    with pytest.raises(OSError, match="cut off"):
        idempotency.once(request=request, work=broken, refused=_refused, one_transaction=False)
    with pytest.raises(RemitError) as refusal:
        idempotency.once(
            request=request, work=lambda: idempotency.Answer(200, b""), refused=_refused, one_transaction=False
        )
    assert refusal.value.code == "idempotency.no_answer"


# What is read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "query.invalid"),
        ("limit=201", "query.invalid"),
        ("limit=5&limit=6", "query.unknown"),
        ("stat=active", "query.unknown"),
        ("state=running", "query.invalid"),
        ("cursor=nonsense", "cursor.invalid"),
        ("cursor=b2ktMQ", "cursor.invalid"),  # as one would be of rows that are numbered: -1
        ("agent=%7B0190a000-0000-7000-8000-000000000000%7D", "query.invalid"),
        ("q=%00", "query.invalid"),
    ],
)
def test_a_query_that_means_nothing_is_refused_rather_than_ignored(alice_api: Api, query: str, code: str) -> None:
    answer = alice_api.get(f"missions?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"[]", 422, "request.malformed"),
        (b"{", 422, "json.malformed"),
        (b'{"reason": "a", "reason": "b"}', 422, "json.duplicate_key"),
        (b'{"reason": "\\u0000"}', 422, "json.nul"),
        (b'{"reason": 7}', 422, "request.invalid"),
        (b'{"raeson": "typo"}', 422, "request.invalid"),
        (b'{"reason": "' + b"x" * 2_000_000 + b'"}', 413, "body.too_large"),
    ],
)
def test_a_body_means_one_thing_or_is_refused(
    alice_api: Api, mission: Mission, body: bytes, status: int, code: str
) -> None:
    answer = alice_api.ask(
        "POST",
        f"missions/{mission.pk}:pause",
        data=body,
        content_type="application/json",
        headers={"idempotency-key": "one"},
    )
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    mission.refresh_from_db()
    assert mission.state == "active"


def test_other_media_types_and_compressed_bodies_are_415(alice_api: Api, mission: Mission) -> None:
    path = f"missions/{mission.pk}:pause"
    form = alice_api.ask(
        "POST",
        path,
        data=b"reason=x",
        content_type="application/x-www-form-urlencoded",
        headers={"idempotency-key": "1"},
    )
    assert (form.status_code, form.json()["code"]) == (415, "body.not_json")
    packed = alice_api.ask(
        "POST",
        path,
        data=b"{}",
        content_type="application/json",
        headers={"idempotency-key": "1", "content-encoding": "gzip"},
    )
    assert (packed.status_code, packed.json()["code"]) == (415, "body.compressed")


def test_answers_are_json_or_406(alice_api: Api) -> None:
    assert alice_api.get("missions", accept="text/html").status_code == 406
    assert alice_api.get("missions", accept="text/html, */*;q=0.5").status_code == 200
    assert alice_api.get("missions?format=json").status_code == 422


def test_a_method_that_is_not_served_says_which_are(alice_api: Api, mission: Mission) -> None:
    for method, path, allowed in (
        ("DELETE", f"missions/{mission.pk}", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "missions", {"GET", "POST", "HEAD", "OPTIONS"}),
        ("GET", f"missions/{mission.pk}:pause", {"POST", "OPTIONS"}),
    ):
        answer = alice_api.ask(method, path)
        assert (answer.status_code, answer.json()["code"]) == (405, "request.method")
        assert set(answer["Allow"].split(", ")) == allowed


def test_head_is_get_without_a_body_and_options_names_methods(alice_api: Api, mission: Mission) -> None:
    head = alice_api.ask("HEAD", f"missions/{mission.pk}")
    assert (head.status_code, head.content) == (200, b"")
    assert head["ETag"] == alice_api.get(f"missions/{mission.pk}")["ETag"]
    options = alice_api.ask("OPTIONS", "missions")
    assert (options.status_code, options.content) == (204, b"")
    assert "POST" in options["Allow"]


def test_addresses_that_are_not_ours_answer_as_problems(alice_api: Api) -> None:
    for path in ("", "nothing", "missions/", "missions/7", "missions/0190A000-0000-7000-8000-000000000000"):
        answer = alice_api.get(path)
        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json"), path


# Who asks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("missions/7", "mission.not_found"),
        ("missions/M-7/versions", "mission.not_found"),
        ("budgets/0192F3AA", "budget.not_found"),
        ("members/alice", "member.not_found"),
        ("nothing/7", "page.not_found"),
        ("missions/7/nothing", "page.not_found"),
    ],
)
def test_an_id_that_is_none_is_answered_as_what_it_names(alice_api: Api, path: str, code: str) -> None:
    answer = alice_api.get(path)
    assert (answer.status_code, answer.json()["code"], answer.json()["title"]) == (404, code, "Not found")


def test_what_is_done_to_an_id_that_is_none_is_answered_alike(alice_api: Api) -> None:
    answer = alice_api.post("missions/7:pause", {"reason": "So"})
    assert (answer.status_code, answer.json()["code"]) == (404, "mission.not_found")


def test_titles_are_words(alice_api: Api, mission: Mission) -> None:
    assert alice_api.get("missions?limit=0").json()["title"] == "Something in it can't be used"
    assert alice_api.get(f"missions/{mission.pk}:pause").json()["title"] == "Not possible at this address"


def test_nobody_gets_401_and_learns_how_to_authenticate(anonymous: Api) -> None:
    answer = anonymous.get("missions")
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert anonymous.get("missions", authorization="Basic YTpi").status_code == 401
    assert anonymous.get("missions", authorization="Bearer rmt_pat_nonsense").json()["code"] == "token.malformed"


def test_a_signed_in_browser_may_read_and_needs_its_csrf_token_to_write(
    client: Client, alice: User, mission: Mission
) -> None:
    browser = Client(enforce_csrf_checks=True)
    assert browser.login(email=alice.email, password=PASSWORD)
    assert browser.get("/api/v1/missions").status_code == 200
    path = f"/api/v1/missions/{mission.pk}:pause"
    headers = {"idempotency-key": "one"}
    bare = browser.post(path, data="{}", content_type="application/json", headers=headers)
    assert (bare.status_code, bare.json()["code"]) == (403, "csrf.failed")
    assert not Entry.objects.filter(event="mission.paused").exists()
    secret = "a" * 32
    browser.cookies["csrftoken"] = secret
    answer = browser.post(path, data="{}", content_type="application/json", headers={**headers, "x-csrftoken": secret})
    assert answer.status_code == 200


# How often ------------------------------------------------------------------------------------------------------------


def _limited(monkeypatch: pytest.MonkeyPatch, url: str, limit: int) -> None:
    monkeypatch.setattr(rate_limits, "_LIMITERS", {"api": rate_limits.RateLimiter(url, limit)})


def test_a_token_learns_how_much_is_left_and_is_told_when_to_come_back(
    monkeypatch: pytest.MonkeyPatch, settings: Any, alice_api: Api, nadia_api: Api
) -> None:
    _limited(monkeypatch, settings.REDIS_URL, 3)
    left = [alice_api.get("missions")["RateLimit-Remaining"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    refused = alice_api.get("missions")
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limit.reached")
    assert refused["RateLimit-Limit"] == "3"
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert nadia_api.get("missions").status_code == 200


def test_without_valkey_each_process_allows_a_part_and_never_everything(
    monkeypatch: pytest.MonkeyPatch, alice_api: Api
) -> None:
    _limited(monkeypatch, "unix:///nonexistent/valkey.sock", 8)
    answers = [alice_api.get("missions") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0]["RateLimit-Limit"] == "2"


def test_a_refused_request_does_nothing(
    monkeypatch: pytest.MonkeyPatch, settings: Any, alice_api: Api, mission: Mission
) -> None:
    _limited(monkeypatch, settings.REDIS_URL, 1)
    alice_api.get("missions")
    assert alice_api.post(f"missions/{mission.pk}:pause").status_code == 429
    mission.refresh_from_db()
    assert mission.state == "active"


def test_a_failure_nobody_foresaw_tells_nothing_of_itself(
    monkeypatch: pytest.MonkeyPatch, alice_api: Api, api_of: Callable[..., Api]
) -> None:
    from agents import selectors

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr(selectors, "missions", broken)
    answer = alice_api.get("missions")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal.error")
    assert "secret" not in json.dumps(answer.json())
    assert answer.json()["trace_id"] == answer["X-Trace-Id"]
