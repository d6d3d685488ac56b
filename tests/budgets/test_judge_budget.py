"""The judge has a budget of its own: opened once per organisation, charged by use, and empty when it is used up."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings as django_settings

from budgets.accounts import judge_account
from budgets.models import Account, Hold
from budgets.port import LedgerPort
from governance.types import HoldRefused
from tests.budgets.conftest import Tree

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _a_thousand_tokens_a_day(settings: Any) -> None:
    settings.CONFIG = django_settings.CONFIG.model_copy(update={"judge_daily_tokens": 1000})


def test_its_tokens_are_held_before_and_charged_as_used(tree: Tree) -> None:
    port = LedgerPort()
    hold = port.reserve_judgement(organisation_id=tree.organisation_id, tokens=600)
    assert not isinstance(hold, HoldRefused)
    refused = port.reserve_judgement(organisation_id=tree.organisation_id, tokens=600)
    assert isinstance(refused, HoldRefused)
    assert "Judge" in refused.message
    port.settle(hold_id=hold, money=None, tokens=100)
    assert not isinstance(port.reserve_judgement(organisation_id=tree.organisation_id, tokens=600), HoldRefused)
    assert Account.objects.filter(subject_type="judge").count() == 1
    assert Hold.objects.filter(account_id=judge_account(tree.organisation_id)).count() == 2
