"""The plain ASGI edges: bodies within limits, one meaning per header, every error an answer with a name."""

from __future__ import annotations

import gzip

import pytest

from controlplane.common import metrics
from controlplane.common.errors import FieldError, RemitError
from controlplane.common.http import (
    bearer_of,
    edge,
    problem_response,
    read_body,
    require_json,
    send_json,
    send_response,
)


@edge("tests")
async def echo(scope, receive, send) -> None:
    body = await read_body(scope, receive, max_bytes=100, seconds=0.3)
    await send_response(send, 200, body, "application/octet-stream")


@edge("tests")
async def only_json(scope, receive, send) -> None:
    require_json(scope)
    await send_json(send, 200, {"bearer": bearer_of(scope)})


@edge("tests")
async def broken(scope, receive, send) -> None:
    raise KeyError("rmt_run_" + "s" * 43 + "_00000000")


@edge("tests")
async def broken_midway(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise KeyError("late")


def test_a_body_in_pieces_arrives_whole(ask) -> None:
    answer = ask(echo, method="POST", pieces=[b"one ", b"", b"two"])
    assert (answer.status, answer.body) == (200, b"one two")
    assert ask(echo, method="POST", pieces=[b"x" * 100]).status == 200


@pytest.mark.parametrize(
    ("headers", "pieces", "status", "code"),
    [
        ([("content-length", "101")], [b"never read"], 413, "body.too_large"),
        ([("content-length", "9" * 400)], [b""], 413, "body.too_large"),
        ([], [b"x" * 60, b"x" * 60, b"x"], 413, "body.too_large"),
        ([("content-length", "3")], [b"x" * 101], 413, "body.too_large"),
        ([("content-length", "-1")], [b""], 400, "body.bad_length"),
        ([("content-length", "1e3")], [b""], 400, "body.bad_length"),
        ([("content-length", "٣")], [b""], 400, "body.bad_length"),
        ([("content-length", "3"), ("content-length", "4")], [b"abc"], 400, "request.repeated_header"),
        ([("content-encoding", "gzip")], [gzip.compress(b"0" * 10_000_000)], 415, "body.compressed"),
        ([("content-encoding", "br")], [b"x"], 415, "body.compressed"),
        ([], [b"half", None], 400, "body.cut_off"),
        ([], [b"slow ", 0.2, b"and ", 0.2, b"slower"], 408, "body.too_slow"),
    ],
)
def test_a_body_that_is_not_read_says_why(headers, pieces, status, code, ask) -> None:
    headers = [(name, value) for name, value in headers if value.isascii()] or headers
    if any(not value.isascii() for _, value in headers):
        headers = [(name, "\xb3") for name, _ in headers]  # a digit of Latin-1, as a header may carry it
    answer = ask(echo, method="POST", headers=headers, pieces=pieces)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers.get("connection") == ("close" if status in (408, 413) else None)


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ('Application/JSON;charset="UTF-8"', True),
        ("application/vnd.remit+json", True),
        ("text/plain", False),
        ("application/x-www-form-urlencoded", False),
        ("multipart/form-data; boundary=x", False),
        ("application/json; charset=utf-16", False),
        ("application/jsonp", False),
        ("", False),
    ],
)
def test_only_json_is_taken_for_json(content_type, accepted, ask) -> None:
    answer = ask(only_json, method="POST", headers=[("content-type", content_type)])
    assert answer.status == (200 if accepted else 415)


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ("Bearer abc", "abc"),
        ("bearer   abc ", "abc"),
        ("Basic abc", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("abc", None),
        ("", None),
    ],
)
def test_the_bearer_token(sent, found, ask) -> None:
    answer = ask(only_json, headers=[("content-type", "application/json"), ("authorization", sent)])
    assert answer.json == {"bearer": found}


def test_two_authorization_headers_are_refused(ask) -> None:
    headers = [("content-type", "application/json"), ("authorization", "Bearer a"), ("authorization", "Bearer b")]
    assert ask(only_json, headers=headers).json["code"] == "request.repeated_header"


def test_an_error_without_a_name_tells_a_trace_id_and_nothing_else(ask, capfd) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = ask(broken, headers=[("traceparent", f"00-{trace}-b7ad6b7169203331-01")])
    assert answer.status == 500
    assert answer.json["code"] == "internal.error"
    assert answer.json["trace_id"] == answer.headers["x-trace-id"] == trace
    assert "KeyError" not in answer.body.decode()
    assert "rmt_run" not in answer.body.decode()


def test_an_error_after_the_answer_began_cuts_the_connection(ask) -> None:
    with pytest.raises(KeyError):
        ask(broken_midway)


@pytest.mark.parametrize(
    "header",
    ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "00-" + "z" * 32 + "-b7ad6b7169203331-01", "00" * 4000],
)
def test_a_broken_traceparent_starts_a_trace_of_its_own(header, ask) -> None:
    answer = ask(echo, method="POST", headers=[("traceparent", header)], pieces=[b"x"])
    assert answer.status == 200
    assert len(answer.headers["x-trace-id"]) == 32
    assert int(answer.headers["x-trace-id"], 16) > 0


def test_requests_are_counted_by_edge_method_and_status(ask) -> None:
    def count(method: str, status: str) -> float:
        return metrics._REQUESTS.labels("tests", method, status)._value.get()

    before = count("POST", "200"), count("other", "500")
    ask(echo, method="POST", pieces=[b"x"])
    ask(broken, method="ANYTHING-A-CLIENT-INVENTS")
    assert (count("POST", "200"), count("other", "500")) == (before[0] + 1, before[1] + 1)


def test_a_problem_for_django_says_how_to_go_on() -> None:
    error = RemitError(
        "rate.limited", "Too fast.", 429, errors=[FieldError("/a", "bad")], remedies=["Wait."], retry_after_seconds=7
    )
    response = problem_response(error)
    assert response.status_code == 429
    assert response["Content-Type"] == "application/problem+json"
    assert response["Retry-After"] == "7"
    assert problem_response(RemitError("token.unknown", "No.", 401))["WWW-Authenticate"] == "Bearer"
