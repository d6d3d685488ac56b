"""Limits of the web process against requests that are too large or too slow; asked over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from a2wsgi import WSGIMiddleware
from websockets.sync.client import connect

from controlplane.embedded import web_protocol
from controlplane.embedded.listening import listen_tcp

PIECE = b"x" * 65536
PIECES = 400
MADE = [0, 0]  # pieces of the last download, and how many downloads ended


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body; a websocket gets its text back. `/long` answers at length, as a WSGI
    application does from a thread."""
    if scope.get("path") == "/long":
        await DOWNLOADS(scope, receive, send)
        return
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            if "text" in message:
                await send({"type": "websocket.send", "text": message["text"]})
        return
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    answer = str(len(body)).encode()
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def _download(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("content-length", str(len(PIECE) * PIECES))])
    try:
        for number in range(PIECES):
            MADE[0] = number + 1
            yield PIECE
    finally:
        MADE[1] += 1


DOWNLOADS = WSGIMiddleware(web_protocol.while_connected(_download), workers=1)


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], socket.socket]]:
    monkeypatch.setattr(web_protocol, "HEADER_SECONDS", 0.5)
    monkeypatch.setattr(web_protocol, "BODY_SECONDS", 0.8)
    monkeypatch.setattr(web_protocol, "READ_SECONDS", 1.5)
    listener = listen_tcp("127.0.0.1", 0)
    address = listener.getsockname()
    config = uvicorn.Config(
        echo, http=web_protocol.LimitedProtocol, ws="websockets-sansio", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    open_sockets: list[socket.socket] = []

    def open_one() -> socket.socket:
        client = socket.create_connection(address, timeout=20)
        open_sockets.append(client)
        return client

    yield open_one
    for client in open_sockets:
        client.close()
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()


def _everything(client: socket.socket) -> bytes:
    """All that comes until the server closes; refusing with unread bytes left ends in a reset, which is a close too."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            received += part
    return received


def test_an_ordinary_request_is_served_and_the_connection_kept(connection: Callable[[], socket.socket]) -> None:
    client = connection()
    for size in (0, 300_000):
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
        answer = b""
        while not answer.endswith(b"\r\n\r\n" + str(size).encode()):
            part = client.recv(65536)
            assert part, answer
            answer += part
        assert answer.startswith(b"HTTP/1.1 200 OK")


def test_headers_beyond_the_limit_are_refused(connection: Callable[[], socket.socket]) -> None:
    client = connection()
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"c" * (web_protocol.MAX_HEADER_BYTES + 1) + b"\r\n\r\n")
    assert _everything(client).startswith(b"HTTP/1.1 431 ")


def test_an_endless_header_is_refused_before_it_ends(connection: Callable[[], socket.socket]) -> None:
    client = connection()
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"v" * 1000) for n in range(40)))
    assert _everything(client).startswith(b"HTTP/1.1 431 ")


def test_too_many_headers_are_refused(connection: Callable[[], socket.socket]) -> None:
    client = connection()
    client.sendall(b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: v\r\n" % number for number in range(150)) + b"\r\n")
    assert _everything(client).startswith(b"HTTP/1.1 431 ")


def test_a_refused_request_never_reaches_the_application(connection: Callable[[], socket.socket]) -> None:
    client = connection()
    client.sendall(b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: v\r\n" % number for number in range(150)) + b"\r\n")
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" not in _everything(client)


def test_headers_that_trickle_in_are_given_up(connection: Callable[[], socket.socket]) -> None:
    client = connection()
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    assert _everything(client).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_never_ends_is_given_up(connection: Callable[[], socket.socket]) -> None:
    client = connection()
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
    assert _everything(client).startswith(b"HTTP/1.1 408 ")


def test_a_connection_opened_ahead_of_need_is_closed_without_an_answer(connection: Callable[[], socket.socket]) -> None:
    assert _everything(connection()) == b""


def test_a_websocket_outlives_the_limits_of_requests(connection: Callable[[], socket.socket]) -> None:
    with connect("ws://localhost/live", sock=connection()) as live:
        time.sleep(1.2)
        live.send("still there")
        assert live.recv(timeout=10) == "still there"


def test_nonsense_is_a_bad_request(connection: Callable[[], socket.socket]) -> None:
    client = connection()
    client.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    assert _everything(client).startswith(b"HTTP/1.1 400 ")


def test_a_download_that_nobody_reads_does_not_hold_its_thread_for_ever(
    connection: Callable[[], socket.socket],
) -> None:
    asleep = connection()
    asleep.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
    asleep.recv(1024)  # it began, and then its reader went to sleep
    awake = connection()
    awake.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert len(_everything(awake)) > len(PIECE) * PIECES


def test_a_download_whose_reader_leaves_is_not_made_to_its_end(connection: Callable[[], socket.socket]) -> None:
    ended = MADE[1]
    client = connection()
    client.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
    client.recv(1024)
    client.close()
    until = time.monotonic() + 10
    while MADE[1] == ended and time.monotonic() < until:
        time.sleep(0.05)
    assert MADE[1] == ended + 1
    assert MADE[0] < PIECES


def test_a_reader_who_is_slow_gets_all_of_it(connection: Callable[[], socket.socket]) -> None:
    client = connection()
    client.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    received, since = 0, time.monotonic()
    while part := client.recv(262_144):
        received += len(part)
        time.sleep(0.03)
    assert received > len(PIECE) * PIECES
    assert time.monotonic() - since > 1.5
