"""Repeated requests by their idempotency key, for verbs whose answers no row keeps. Remembered by this process only.

What is forgotten is still safe: a permit works once and an outcome is recorded once, whatever this says.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from controlplane.common.errors import FieldError, RemitError, conflict, invalid

SECONDS: Final = 300.0
_MOST: Final = 2000

Answer = dict[str, Any]
Key = tuple[str, ...]


@dataclass
class _Earlier:
    body_sha256: bytes
    at: float
    answer: Answer | RemitError | None = None  # None: being worked on


class Repeats:
    """Used from one event loop."""

    def __init__(self) -> None:
        self._earlier: OrderedDict[Key, _Earlier] = OrderedDict()

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
            mine.answer = await work()
        except RemitError as error:
            mine.answer = error
            if error.status >= 500:
                self._earlier.pop(key, None)
            raise
        except BaseException:
            self._earlier.pop(key, None)
            raise
        return mine.answer

    def _forget_old(self) -> None:
        oldest = time.monotonic() - SECONDS
        while self._earlier and (len(self._earlier) > _MOST or next(iter(self._earlier.values())).at < oldest):
            self._earlier.popitem(last=False)


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
