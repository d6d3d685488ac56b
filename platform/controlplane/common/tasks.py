"""The one Task base: a task never leaves before the transaction that asked for it has committed."""

from __future__ import annotations

from typing import Any

import structlog
from celery.contrib.django.task import DjangoTask
from django.db import transaction
from kombu.exceptions import OperationalError

from controlplane.common.observability import incoming_span, outgoing_headers

log = structlog.get_logger(__name__)


class Task(DjangoTask):  # type: ignore[misc]
    """Use `wake()` only. Arguments are ids; state lives in the database, where a sweep finds it."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run inside a span that continues the trace of whoever woke the task."""
        with incoming_span("task", {"traceparent": self.request.get("traceparent") or ""}, **{"task.name": self.name}):
            structlog.contextvars.clear_contextvars()
            return super().__call__(*args, **kwargs)

    def wake(self, *args: Any, **kwargs: Any) -> None:
        """Send after commit. A broker that is down costs a delay until the next sweep, never the caller's request."""
        headers = outgoing_headers()
        transaction.on_commit(lambda: self._send(args, kwargs, headers), robust=True)

    def _send(self, args: tuple[Any, ...], kwargs: dict[str, Any], headers: dict[str, str]) -> None:
        try:
            self.apply_async(args=args, kwargs=kwargs, headers=headers, retry=False)
        except (OperationalError, OSError) as error:
            log.warning("task.not_sent", task=self.name, error=str(error))
