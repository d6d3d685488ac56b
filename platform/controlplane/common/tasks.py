"""The one Task base: a task never leaves before the transaction that asked for it has committed."""

from __future__ import annotations

from typing import Any

import structlog
from celery.contrib.django.task import DjangoTask
from django.db import transaction
from kombu.exceptions import OperationalError

log = structlog.get_logger(__name__)


class Task(DjangoTask):  # type: ignore[misc]
    """Use `wake()` only. Arguments are ids; state lives in the database, where a sweep finds it if the message is lost."""

    abstract = True

    def wake(self, *args: Any, **kwargs: Any) -> None:
        """Send after commit. A broker that is down costs a delay until the next sweep, never the caller's request."""
        transaction.on_commit(lambda: self._send(args, kwargs), robust=True)

    def _send(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self.apply_async(args=args, kwargs=kwargs, retry=False)
        except (OperationalError, OSError) as error:
            log.warning("task.not_sent", task=self.name, error=str(error))
