"""The configured models, one HTTP call to one of them, and the breaker that gives a failing one a rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
import msgspec
from django.conf import settings

from governance.judging.protocol import MAX_ANSWER_BYTES

FAILURES_TO_OPEN: Final = 5
OPEN_SECONDS: Final = 30.0


class EndpointFailed(Exception):
    """No response to judge by; `reason` is a code of ours. The text names no secrets."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class Endpoint:
    url: str
    model: str
    key: str = field(repr=False)
    failures: int = 0
    open_until: float = 0.0
    trouble: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def is_open(self) -> bool:
        return time.monotonic() < self.open_until

    def may_ask(self) -> bool:
        """Not while it rests. When the rest is over one call tries it, and it rests on for all others meanwhile."""
        with self._lock:
            if self.is_open:
                return False
            if self.failures >= FAILURES_TO_OPEN:
                self.open_until = time.monotonic() + OPEN_SECONDS
            return True

    def note(self, trouble: str) -> None:
        """After each call: empty for a valid answer."""
        with self._lock:
            self.trouble = trouble
            self.failures = self.failures + 1 if trouble else 0
            if self.failures >= FAILURES_TO_OPEN:
                self.open_until = time.monotonic() + OPEN_SECONDS
            elif not trouble:
                self.open_until = 0.0

    def ask(self, body: Mapping[str, Any], *, seconds: float) -> bytes:
        """The response, its body within `seconds` and one wait of as long, at whatever pace it drips. Raises
        EndpointFailed."""
        until = time.monotonic() + seconds
        headers = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        try:
            with _client().stream(
                "POST",
                f"{self.url.rstrip('/')}/chat/completions",
                content=msgspec.json.encode(body),
                headers=headers,
                timeout=httpx2.Timeout(seconds),
            ) as response:
                raw = _read(response, until)
        except httpx2.TimeoutException as error:
            raise EndpointFailed("judge.too_slow", "The model did not answer in time.") from error
        except (httpx2.HTTPError, OSError) as error:
            raise EndpointFailed("judge.unreachable", "The model can't be reached.") from error
        if response.status_code != 200:
            reason = "judge.rate_limited" if response.status_code == 429 else "judge.failed"
            raise EndpointFailed(reason, f"The model's server answered {response.status_code}.")
        return raw


def endpoints() -> tuple[Endpoint, ...]:
    """From `JUDGE_URL`, `JUDGE_MODEL`, `JUDGE_KEY`: several are separated by commas and tried in their order."""
    config = settings.CONFIG
    wanted = (config.judge_url, config.judge_model, config.judge_key)
    with _LOCK:
        if _KNOWN.get("wanted") != wanted:
            _KNOWN["wanted"], _KNOWN["endpoints"] = wanted, _parsed(*wanted)
        found: tuple[Endpoint, ...] = _KNOWN["endpoints"]
    return found


def is_on() -> bool:
    return bool(settings.CONFIG.judge_url)


def troubled() -> list[Endpoint]:
    """Those that are resting, for the warning that every page shows."""
    return [endpoint for endpoint in endpoints() if endpoint.is_open]


_LOCK: Final = threading.Lock()
_KNOWN: Final[dict[str, Any]] = {}
_CLIENTS: Final[list[httpx2.Client]] = []


def _parsed(urls: str, models: str, keys: str) -> tuple[Endpoint, ...]:
    listed = [url.strip() for url in urls.split(",") if url.strip()]
    named = [model.strip() for model in models.split(",")]
    secret = [key.strip() for key in keys.split(",")]
    return tuple(
        Endpoint(url, named[index] if index < len(named) else named[-1], secret[index] if index < len(secret) else "")
        for index, url in enumerate(listed)
    )


def _client() -> httpx2.Client:
    """One for the process, so that connections are used again. It follows no redirect and heeds no proxy variable."""
    with _LOCK:
        if not _CLIENTS:
            _CLIENTS.append(httpx2.Client(follow_redirects=False, trust_env=False))
        return _CLIENTS[0]


def _read(response: httpx2.Response, until: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_raw():  # as it comes: chunks of a size would be waited for
        body += chunk
        if len(body) > MAX_ANSWER_BYTES * 4:
            raise EndpointFailed("judge.endless", "The model's response is too long.")
        if time.monotonic() > until:
            raise EndpointFailed("judge.too_slow", "The model did not answer in time.")
    return bytes(body)
