"""Asking several things at once and waiting only so long: probes must answer when what they ask about does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

T = TypeVar("T")

# A call that outlives its deadline keeps its thread until it ends by itself; with eight of them the rest go unanswered.
_POOL = ThreadPoolExecutor(max_workers=8, thread_name_prefix="probe")


def answers(calls: Mapping[str, Callable[[], T]], *, seconds: float) -> dict[str, T | Exception]:
    """What each call returned or raised, in their order; TimeoutError for those that took longer than `seconds`."""
    deadline = time.monotonic() + seconds
    futures: dict[str, Future[T]] = {name: _POOL.submit(_with_own_connection, call) for name, call in calls.items()}
    found: dict[str, T | Exception] = {}
    for name, future in futures.items():
        try:
            found[name] = future.result(timeout=max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            future.cancel()
            found[name] = TimeoutError("no answer in time")
        except Exception as error:
            found[name] = error
    return found


def _with_own_connection(call: Callable[[], T]) -> T:
    try:
        return call()
    finally:
        connections.close_all()
