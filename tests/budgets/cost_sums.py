"""What the tests of costs share: a charge, and the sums of the journal and of the folded days."""

from __future__ import annotations

import uuid
from decimal import Decimal

from django.db import connection

from budgets import services
from budgets.costs.models import CostDay
from budgets.types import Amounts
from tests.budgets.conftest import Tree


def journal_sums(organisation_id: uuid.UUID) -> dict[object, tuple[Decimal, int, int]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT account_id, sum(money), sum(tokens), sum(steps) FROM budgets_journal"
            " WHERE organisation_id = %s AND kind IN ('settle', 'correct') GROUP BY account_id",
            [organisation_id],
        )
        return {row[0]: (row[1], int(row[2]), int(row[3])) for row in cursor.fetchall()}


def folded_sums(organisation_id: uuid.UUID) -> dict[object, tuple[Decimal, int, int]]:
    found: dict[object, tuple[Decimal, int, int]] = {}
    for row in CostDay.objects.filter(organisation_id=organisation_id):
        money, tokens, steps = found.get(row.account_id, (Decimal(0), 0, 0))
        found[row.account_id] = (money + row.money, tokens + row.tokens, steps + row.steps)
    return found


def charge(tree: Tree, money: str, *, held: str | None = None) -> uuid.UUID:
    hold = tree.held(held or money)
    services.settle(hold_id=hold, amounts=Amounts(Decimal(money), 0, 1))
    return hold
