"""The ledger against a model of itself: any order of reserves, settlements, voids, expiries, limits and freezes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from budgets import services
from budgets.models import Hold
from budgets.sweeping import sweep_all
from budgets.types import Amounts, Level, Limits, WindowKind
from controlplane.common.errors import RemitError
from controlplane.common.ids import new_id
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import Principal, system_principal
from tests.budgets.conftest import window, wrong_sums

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
CENTS = st.integers(0, 400).map(lambda cents: Decimal(cents) / 100)


@dataclass
class Account:
    """The model's idea of one account: exact, sequential, obvious."""

    id: uuid.UUID
    parent: Account | None
    wanted: Decimal
    held: Decimal = Decimal(0)
    spent: Decimal = Decimal(0)
    overrun: Decimal = Decimal(0)
    frozen_by_person: bool = False
    frozen_by_overrun: bool = False

    @property
    def limit(self) -> Decimal:
        return max(self.wanted, self.held + self.spent)

    @property
    def frozen(self) -> bool:
        return self.frozen_by_person or self.frozen_by_overrun

    def chain(self) -> list[Account]:
        return [self, *(self.parent.chain() if self.parent else [])]

    def has_room(self, money: Decimal) -> bool:
        return not self.frozen and (money == 0 or self.held + self.spent + self.overrun + money <= self.limit)

    def take_more(self, money: Decimal) -> None:
        room = min(money, max(self.limit - self.held - self.spent - self.overrun, Decimal(0)))
        self.spent += room
        self.overrun += money - room
        self.frozen_by_overrun = self.frozen_by_overrun or room < money


@dataclass
class Kept:
    account: Account
    money: Decimal
    state: str = "held"
    charged: Decimal = Decimal(0)
    provisional: bool = False


class Ledger(RuleBasedStateMachine):
    """Every rule does one thing to both and compares the answers; the invariants compare the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts: list[Account] = []
        self.holds: dict[uuid.UUID, Kept] = {}

    @initialize()
    def open_tree(self) -> None:
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        organisation = Organisation.objects.create(name="Machine", slug=f"m-{new_id().hex}")
        self.actor: Principal = system_principal(organisation_id=organisation.pk)
        root = self._open(None, "12")
        team = self._open(root, "9")
        for limit in ("5", "7"):
            self._open(team, limit)

    def teardown(self) -> None:
        if hasattr(self, "atomic"):
            transaction.set_rollback(True)
            self.atomic.__exit__(None, None, None)

    def _open(self, parent: Account | None, limit: str) -> Account:
        identifier = services.open_account(
            actor=self.actor,
            organisation_id=self.actor.organisation_id,
            team_id=None,
            parent_id=parent.id if parent else None,
            level=Level.OTHER,
            name="Account",
            limits=Limits(money=Decimal(limit)),
            window=WindowKind.TOTAL,
        )
        self.accounts.append(Account(identifier, parent, Decimal(limit)))
        return self.accounts[-1]

    def _reserve(self, hold_id: uuid.UUID, account: Account, money: Decimal) -> object:
        return services.reserve(
            hold_id=hold_id,
            account_id=account.id,
            organisation_id=self.actor.organisation_id,
            amounts=Amounts(money, 0, 1),
            ttl_seconds=60,
        )

    def _pick(self, number: int) -> uuid.UUID:
        return sorted(self.holds)[number % len(self.holds)]

    @rule(number=st.integers(0, 3), money=CENTS)
    def reserve(self, number: int, money: Decimal) -> None:
        account, hold_id = self.accounts[number], new_id()
        refusal = self._reserve(hold_id, account, money)
        blocking = next((level for level in account.chain() if not level.has_room(money)), None)
        assert (refusal.account_id if refusal else None) == (blocking.id if blocking else None)  # type: ignore[attr-defined]
        if blocking is None:
            for level in account.chain():
                level.held += money
            self.holds[hold_id] = Kept(account, money)

    @precondition(lambda self: self.holds)
    @rule(number=st.integers(0, 99))
    def replay(self, number: int) -> None:
        hold_id = self._pick(number)
        kept = self.holds[hold_id]
        refusal = self._reserve(hold_id, kept.account, kept.money)
        assert (refusal is None) == (kept.state not in ("voided", "expired"))

    @precondition(lambda self: self.holds)
    @rule(number=st.integers(0, 99))
    def dispatch(self, number: int) -> None:
        hold_id = self._pick(number)
        kept = self.holds[hold_id]
        if kept.state in ("held", "dispatched"):
            services.dispatch(hold_id=hold_id)
            kept.state = "dispatched"
        else:
            with pytest.raises(RemitError):
                services.dispatch(hold_id=hold_id)

    @precondition(lambda self: self.holds)
    @rule(number=st.integers(0, 99), money=CENTS)
    def settle(self, number: int, money: Decimal) -> None:
        hold_id = self._pick(number)
        kept = self.holds[hold_id]
        if kept.state == "voided":
            with pytest.raises(RemitError):
                services.settle(hold_id=hold_id, amounts=Amounts(money, 0, 1))
            return
        result = services.settle(hold_id=hold_id, amounts=Amounts(money, 0, 1))
        replayed = kept.state == "settled" and not kept.provisional
        assert result.replayed == replayed
        assert result.charged.money == (kept.charged if replayed else money)
        if not replayed:
            self._charge(kept, money)

    def _charge(self, kept: Kept, money: Decimal) -> None:
        free = kept.money if kept.state in ("held", "dispatched") else Decimal(0)
        for level in kept.account.chain():
            level.held -= free
            level.spent += min(money, kept.charged + free) - kept.charged
            level.take_more(max(money - kept.charged - free, Decimal(0)))
        kept.state, kept.charged, kept.provisional = "settled", money, False

    @precondition(lambda self: self.holds)
    @rule(number=st.integers(0, 99))
    def void(self, number: int) -> None:
        hold_id = self._pick(number)
        kept = self.holds[hold_id]
        if kept.state == "settled" and not kept.provisional:
            with pytest.raises(RemitError):
                services.void(hold_id=hold_id)
            return
        services.void(hold_id=hold_id)
        if kept.state == "settled":
            self._charge(kept, Decimal(0))
        elif kept.state in ("held", "dispatched"):
            self._release(kept, "voided")

    def _release(self, kept: Kept, state: str) -> None:
        for level in kept.account.chain():
            level.held -= kept.money
        kept.state = state

    @precondition(lambda self: self.holds)
    @rule(number=st.integers(0, 99))
    def expire(self, number: int) -> None:
        hold_id = self._pick(number)
        kept = self.holds[hold_id]
        Hold.objects.filter(pk=hold_id).update(expires_at=LONG_AGO)
        sweep_all()
        if kept.state == "held":
            self._release(kept, "expired")
        elif kept.state == "dispatched":
            self._charge(kept, kept.money)
            kept.provisional = True

    @precondition(lambda self: self.holds)
    @rule(number=st.integers(0, 99))
    def extend(self, number: int) -> None:
        hold_id = self._pick(number)
        if self.holds[hold_id].state in ("held", "dispatched"):
            services.extend(hold_id=hold_id, ttl_seconds=90)
        else:
            with pytest.raises(RemitError):
                services.extend(hold_id=hold_id, ttl_seconds=90)

    @rule(number=st.integers(0, 3), money=CENTS.map(lambda money: money * 4))
    def set_limit(self, number: int, money: Decimal) -> None:
        account = self.accounts[number]
        services.set_limit(actor=self.actor, account_id=account.id, window=WindowKind.TOTAL, limits=Limits(money=money))
        account.wanted = money
        if account.held + account.spent + account.overrun <= account.limit:
            account.frozen_by_overrun = False

    @rule(number=st.integers(0, 3))
    def freeze(self, number: int) -> None:
        services.freeze(actor=self.actor, account_id=self.accounts[number].id, reason="Machine")
        self.accounts[number].frozen_by_person = True

    @rule(number=st.integers(0, 3))
    def unfreeze(self, number: int) -> None:
        services.unfreeze(actor=self.actor, account_id=self.accounts[number].id)
        self.accounts[number].frozen_by_person = self.accounts[number].frozen_by_overrun = False

    @invariant()
    def every_row_is_as_the_model_says(self) -> None:
        for account in self.accounts:
            row = window(account.id)
            assert (row.held_money, row.spent_money, row.overrun_money) == (
                account.held,
                account.spent,
                account.overrun,
            )
            assert (row.limit_money, row.frozen) == (account.limit, account.frozen)

    @invariant()
    def every_sum_is_the_sum_of_its_parts(self) -> None:
        assert wrong_sums() == []


@pytest.mark.slow
@pytest.mark.django_db
def test_any_order_of_operations_agrees_with_the_model() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Ledger,
        settings=settings(
            max_examples=50,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
