"""Database work for the asynchronous edges: a bounded pool of threads, each unit with a connection of its own.

A database that is away is a RemitError here (503, retryable), so that every edge answers it as it answers any other.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import structlog
from django.db import Error, close_old_connections

from controlplane.common.outages import outage_of

log = structlog.get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

THREADS = 6
_POOL = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="gateway")


async def in_thread(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ORM code. Django's request signals don't fire at these edges, so connections go back to their pool here.

    Raises 503 `database.unavailable` or `database.disk_full` for a failure of the database itself.
    """
    context = contextvars.copy_context()
    call = functools.partial(context.run, _with_fresh_connection, functools.partial(function, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(_POOL, call)


def _with_fresh_connection(call: Callable[[], R]) -> R:
    close_old_connections()
    try:
        return call()
    except Error as error:
        outage = outage_of(error)
        if outage is None:
            raise
        log.warning("gateway.database_failed", code=outage.code, error=str(error).strip())
        raise outage from error
    finally:
        close_old_connections()
