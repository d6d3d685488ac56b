"""Repeated requests by their idempotency key, for verbs whose answers no row keeps. Remembered by this process only.

What is forgotten is still safe: a permit works once and an outcome is recorded once, whatever this says.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from controlplane.common.errors import FieldError, RemitError, conflict, invalid

SECONDS: Final = 300.0
_MOST: Final = 2000
MOST_BYTES: Final = 32 * 1024 * 1024  # of answers: one with a tool's result can be a megabyte

Answer = dict[str, Any]
Key = tuple[str, ...]


@dataclass
class _Earlier:
    body_sha256: bytes
    at: float
    answer: Answer | RemitError | None = None  # None: being worked on
    size: int = 0


class Repeats:
    """Used from one event loop."""

    def __init__(self) -> None:
        self._earlier: OrderedDict[Key, _Earlier] = OrderedDict()
        self._bytes = 0

    async def once(self, key: Key, raw: bytes, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Do `work` and remember what it answered, refusals included; a repeat gets that.

        Raises 409 `idempotency.in_flight`, 422 `idempotency.other_body`.
        """
        self._forget_old()
        sha256 = hashlib.sha256(raw).digest()
        earlier = self._earlier.get(key)
        if earlier is not None:
            return _again(earlier, sha256)
        mine = self._earlier[key] = _Earlier(sha256, time.monotonic())
        try:
            answer = mine.answer = await work()
        except RemitError as error:
            mine.answer = error
            if error.status >= 500:
                self._forget(key, mine)
            raise
        except BaseException:
            self._forget(key, mine)
            raise
        if self._earlier.get(key) is mine:
            mine.size = len(json.dumps(answer))
            self._bytes += mine.size
            self._forget_old()
        return answer

    def _forget_old(self) -> None:
        oldest = time.monotonic() - SECONDS
        while self._earlier:
            key, first = next(iter(self._earlier.items()))
            if len(self._earlier) <= _MOST and self._bytes <= MOST_BYTES and first.at >= oldest:
                return
            self._forget(key, first)

    def _forget(self, key: Key, earlier: _Earlier) -> None:
        if self._earlier.get(key) is earlier:
            del self._earlier[key]
            self._bytes -= earlier.size


def _again(earlier: _Earlier, sha256: bytes) -> Answer:
    if earlier.body_sha256 != sha256:
        raise invalid(
            "idempotency.other_body",
            "This idempotency key was used for another request.",
            FieldError("/idempotency_key", "a key of its own for each request"),
        )
    if earlier.answer is None:
        raise conflict(
            "idempotency.in_flight",
            "A request with this idempotency key is being worked on.",
            "Repeat the same request in a moment.",
        )
    if isinstance(earlier.answer, RemitError):
        raise earlier.answer
    return earlier.answer
