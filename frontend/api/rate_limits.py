"""How many requests a minute one token or person may make. Counted in Valkey; when it is away, in this process."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

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

    def __init__(self, url: str, limit: int) -> None:
        self._client = redis.Redis.from_url(
            url, socket_timeout=_PATIENCE_SECONDS, socket_connect_timeout=_PATIENCE_SECONDS
        )
        self._limit = limit
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
        key = f"remit:rate:{who}:{window}"
        pipe = self._client.pipeline(transaction=False)
        pipe.incr(key)
        pipe.expire(key, WINDOW_SECONDS * 2)
        return int(pipe.execute()[0])

    def _own(self, who: str, window: int) -> int:
        with self._lock:
            if len(self._alone) >= _MOST_COUNTED or any(seen != window for _, seen in list(self._alone)[:1]):
                self._alone = {key: used for key, used in self._alone.items() if key[1] == window}
            if len(self._alone) >= _MOST_COUNTED and (who, window) not in self._alone:
                return self._limit + 1  # more callers than can be counted: refused, not waved through
            self._alone[who, window] = used = self._alone.get((who, window), 0) + 1
            return used


_LIMITERS: dict[str, RateLimiter] = {}


def limiter() -> RateLimiter:
    """This process's, made at the first request."""
    found = _LIMITERS.get("api")
    if found is None:
        found = _LIMITERS["api"] = RateLimiter(settings.REDIS_URL, settings.CONFIG.api_requests_a_minute)
    return found
