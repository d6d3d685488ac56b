"""Database work for the asynchronous edges: a bounded pool of threads, each unit with a connection of its own."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

P = ParamSpec("P")
R = TypeVar("R")

THREADS = 6
_POOL = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="gateway")


async def in_thread(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ORM code. Django's request signals don't fire at these edges, so connections go back to their pool here."""
    context = contextvars.copy_context()
    call = functools.partial(context.run, _with_fresh_connection, functools.partial(function, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(_POOL, call)


def _with_fresh_connection(call: Callable[[], R]) -> R:
    close_old_connections()
    try:
        return call()
    finally:
        close_old_connections()
