"""Readiness: named checks, each asked with a deadline. Liveness is answering at all (`probes`)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from controlplane.common.deadlines import answers

log = structlog.get_logger(__name__)

CHECK_SECONDS: Final = 3.0
# Ready means that all of these answer for themselves; a process in which one was never registered is not ready.
REQUIRED: Final = ("database", "migrations", "broker", "policy_loaded")

Check = Callable[[], str | None]
_CHECKS: Final[dict[str, Check]] = {}


@dataclass(frozen=True)
class Result:
    name: str
    problem: str  # empty: fine

    @property
    def passed(self) -> bool:
        return not self.problem


def register_check(name: str, check: Check) -> None:
    """Add to `/readyz`: `check()` returns None when all is well, or a sentence that says what is wrong; raising is red.

    Called by `AppConfig.ready()` of whoever owns the thing. The sentence is public: no addresses, no secrets.
    """
    _CHECKS[name] = check


def readiness() -> list[Result]:
    """Every check's result, the required ones first, in at most three seconds."""
    missing = [name for name in REQUIRED if name not in _CHECKS]
    found = [Result(name, _problem(name, answer)) for name, answer in answers(_CHECKS, seconds=CHECK_SECONDS).items()]
    return [Result(name, "Nobody answers for this.") for name in missing] + found


def _problem(name: str, answer: Any) -> str:
    """The public sentence of an answer. Only None and "" are fine."""
    if answer is None or answer == "":
        return ""
    if isinstance(answer, str):
        return answer
    log.warning("health.check_failed", check=name, error=f"{type(answer).__name__}: {answer}")
    return "No answer in time." if isinstance(answer, TimeoutError) else f"Failed with {type(answer).__name__}."


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _migrations() -> str | None:
    missing = _on_disk() - set(MigrationRecorder(connection).applied_migrations())
    return f"{len(missing)} migrations are not applied: run `./manage.py migrate`." if missing else None


@functools.cache
def _on_disk() -> frozenset[tuple[str, str]]:
    """The migrations of this code; they don't change while the process runs."""
    return frozenset(MigrationLoader(None).disk_migrations)


def _broker() -> None:
    broker = Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=2,
        socket_connect_timeout=2,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        broker.ping()
    finally:
        broker.close()


def register_own_checks() -> None:
    register_check("database", _database)
    register_check("migrations", _migrations)
    register_check("broker", _broker)
