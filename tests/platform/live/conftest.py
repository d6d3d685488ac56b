"""The real thing on a free loopback port: uvicorn, the whole ASGI application, the test's PostgreSQL and Valkey."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.db import connections
from websockets.sync.client import ClientConnection, connect

from controlplane.embedded.child import Child
from controlplane.embedded.state import StateFolder
from controlplane.embedded.valkey import Valkey
from controlplane.live.sender import _SENDERS
from controlplane.tenancy.models import User


class Address(str):
    """`host:port` of the running server."""

    @property
    def origin(self) -> str:
        return f"http://{self}"

    @property
    def live(self) -> str:
        return f"ws://{self}/live"


@pytest.fixture
def address(transactional_db: None) -> Iterator[Address]:
    from controlplane.asgi import application

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application,
        ws="websockets-sansio",
        ws_max_size=64 * 1024,
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    yield Address(f"127.0.0.1:{listener.getsockname()[1]}")
    server.should_exit = True
    thread.join(20)
    listener.close()
    _close_connections_of_other_threads()


def _close_connections_of_other_threads() -> None:
    """Worker threads keep their connection until they are used again; the test database can't be emptied under them."""
    pool = connections["default"].pool
    if pool is not None:
        connections["default"].close_pool()


@pytest.fixture
def sign_in() -> Callable[[User], str]:
    """A session of the person, as a Cookie header."""

    def make(user: User, *, seconds: int = 3600) -> str:
        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = django_settings.AUTHENTICATION_BACKENDS[0]
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.set_expiry(seconds)
        session.create()
        return f"{django_settings.SESSION_COOKIE_NAME}={session.session_key}"

    return make


class Page:
    """An open page: what it says and hears over its socket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def say(self, message: Any) -> None:
        self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def hear(self, seconds: float = 10) -> Any:
        return json.loads(self.connection.recv(timeout=seconds))


@pytest.fixture
def open_page(address: Address, sign_in: Callable[[User], str]) -> Iterator[Callable[..., Page]]:
    with ExitStack() as stack:

        def open_(user: User | None = None, *, cookie: str | None = None, token: str | None = None) -> Page:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            if user is not None or cookie is not None:
                headers["Cookie"] = cookie or sign_in(user)  # type: ignore[arg-type]
            origin = None if token else address.origin
            connection = connect(address.live, origin=origin, additional_headers=headers, open_timeout=20)  # type: ignore[arg-type]
            return Page(stack.enter_context(connection))

        yield open_


@pytest.fixture
def own_valkey(settings: Any) -> Iterator[Child]:
    """A Valkey that a test may kill, with all hints on it."""
    folder = Path(tempfile.mkdtemp(prefix="remit-test-live-"))  # short: it becomes a socket's address
    state = StateFolder(folder)
    state.open()
    valkey = Valkey(state)
    child = Child(valkey)
    child.start()
    child.wait_ready(seconds=30)
    settings.REDIS_URL = valkey.url
    _SENDERS.clear()  # the next hint makes a sender that knows this address
    yield child
    _SENDERS.clear()
    child.stop()
    shutil.rmtree(folder, ignore_errors=True)
