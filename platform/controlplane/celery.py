"""The Celery application. Tasks are wake-ups: short, idempotent, run late or twice with the same end state."""

import os
from typing import Any

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

app = Celery("remit", task_cls="controlplane.common.tasks:Task")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.worker_ready.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _make_months(**_: Any) -> None:
    """The schedule's first turn is an hour after the start: an installation that slept for a year has no month to write
    in until then."""
    for name in ("controlplane.audit.tasks.make_months", "budgets.tasks.make_months"):
        app.send_task(name)
