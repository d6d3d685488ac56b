"""Bodies that mean no one thing, are compressed, endless, too large or too slow."""

from __future__ import annotations

import json
import socket
import zlib
from urllib.parse import urlsplit

import pytest

from tests.agents.gateways.rest_client import Api, everything

from .calls import CREDIT, count

BOM = b"\xef\xbb\xbf"


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
