"""Methods, addresses and queries that are not served, the examples of the documentation, and how often."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.common import rate_limits
from tests.agents.gateways.rest_client import Api

from .calls import CREDIT, count

API_PAGE = Path(__file__).resolve().parents[4] / "docs" / "api.md"
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
    assert upstream.calls == [("apply_credit", {"invoice": "INV-0113", "amount": "40.00", "reason": "Late delivery"})]


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


def test_a_stranger_is_not_counted(address: str) -> None:
    answer = Api(address, "rmt_run_" + "a" * 40).get()
    assert answer.status == 401
    assert "ratelimit-limit" not in answer.headers
