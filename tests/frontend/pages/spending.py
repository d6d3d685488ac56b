"""Money spent in the world of the tests, and the pages and files that tell of it."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import Any

from django.test import Client

from budgets import services as budgets
from budgets.costs.folding import fold_all
from budgets.types import Amounts
from controlplane.common.ids import new_id


def page(browser: Client, path: str, status: int = 200) -> str:
    response = browser.get(path)
    assert response.status_code == status, path
    return response.content.decode()


def rows_of(browser: Client, path: str) -> list[dict[str, str]]:
    content = b"".join(browser.get(path).streaming_content).decode()  # type: ignore[attr-defined]
    return list(csv.DictReader(io.StringIO(content)))


def spend(world: Any, money: str, *, fold: bool = True) -> None:
    """Charged to the mission's budget."""
    world.mission.refresh_from_db()
    hold = new_id()
    refusal = budgets.reserve(
        hold_id=hold,
        account_id=world.mission.account_id,
        organisation_id=world.organisation.pk,
        amounts=Amounts(Decimal(money), 0, 0),
        ttl_seconds=60,
    )
    assert refusal is None
    budgets.settle(hold_id=hold)
    if fold:
        fold_all()
