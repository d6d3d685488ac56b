"""The one thread of a process that hands hints to Valkey, so that nobody who changes something waits for it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Final

import structlog
from channels.layers import get_channel_layer

log = structlog.get_logger(__name__)

MOST_WAITING: Final = 10_000


class Sender:
    """Hints wait for at most one round trip. The same hint asked for again meanwhile is one hint."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._waiting: dict[tuple[str, str, str], None] = {}
        self._sending = False
        threading.Thread(target=self._loop.run_forever, name="live-sender", daemon=True).start()

    def send(self, *, group: str, topic: str, what: str) -> None:
        self._loop.call_soon_threadsafe(self._accept, (group, topic, what))

    def _accept(self, hint: tuple[str, str, str]) -> None:
        if len(self._waiting) >= MOST_WAITING:
            return  # Valkey has been silent for long: pages poll, and what they fetch then is current
        self._waiting[hint] = None
        if not self._sending:
            self._sending = True
            self._loop.create_task(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                group, topic, what = hint = next(iter(self._waiting))
                # Taken out before it is sent: a change that commits during the sending is announced again.
                del self._waiting[hint]
                message = {"type": "live.hint", "topic": topic, "what": what, "version": time.time_ns() // 1000}
                try:
                    await get_channel_layer().group_send(group, message)
                except Exception as error:  # any broker failure: the page's slow poll is the net
                    log.warning("live.not_sent", topic=topic, error=str(error))
        finally:
            self._sending = False


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
