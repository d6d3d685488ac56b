"""The one thread of a process that hands hints to Valkey, so that nobody who changes something waits for it."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

import msgspec
import redis
import structlog
from django.conf import settings
from redis.exceptions import RedisError

from controlplane.live.hub import CHANNEL, Hint

log = structlog.get_logger(__name__)

MOST_WAITING: Final = 10_000
_BATCH: Final = 500
# The first hint leaves at once. Under load this is how often hints leave, and the same hint asked for again meanwhile
# is one hint: pages fetch the newest state anyway.
_PAUSE_SECONDS: Final = 0.02


class Sender:
    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], None] = {}
        self._lock = threading.Lock()
        self._filled = threading.Event()
        threading.Thread(target=self._send_all, name="live-sender", daemon=True).start()

    def send(self, *, topic: str, what: str) -> None:
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                return  # Valkey has been silent for long: pages poll, and what they fetch then is current
            self._waiting[topic, what] = None
        self._filled.set()

    def _send_all(self) -> None:
        client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=5)
        while True:
            self._filled.wait()
            self._filled.clear()
            # Taken out before they are sent: a change that commits during the sending is announced again.
            with self._lock:
                waiting, self._waiting = list(self._waiting), {}
            for start in range(0, len(waiting), _BATCH):
                self._publish(client, waiting[start : start + _BATCH])
            time.sleep(_PAUSE_SECONDS)

    def _publish(self, client: redis.Redis, waiting: list[tuple[str, str]]) -> None:
        version = time.time_ns() // 1000
        hints = [Hint(topic, what, version) for topic, what in waiting]
        try:
            client.publish(CHANNEL, msgspec.json.encode(hints))
        except (RedisError, OSError) as error:  # any broker failure: the page's slow poll is the net
            log.warning("live.not_sent", hints=len(hints), error=f"{type(error).__name__}: {error}")


_LOCK: Final = threading.Lock()
_SENDERS: Final[dict[int, Sender]] = {}


def sender() -> Sender:
    """This process's sender; threads don't survive a fork, so each process starts its own."""
    found = _SENDERS.get(os.getpid())
    if found is None:
        with _LOCK:
            found = _SENDERS.get(os.getpid())
            if found is None:
                _SENDERS.clear()
                found = _SENDERS[os.getpid()] = Sender()
    return found
