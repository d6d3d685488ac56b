"""One subscription of a process to Valkey's channel of hints, and the mailboxes of its sockets. Nothing is stored in
Valkey: wiped, it has forgotten nothing; gone, every socket is told to come back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec
import redis.asyncio
import structlog
from django.conf import settings
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

CHANNEL: Final = "remit.live"
MOST_KEPT: Final = 500
# What changed while a page was on its way is told to it once its socket listens: it shows the state before.
RECENT_SECONDS: Final = 5.0
MOST_RECENT: Final = 2000


class Hint(msgspec.Struct, frozen=True):
    topic: str
    what: str
    version: int


class Mailbox:
    """What one socket has not been told yet: the newest hint of each kind, so that a slow reader costs little."""

    def __init__(self) -> None:
        self._hints: dict[tuple[str, str], Hint] = {}
        self._filled = asyncio.Event()
        self.lost = False

    async def take(self) -> list[Hint]:
        """Waits for hints. Empty when the connection to Valkey is lost or the reader has fallen too far behind."""
        await self._filled.wait()
        self._filled.clear()
        hints, self._hints = list(self._hints.values()), {}
        return [] if self.lost else hints

    def put(self, hint: Hint) -> None:
        self._hints[hint.topic, hint.what] = hint
        if len(self._hints) > MOST_KEPT:
            self.lose()
        self._filled.set()

    def lose(self) -> None:
        self.lost = True
        self._filled.set()


class Hub:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Mailbox]] = {}
        self._recent: dict[tuple[str, str], tuple[float, Hint]] = {}  # the oldest first
        self._reading: tuple[asyncio.Task[None], asyncio.Future[None]] | None = None

    async def listen(self, mailbox: Mailbox, topics: set[str]) -> None:
        """On return no later hint is missed, and those of the last seconds are in the mailbox. Raises RedisError or
        OSError when Valkey can't be reached."""
        for topic in topics:
            self._listeners.setdefault(topic, set()).add(mailbox)
        if self._reading is None or self._reading[0].done():
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._reading = asyncio.create_task(self._read(ready)), ready
        await asyncio.shield(self._reading[1])
        since = time.monotonic() - RECENT_SECONDS
        for at, hint in self._recent.values():
            if at >= since and hint.topic in topics:
                mailbox.put(hint)

    def forget(self, mailbox: Mailbox, topics: set[str]) -> None:
        for topic in topics:
            listeners = self._listeners.get(topic)
            if listeners is not None:
                listeners.discard(mailbox)
                if not listeners:
                    del self._listeners[topic]

    async def _read(self, ready: asyncio.Future[None]) -> None:
        # No time-out for reading: silence is what an idle installation sounds like.
        client = redis.asyncio.Redis.from_url(settings.REDIS_URL, socket_timeout=None, socket_connect_timeout=5)
        try:
            async with client, client.pubsub(ignore_subscribe_messages=True) as subscription:
                await subscription.subscribe(CHANNEL)
                await subscription.get_message(timeout=5)  # the answer to subscribe
                ready.set_result(None)
                async for message in subscription.listen():
                    self._hand_out(message)
        except (RedisError, OSError) as error:
            log.warning("live.valkey_lost", error=f"{type(error).__name__}: {error}")
            if not ready.done():
                ready.set_exception(error)
                ready.exception()  # whoever waits hears it; nobody waiting is fine
        finally:
            listeners, self._listeners = self._listeners, {}
            for mailbox in {mailbox for boxes in listeners.values() for mailbox in boxes}:
                mailbox.lose()

    def _hand_out(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError):
            for hint in _DECODER.decode(message["data"]):
                self._remember(hint)
                for mailbox in self._listeners.get(hint.topic, ()):
                    mailbox.put(hint)

    def _remember(self, hint: Hint) -> None:
        key, moment = (hint.topic, hint.what), time.monotonic()
        self._recent.pop(key, None)
        self._recent[key] = moment, hint
        oldest = next(iter(self._recent))
        if len(self._recent) > MOST_RECENT or self._recent[oldest][0] < moment - RECENT_SECONDS:
            del self._recent[oldest]


_DECODER: Final = msgspec.json.Decoder(list[Hint])
_HUBS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Hub]] = WeakKeyDictionary()


def hub() -> Hub:
    """The running loop's hub."""
    loop = asyncio.get_running_loop()
    found = _HUBS.get(loop)
    if found is None:
        found = _HUBS[loop] = Hub()
    return found
