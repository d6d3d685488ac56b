"""The ledger as the gate knows it: `governance.types.Ledger` over `budgets.holds`."""

from __future__ import annotations

import uuid
from decimal import Decimal

from budgets import calls, holds
from budgets.accounts import judge_account
from budgets.types import Amounts
from controlplane.common.ids import new_id
from governance.types import BudgetRequest, HoldRefused, Statement

_JUDGEMENT_SECONDS = 120


class LedgerPort:
    """Every call is one statement in the caller's transaction, which keeps the rows until its end: reserve last."""

    def reserve(
        self,
        *,
        hold_id: uuid.UUID,
        request: BudgetRequest,
        organisation_id: uuid.UUID,
        ttl_seconds: int,
        action_id: uuid.UUID | None = None,
        dispatched: bool = False,
    ) -> HoldRefused | None:
        refusal = holds.reserve(
            hold_id=hold_id,
            account_id=request.account_id,
            organisation_id=organisation_id,
            amounts=Amounts(request.money, request.tokens, request.steps),
            currency=request.currency,
            signature=request.signature,
            ttl_seconds=ttl_seconds,
            action_id=action_id,
            dispatched=dispatched,
        )
        if refusal is None:
            return None
        return HoldRefused(refusal.reason_code, refusal.message, refusal.remedies)

    def dispatch(self, *, hold_id: uuid.UUID) -> None:
        holds.dispatch(hold_id=hold_id)

    def settle(self, *, hold_id: uuid.UUID, money: Decimal | None, tokens: int | None = None) -> Decimal:
        return holds.charge(hold_id=hold_id, money=money, tokens=tokens, steps=None).charged.money

    def settle_between(self, *, money: Decimal, locked: Statement, then: Statement) -> bool:
        return calls.settle_between(money, locked.sql, locked.parameters, then.sql, then.parameters)

    def void(self, *, hold_id: uuid.UUID) -> None:
        holds.void(hold_id=hold_id)

    def extend(self, *, hold_id: uuid.UUID, ttl_seconds: int) -> None:
        holds.extend(hold_id=hold_id, ttl_seconds=ttl_seconds)

    def reserve_judgement(self, *, organisation_id: uuid.UUID, tokens: int) -> uuid.UUID | HoldRefused:
        account_id, hold_id = judge_account(organisation_id), new_id()
        refusal = holds.reserve(
            hold_id=hold_id,
            account_id=account_id,
            organisation_id=organisation_id,
            amounts=Amounts(tokens=tokens),
            ttl_seconds=_JUDGEMENT_SECONDS,
            description="A judgement",
            dispatched=True,
        )
        return HoldRefused(refusal.reason_code, refusal.message, refusal.remedies) if refusal else hold_id

    def noting(self, *, account_id: uuid.UUID, signature: bytes, result: bytes) -> Statement:
        return Statement("SELECT budgets_note_result(%s, NULL, %s, %s)", (account_id, signature, result))
