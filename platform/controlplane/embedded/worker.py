"""The background process of the embedded default: Celery's worker with threads, and the beat as one more thread."""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import bootsteps
from celery.beat import EmbeddedService

from controlplane.celery import app


class BeatThread(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """The schedule, kept in memory: every entry is a sweep of seconds, so nothing is worth writing to disk.

    Celery's own `--beat` forks a second process, which a killed worker would leave behind.
    """

    requires = {"celery.worker.components:Pool"}

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._beat: Any = None

    def start(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
        self._beat = EmbeddedService(app, thread=True, scheduler_cls="celery.beat:Scheduler")
        self._beat.start()

    def stop(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
        if self._beat is not None:
            self._beat.stop()

    terminate = stop


def run(*, threads: int) -> None:
    """Work until SIGTERM; running tasks end first."""
    app.steps["worker"].add(BeatThread)
    # The system checks load every page, which this process would keep in memory and never show.
    os.environ["CELERY_SKIP_CHECKS"] = "yes"
    # Not by its command line, whose shell and completion stay in memory as well.
    worker = app.Worker(
        pool_cls="threads",
        concurrency=threads,
        loglevel="INFO",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    sys.exit(worker.exitcode)
