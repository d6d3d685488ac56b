"""Who sends what is not understood, too much, or never reads, is dropped; others go on."""

from __future__ import annotations

import json
import socket
import time

import pytest
from websockets.frames import Frame, Opcode

from controlplane.common import metrics
from controlplane.live.services import announce

from .listening import closed, topic_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\x00\x01", 1003),
        ("", 1008),
        ("not json", 1008),
        ("[]", 1008),
        ("{}", 1008),
        ('{"subscribe": "mission:1"}', 1008),
        ('{"subscribe": [1]}', 1008),
        ('{"subscribe": ["mission:1\\u0000"]}', 1008),
        ('{"subscribe": ["mission"]}', 1008),
        ('{"subscribe": ["mission:../../etc"]}', 1008),
        ('{"subscribe": ["mission:a b"]}', 1008),
        ('{"subscribe": [], "subscribe": []}', 1008),
        ('{"shout": ["mission:1"]}', 1008),
        ('{"subscribe": [[[[[["mission:1"]]]]]]}', 1008),
        (json.dumps({"subscribe": [f"mission:{number}" for number in range(51)]}), 1008),
        ('"' + "x" * 9000 + '"', 1009),
    ],
)
def test_what_is_not_understood_ends_the_connection_with_a_reason(message, code, open_page, alice) -> None:
    page = open_page(alice)
    page.say(message)
    found, reason = closed(page)
    assert found == code
    assert reason


def test_at_most_fifty_topics(open_page, alice, make_mission) -> None:
    missions = [make_mission(f"Mission {number}") for number in range(51)]
    page = open_page(alice)
    page.say({"subscribe": [topic_of(mission) for mission in missions[:50]]})
    assert len(page.hear()["subscribed"]) == 50
    page.say({"subscribe": [topic_of(missions[0])]})  # has it already
    assert page.hear() == {"subscribed": [topic_of(missions[0])]}
    page.say({"subscribe": [topic_of(missions[50])]})
    assert closed(page) == (1008, "at most 50 topics")


def test_a_flood_of_messages_ends_the_connection(open_page, alice) -> None:
    page = open_page(alice)
    for _ in range(61):
        page.say({"unsubscribe": []})
    assert closed(page) == (1008, "too many messages")


def test_a_reader_that_does_not_read_is_dropped_and_others_go_on(
    open_page, address, alice, sign_in, mission, settings
) -> None:
    settings.LIVE_SEND_SECONDS = 0.5
    page = open_page(alice)
    page.say({"subscribe": [topic_of(mission)]})
    page.hear()
    before = metrics.SOCKETS._value.get()
    with _listener_that_never_reads(address, sign_in(alice), topic_of(mission)):
        deadline = time.monotonic() + 15  # well before the server's own pings would find out
        while metrics.SOCKETS._value.get() == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert metrics.SOCKETS._value.get() == before + 1
        while metrics.SOCKETS._value.get() == before + 1 and time.monotonic() < deadline:
            announce(topic_of(mission), "x" * 100_000)
            page.hear()
        assert metrics.SOCKETS._value.get() == before
    announce(topic_of(mission), "still here")
    assert page.hear()["what"] == "still here"


def _listener_that_never_reads(address, cookie: str, topic: str) -> socket.socket:
    """Shakes hands, subscribes, and leaves everything after that in its kernel's small buffer."""
    host, port = address.split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    client.sendall(
        f"GET /live HTTP/1.1\r\nHost: {address}\r\nOrigin: {address.origin}\r\nCookie: {cookie}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert client.recv(1024).startswith(b"HTTP/1.1 101")
    wish = json.dumps({"subscribe": [topic]}).encode()
    client.sendall(Frame(Opcode.TEXT, wish).serialize(mask=True))
    return client


def test_open_sockets_are_counted(open_page, alice) -> None:
    before = metrics.SOCKETS._value.get()
    page = open_page(alice)
    assert metrics.SOCKETS._value.get() == before + 1
    page.connection.close()
    deadline = time.monotonic() + 10
    while metrics.SOCKETS._value.get() != before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert metrics.SOCKETS._value.get() == before
