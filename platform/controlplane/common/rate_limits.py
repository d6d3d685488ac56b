"""How many requests a minute one token or person may make. Counted in Valkey; when it is away, in this process.

An edge that is hot takes several requests at a time from what Valkey has left: most of its requests ask nobody.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import redis
import structlog
from django.conf import settings
from redis.exceptions import RedisError

from controlplane.common.errors import RemitError

log = structlog.get_logger(__name__)

WINDOW_SECONDS: Final = 60
# Several processes count apart while Valkey is away, so each allows only a part of the whole.
ALONE_PART: Final = 4
_PATIENCE_SECONDS: Final = 0.25
_AWAY_SECONDS: Final = 5.0  # before Valkey is asked again
_MOST_COUNTED: Final = 10_000


@dataclass(frozen=True)
class Allowance:
    """What is left in this window. `used` counts this request too."""

    limit: int
    used: int
    reset_seconds: int

    @property
    def headers(self) -> dict[str, str]:
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(max(0, self.limit - self.used)),
            "RateLimit-Reset": str(self.reset_seconds),
        }

    def error(self) -> RemitError | None:
        if self.used <= self.limit:
            return None
        return RemitError(
            "rate_limit.reached",
            f"At most {self.limit} requests a minute.",
            429,
            remedies=(f"Go on in {self.reset_seconds} s, or ask for less often.",),
            retry_after_seconds=self.reset_seconds,
        )


class RateLimiter:
    """One a process; threads share it."""

    def __init__(self, url: str, limit: int, *, name: str = "rate", taken_at_once: int = 1) -> None:
        self._client = redis.Redis.from_url(
            url, socket_timeout=_PATIENCE_SECONDS, socket_connect_timeout=_PATIENCE_SECONDS
        )
        self._limit, self._name, self._at_once = limit, name, taken_at_once
        self._taken: dict[tuple[str, int], tuple[int, int]] = {}  # next place, last place
        self._away_until = 0.0
        self._alone: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()

    def count(self, who: str) -> Allowance:
        """Count one request of `who`."""
        moment = time.time()
        window = int(moment // WINDOW_SECONDS)
        reset = max(1, WINDOW_SECONDS - int(moment % WINDOW_SECONDS))
        if time.monotonic() >= self._away_until:
            try:
                return Allowance(self._limit, self._shared(who, window), reset)
            except (RedisError, OSError) as error:
                self._away_until = time.monotonic() + _AWAY_SECONDS
                log.warning("rate_limit.alone", error=f"{type(error).__name__}: {error}")
        return Allowance(max(1, self._limit // ALONE_PART), self._own(who, window), reset)

    def _shared(self, who: str, window: int) -> int:
        """The place of this request in its window. No place is given twice, in whatever process."""
        if self._at_once == 1:
            return self._take(who, window)
        with self._lock:
            place, last = self._taken.get((who, window), (1, 0))
            if place > last:
                last = self._take(who, window)
                place = last - self._at_once + 1
                self._make_room(self._taken, window)
            self._taken[who, window] = place + 1, last
            return place

    def _take(self, who: str, window: int) -> int:
        key = f"remit:{self._name}:{who}:{window}"
        pipe = self._client.pipeline(transaction=False)
        pipe.incrby(key, self._at_once)
        pipe.expire(key, WINDOW_SECONDS * 2)
        return int(pipe.execute()[0])

    def _own(self, who: str, window: int) -> int:
        with self._lock:
            self._make_room(self._alone, window)
            if len(self._alone) >= _MOST_COUNTED and (who, window) not in self._alone:
                return self._limit + 1  # more callers than can be counted: refused, not waved through
            self._alone[who, window] = used = self._alone.get((who, window), 0) + 1
            return used

    def _make_room(self, counted: dict[tuple[str, int], Any], window: int) -> None:
        """Without the windows that are over, at the first request of a new one."""
        if len(counted) >= _MOST_COUNTED or any(seen != window for _, seen in list(counted)[:1]):
            for key in [key for key in counted if key[1] != window]:
                del counted[key]


_LIMITERS: dict[str, RateLimiter] = {}
# Places are taken one at a time where people and programs ask, and twenty at a time on the way of agents' actions.
_TAKEN_AT_ONCE: Final = {"api": 1, "actions": 20}


def limiter(of: str) -> RateLimiter:
    """This process's for the interface (`api`) or for agents' actions (`actions`), made at the first request."""
    found = _LIMITERS.get(of)
    if found is None:
        limit = settings.CONFIG.api_requests_a_minute if of == "api" else settings.CONFIG.api_actions_a_minute
        at_once = min(_TAKEN_AT_ONCE[of], max(1, limit // 10))
        found = _LIMITERS[of] = RateLimiter(settings.REDIS_URL, limit, name=f"rate:{of}", taken_at_once=at_once)
    return found
