"""A broker that takes the connection and never says a word: whoever wakes a task is not held by it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from django.db import transaction

from controlplane.common.tasks import Task
from controlplane.tenancy.models import Organisation

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["unix", "tcp"])
def silent_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "s"))
        url = f"redis+socket://{tmp_path}/s"
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    listener.listen(16)
    with listener:
        yield url


def test_waking_a_task_takes_seconds_at_most_and_what_was_committed_stays(
    silent_broker: str, northwind: Organisation
) -> None:
    app = Celery("silent", task_cls=Task, set_as_current=False)
    app.config_from_object("django.conf:settings", namespace="CELERY")
    app.conf.broker_url = silent_broker

    @app.task
    def sweep() -> None: ...

    since = time.monotonic()
    with transaction.atomic():
        Organisation.objects.filter(pk=northwind.pk).update(name="Changed")
        sweep.wake()
    assert time.monotonic() - since < 4
    assert Organisation.objects.get(pk=northwind.pk).name == "Changed"
