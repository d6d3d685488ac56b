"""The background process of the embedded default: Celery's worker with threads, and the beat as one more thread."""

from __future__ import annotations

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
    app.worker_main(
        [
            *("worker", "--pool", "threads", "--concurrency", str(threads), "--loglevel", "INFO"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
    )
