"""Database work for the asynchronous edges: a bounded number of threads, each with a connection that it keeps.

A database that is away is a RemitError here (503, retryable), so that every edge answers it as it answers any other.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import structlog
from django.db import Error, connection

from controlplane.common.outages import outage_of

log = structlog.get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

THREADS = 6
_POOL = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="gateway")


async def in_thread(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ORM code. Django's request signals don't fire at these edges, so connections are looked after here.

    Raises 503 `database.unavailable` or `database.disk_full` for a failure of the database itself.
    """
    context = contextvars.copy_context()
    call = functools.partial(context.run, _with_fresh_connection, functools.partial(function, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(_POOL, call)


def _with_fresh_connection(call: Callable[[], R]) -> R:
    _drop_lost_connection()
    try:
        return call()
    except Error as error:
        outage = outage_of(error)
        if outage is None:
            raise
        log.warning("gateway.database_failed", code=outage.code, error=str(error).strip())
        raise outage from error
    finally:
        if connection.connection is not None and not _is_clean():
            connection.close()


def _is_clean() -> bool:
    """Nothing failed on it and no transaction was left open: the next unit may have it."""
    return not connection.errors_occurred and not connection.in_atomic_block and connection.autocommit


def _drop_lost_connection() -> None:
    """Between units nothing is asked of the server, so a socket that has something to say says that it is over."""
    held = connection.connection
    if held is None:
        return
    if not held.closed:
        socket = select.poll()  # select() would refuse a process with more than 1,024 files
        socket.register(held.fileno(), select.POLLIN)
        if not socket.poll(0):
            return
        held.close()  # else the pool, which has not heard of it either, would lend it again
    connection.close()
    # Most likely its other connections are lost too; found one by one, each costs a pause.
    connection.pool.check()  # type: ignore[attr-defined]
