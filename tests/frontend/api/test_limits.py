"""The version of a budget is what people decided: no decision is overwritten unseen, and no spending is in the way."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from budgets import services as budgets
from budgets.models import AccountLimit
from budgets.types import Amounts
from controlplane.common.ids import new_id
from controlplane.tenancy.models import User
from tests.frontend.api.conftest import Api

ApiOf = Callable[..., Api]


@pytest.fixture
def team_budget(world: Any) -> Any:
    return world.account_of("team", world.team.pk)


def hold(world: Any, account: Any, money: str) -> Any:
    hold_id = new_id()
    refusal = budgets.reserve(
        hold_id=hold_id,
        account_id=account,
        organisation_id=world.organisation.pk,
        amounts=Amounts(Decimal(money), 0, 0),
        ttl_seconds=60,
    )
    assert refusal is None
    return hold_id


def set_limit(api: Api, account: Any, amount: str, etag: str) -> Any:
    body = {"window": "month", "limits": {"money": {"amount": amount}}, "reason": "Month end"}
    return api.post(f"budgets/{account}:set-limit", body, if_match=etag)


def test_a_limit_decided_below_what_is_spent_is_not_overwritten_unseen(
    world: Any, team_budget: Any, api_of: ApiOf, finn: User, nadia: User
) -> None:
    finns, nadias, path = api_of(finn), api_of(nadia), f"budgets/{team_budget}"
    budgets.settle(hold_id=hold(world, team_budget, "90.00"))
    assert set_limit(nadias, team_budget, "50.00", nadias.get(path)["ETag"]).status_code == 200
    read = finns.get(path)
    shown = read.json()
    assert shown["limits"]["money"]["amount"] == "50.000000000000"
    assert shown["left"]["money"]["amount"] == "0.000000000000"
    assert set_limit(nadias, team_budget, "55.00", read["ETag"]).status_code == 200
    assert set_limit(finns, team_budget, "40.00", read["ETag"]).status_code == 412
    assert AccountLimit.objects.get(account_id=team_budget, kind="month").money == 55


def test_what_is_held_settled_and_released_meanwhile_is_in_nobodys_way(
    world: Any, team_budget: Any, api_of: ApiOf, finn: User
) -> None:
    finns, path = api_of(finn), f"budgets/{team_budget}"
    first, second = hold(world, team_budget, "30.00"), hold(world, team_budget, "40.00")
    etag = set_limit(finns, team_budget, "20.00", finns.get(path)["ETag"])["ETag"]
    budgets.settle(hold_id=first, amounts=Amounts(Decimal("95.00"), 0, 0))  # freezes the window
    budgets.void(hold_id=second)
    assert set_limit(finns, team_budget, "25.00", etag).status_code == 200
    etag = finns.get(path)["ETag"]
    assert finns.post(f"{path}:freeze", {"reason": "Odd spending"}).status_code == 200
    assert set_limit(finns, team_budget, "30.00", etag).status_code == 412
    assert AccountLimit.objects.get(account_id=team_budget, kind="month").money == 25
