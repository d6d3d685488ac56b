"""The embedded Valkey: survives a kill, and starts empty rather than never when its file is broken."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import redis

from controlplane.embedded.child import Child
from controlplane.embedded.state import StateFolder
from controlplane.embedded.valkey import Valkey

from .conftest import wait_until

Start = Callable[[object], Child]


def test_queued_messages_survive_a_kill(state: StateFolder, start: Start) -> None:
    valkey = Valkey(state)
    child = start(valkey)
    with redis.Redis.from_url(valkey.url) as client:
        client.rpush("queue", *range(500))
    os.kill(child.pid, signal.SIGKILL)
    child.process.wait()
    wait_until(lambda: not child.heal() and child.pid and valkey.is_ready(child.pid), "the restart")
    with redis.Redis.from_url(valkey.url) as client:
        assert client.llen("queue") == 500


def test_an_unreadable_file_is_set_aside_and_the_server_starts_empty(state: StateFolder, start: Start) -> None:
    valkey = Valkey(state)
    child = start(valkey)
    with redis.Redis.from_url(valkey.url) as client:
        client.set("key", "value")
    child.stop()
    files = state.root / "valkey" / "appendonlydir"
    next(files.glob("*.incr.aof")).write_bytes(b"*3\r\nnonsense that is no length\r\n" * 20)
    child.start()
    wait_until(lambda: not child.heal() and child.pid and valkey.is_ready(child.pid), "the restart")
    with redis.Redis.from_url(valkey.url) as client:
        assert client.get("key") is None
    assert list((state.root / "valkey").glob("unreadable-*"))


def test_nobody_else_can_reach_the_socket(state: StateFolder, start: Start) -> None:
    start(Valkey(state))
    assert (state.sockets / "valkey.sock").stat().st_mode & 0o077 == 0
    assert state.sockets.stat().st_mode & 0o077 == 0
