"""The Celery application. Tasks are wake-ups: short, idempotent, run late or twice with the same end state."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

app = Celery("remit", task_cls="controlplane.common.tasks:Task")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
