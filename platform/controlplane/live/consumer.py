"""One websocket of an open page: it says which topics it shows and is told when they change. Hints only, never data.

Client: {"subscribe": ["mission:<id>"]}, {"unsubscribe": […]}. Server: {"subscribed": […]}, {"refused": […]}, and hints
{"topic", "version", "what"}. Closed with 1003 for binary, 1008 for what breaks these rules, 1008 and “signed out” for
what lost its right to listen, 1009 for messages that are too long, 1013 when the client should simply come back.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import structlog
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from redis.exceptions import RedisError

from controlplane.common import metrics
from controlplane.common.canonical import parse_strict
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.live.hub import Mailbox, hub
from controlplane.live.services import may_subscribe, topic_of_person
from controlplane.tenancy.authentication import Authenticated, Credential, authenticate, credential_of_scope

log = structlog.get_logger(__name__)

MAX_TOPICS: Final = 50
MAX_MESSAGE_BYTES: Final = 8 * 1024
MESSAGES: Final = 60  # a client may send at most so many
PER_SECONDS: Final = 10.0
SEND_SECONDS: Final = 10.0
RECHECK_SECONDS: Final = 45.0  # with the time a check takes, nobody hears more than a minute too long
NOT_UNDERSTOOD, BROKE_RULES, TOO_LONG, COME_BACK = 1003, 1008, 1009, 1013
SIGNED_OUT: Final = "signed out"  # pages that hear it go to the sign-in page (live.js)
_TOPIC = re.compile(r"[a-z][a-z-]{0,29}:[A-Za-z0-9._-]{1,64}\Z")


class LiveConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    """A socket's mailbox holds the newest hint of each kind; a reader too slow even for that is dropped."""

    credential: Credential
    topics: set[str]
    authenticated: Authenticated

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hints and the socket are read side by side; whichever fails ends the connection."""
        self._raw_send = send
        self._main = asyncio.current_task()
        self._open = self._dropped = False
        self._beside: list[asyncio.Task[None]] = []
        self._mailbox = Mailbox()
        self.topics = set()
        self._sent_at: list[float] = []
        try:
            await super().__call__(scope, receive, send)
        except (RedisError, OSError) as error:
            log.warning("live.lost", error=f"{type(error).__name__}: {error}")
            await self._end(COME_BACK, "hints are out of order, come back")
        except asyncio.CancelledError:
            if not self._dropped:
                raise
        finally:
            self._leave()

    async def connect(self) -> None:
        self.credential = credential_of_scope(self.scope)
        found = await _authenticate(self.credential)
        if found is None:
            await self.close()  # before accept: the handshake is refused with 403
            return
        self.authenticated = found
        await self.accept()
        self._open = True
        metrics.SOCKETS.inc()
        self._beside = [asyncio.create_task(self._keep_checking()), asyncio.create_task(self._keep_telling())]

    async def disconnect(self, code: int) -> None:  # noqa: ARG002 - Channels' signature
        self._leave()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data is None or bytes_data is not None:
            await self._end(NOT_UNDERSTOOD, "send text")
            return
        if len(text_data) > MAX_MESSAGE_BYTES:
            await self._end(TOO_LONG, f"at most {MAX_MESSAGE_BYTES} bytes")
            return
        if self._too_many_messages():
            await self._end(BROKE_RULES, "too many messages")
            return
        try:
            wanted = _parse(text_data)
        except RemitError as error:
            await self._end(BROKE_RULES, error.message)
            return
        if "unsubscribe" in wanted:
            self._unsubscribe(set(wanted["unsubscribe"]))
        if "subscribe" in wanted:
            await self._subscribe(wanted["subscribe"])

    async def _subscribe(self, topics: list[str]) -> None:
        fresh = [topic for topic in topics if topic not in self.topics]
        if len(self.topics) + len(fresh) > MAX_TOPICS:
            await self._end(BROKE_RULES, f"at most {MAX_TOPICS} topics")
            return
        allowed = await _allowed(self.authenticated, fresh)
        await hub().listen(self._mailbox, allowed | self._own_topics())
        self.topics |= allowed
        if granted := [topic for topic in topics if topic in self.topics]:
            await self._tell({"subscribed": granted})
        if refused := [topic for topic in topics if topic not in self.topics]:
            await self._tell({"refused": refused})

    def _unsubscribe(self, topics: set[str]) -> None:
        hub().forget(self._mailbox, topics & self.topics)
        self.topics -= topics

    def _own_topics(self) -> set[str]:
        """Where it hears that its own person was signed out, deactivated or given other roles."""
        user_id = self.authenticated.principal.user_id
        return {topic_of_person(user_id)} if user_id else set()

    async def _keep_telling(self) -> None:
        while hints := await self._mailbox.take():
            for hint in hints:
                if hint.topic in self._own_topics():
                    await self._check()
                if hint.topic in self.topics:
                    await self._tell(msgspec.structs.asdict(hint))
        await self._end(COME_BACK, "hints are out of order, come back")

    async def _keep_checking(self) -> None:
        """By the clock, also where the hint that access changed was lost, and when the session ends."""
        every = float(getattr(settings, "LIVE_RECHECK_SECONDS", RECHECK_SECONDS))
        while self._open:
            await asyncio.sleep(self._until_next_check(every))
            await self._check()

    async def _check(self) -> None:
        """Who is this, may they still see what they listen to? If not, the socket is closed or hears less."""
        try:
            found = await _authenticate(self.credential)
            if found is None:
                await self._end(BROKE_RULES, SIGNED_OUT)
                return
            self.authenticated = found
            allowed = await _allowed(found, self.topics)
            lost = self.topics - allowed
            self._unsubscribe(lost)
            if lost:
                await self._tell({"refused": sorted(lost)})
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the database: nobody can vouch for this socket now
            log.warning("live.recheck_failed", error=f"{type(error).__name__}: {error}")
            await self._end(COME_BACK, "could not be checked, come back")

    def _until_next_check(self, every: float) -> float:
        until = self.authenticated.until
        return every if until is None else max(0.05, min(every, (until - now()).total_seconds()))

    async def _tell(self, message: dict[str, Any]) -> None:
        """Send, but never wait long for a reader that does not read."""
        if not self._open:
            return
        try:
            async with asyncio.timeout(float(getattr(settings, "LIVE_SEND_SECONDS", SEND_SECONDS))):
                await self.send(text_data=json.dumps(message))
        except TimeoutError:
            await self._end(BROKE_RULES, "reads too slowly")
        except OSError:
            return  # the client went away; its disconnect is on the way

    async def _end(self, code: int, reason: str) -> None:
        if not self._open:
            return
        self._open = False
        metrics.SOCKETS.dec()
        try:
            async with asyncio.timeout(2):
                await self._raw_send({"type": "websocket.close", "code": code, "reason": reason[:120]})
        except (TimeoutError, OSError):  # one that neither reads nor answers can't be told: the connection is cut
            self._dropped = True
            if self._main is not None:
                self._main.cancel()

    def _leave(self) -> None:
        if self._open:
            self._open = False
            metrics.SOCKETS.dec()
        for task in self._beside:
            if task is not asyncio.current_task():
                task.cancel()
        self._beside = []
        self._unsubscribe(set(self.topics))
        if hasattr(self, "authenticated"):
            hub().forget(self._mailbox, self._own_topics())

    def _too_many_messages(self) -> bool:
        moment = time.monotonic()
        self._sent_at = [at for at in self._sent_at if moment - at < PER_SECONDS] + [moment]
        return len(self._sent_at) > MESSAGES


def _parse(text: str) -> dict[str, list[str]]:
    """The client's wish. Raises RemitError, whose message becomes the reason of the close."""
    value = parse_strict(text.encode("utf-8", "surrogatepass"), max_bytes=MAX_MESSAGE_BYTES * 4, max_depth=3)
    if not isinstance(value, dict) or not value or set(value) - {"subscribe", "unsubscribe"}:
        raise RemitError("live.malformed", "send subscribe or unsubscribe with a list of topics")
    for topics in value.values():
        if not isinstance(topics, list) or len(topics) > MAX_TOPICS:
            raise RemitError("live.malformed", f"topics are a list of at most {MAX_TOPICS}")
        if not all(isinstance(topic, str) and _TOPIC.match(topic) for topic in topics):
            raise RemitError("live.malformed", "a topic reads kind:id")
    return {key: list(dict.fromkeys(topics)) for key, topics in value.items()}


async def _authenticate(credential: Credential) -> Authenticated | None:
    return await database_sync_to_async(authenticate, thread_sensitive=False)(credential)  # type: ignore[no-any-return]


async def _allowed(authenticated: Authenticated, topics: Iterable[str]) -> set[str]:
    def check() -> set[str]:
        return {topic for topic in topics if may_subscribe(principal=authenticated.principal, topic=topic)}

    return await database_sync_to_async(check, thread_sensitive=False)()  # type: ignore[no-any-return]
