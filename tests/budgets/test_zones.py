"""A change of the time zone beside reserves: nobody goes on in windows of the former one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal

import pytest
from django.db import connection, transaction

from budgets.models import Chain, Window
from budgets.types import Refusal, WindowKind
from budgets.zones import follow_zone
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Organisation, Team
from tests.budgets.conftest import Tree, wrong_sums

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def test_a_reserve_that_meets_a_change_counts_in_the_new_zones_window(
    open_tree: Callable[..., Tree], transactional_db: None
) -> None:
    organisation = Organisation.objects.create(name="Northwind", slug="northwind")
    tree = open_tree(organisation, Team.objects.create(organisation=organisation, name="Team", slug="team"))
    tree.limit(tree.team, WindowKind.DAY, money=Decimal(3))
    answers: list[Refusal | None] = []

    def reserve() -> None:
        try:
            for _ in range(40):
                try:
                    answers.append(tree.reserve("1")[1])
                except RemitError as error:
                    assert error.retry_after_seconds is not None  # noqa: PT017
        finally:
            connection.close()

    worker = threading.Thread(target=reserve)
    with transaction.atomic():
        Organisation.objects.filter(pk=organisation.pk).update(time_zone="Asia/Kathmandu")
        follow_zone(organisation.pk, "UTC")
        worker.start()
        worker.join(1)
    worker.join()
    assert answers.count(None) == 3
    (running,) = Window.objects.filter(account_id=tree.team, kind="day", ends_at__gt=now())
    assert (running.starts_at.hour, running.starts_at.minute) == (18, 15)  # midnight there
    assert running.pk in Chain.objects.get(account_id=tree.mission).window_ids
    assert wrong_sums() == []
