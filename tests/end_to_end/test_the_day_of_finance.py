"""Finance's day: the dearest kind of goal, its waste, its lines, and a CSV whose totals are the page's."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.end_to_end.conftest import Installation, wait_for
from tests.end_to_end.test_receivables import examine

pytestmark = [pytest.mark.browser, pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(600)]
SPENT = (
    "from budgets.costs.models import CostMission; from budgets.models import Account; "
    "from django.db.models import Sum; from governance.models import Action; "
    "print(Action.objects.aggregate(total=Sum('cost'))['total'] or 0)"
)


def test_finance_finds_what_goals_cost_and_every_total_adds_up(
    remit: Installation, signed_in: Callable[[str], Any]
) -> None:
    wait_for(lambda: Decimal(remit.shell(SPENT)) > Decimal("0.05"), 120)
    remit.manage("costs", "fold")
    finn = signed_in("finn")
    finn.get_by_role("link", name="Costs").first.click()
    finn.get_by_role("heading", name="Cost per accepted goal").wait_for()
    examine(finn, remit, "costs")

    table = finn.locator("table.costs").first
    dearest = table.locator("tbody [data-row-link]").first
    goal = dearest.inner_text()
    page_totals = [money(text) for text in table.locator("tbody tr td:last-child").all_inner_texts()]
    assert sum(page_totals) == money(table.locator("tfoot td").last.inner_text())

    with finn.expect_download() as download:
        finn.get_by_role("link", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(open(download.value.path(), encoding="utf-8-sig").read())))  # noqa: SIM115
    lines = [row for row in rows if row["goal"] and row["goal"].lower() != "total"]
    assert goal in {row["goal"] for row in lines}
    exact = sum(Decimal(row["money_total"]) for row in lines)
    assert exact.quantize(Decimal("0.01")) == sum(page_totals)

    dearest.click()
    finn.get_by_role("heading", name=goal).first.wait_for()
    examine(finn, remit, "cost-goal")
    finn.locator("table [data-row-link]").first.click()
    finn.get_by_text(re.compile("Charged", re.IGNORECASE)).first.wait_for()
    examine(finn, remit, "cost-mission")


def money(text: str) -> Decimal:
    return Decimal(re.sub(r"[^0-9.]", "", text.splitlines()[0]))
