"""A stop as the ledger sees it: unstarted holds released, started ones charged, the budget frozen, all in one order of
locks; and lifting exactly that freeze again."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.db import transaction

from budgets import calls
from budgets.accounts import record_freeze, record_release
from budgets.closing import close_account
from budgets.holds import tell_overrun
from budgets.models import Account, Hold
from budgets.types import HoldState
from controlplane.tenancy.types import Principal


@dataclass(frozen=True)
class Charge:
    """A started hold that ends now, and what it cost."""

    hold_id: uuid.UUID
    money: Decimal


@dataclass(frozen=True)
class Halted:
    """`frozen`: by this call, hence for its lifting to release. An account that was frozen before is not."""

    released: int
    frozen: bool


def halt(
    *,
    actor: Principal,
    account_id: uuid.UUID | None,
    hold_ids: Sequence[uuid.UUID],
    charges: Sequence[Charge],
    stop: str,
    reason: str,
    close: bool = False,
) -> Halted:
    """Release holds, settle charges, and freeze one account with all below it; `close` ends the account for good;
    `stop` names what was stopped.

    Inside the transaction of whoever has judged who may stop, and its last step: these rows are shared by the whole
    organisation."""
    with transaction.atomic():
        account = Account.objects.select_for_update().filter(pk=account_id).first() if account_id else None
        calls.lock_for_stop(hold_ids=[*hold_ids, *(charge.hold_id for charge in charges)], account_id=account_id)
        released = calls.void_many(hold_ids=hold_ids) if hold_ids else 0
        _settle(charges)
        if account is None:
            return Halted(released, frozen=False)
        if close:
            close_account(actor=actor, account_id=account.pk, reason=reason, stop=stop)
            return Halted(released, frozen=True)
        if account.frozen:
            return Halted(released, frozen=False)
        record_freeze(actor, account, reason, stop=stop)
        return Halted(released, frozen=True)


def release_halted(*, actor: Principal, account_id: uuid.UUID, frozen_for: str, reason: str) -> bool:
    """Release the freeze that `halt` made for `frozen_for`. False: somebody froze it for another reason since, or it is
    closed; that stays. Windows that were overrun stay frozen too."""
    with transaction.atomic():
        account = Account.objects.select_for_update().get(pk=account_id)
        if not account.frozen or account.closed_at is not None or account.frozen_reason != frozen_for[:300]:
            return False
        record_release(actor, account, reason)
        calls.keep_overruns_frozen(account_id=account.pk)
    return True


def unstarted_holds(*, account_id: uuid.UUID | None, hold_ids: Sequence[uuid.UUID] = ()) -> int:
    """How many holds at or below an account, or of these, were made for what has not started."""
    held = Hold.objects.filter(closed_at__isnull=True, state=HoldState.HELD)
    if account_id is None:
        return held.filter(pk__in=hold_ids).count()
    return held.filter(account__path__contains=[account_id]).count()


def is_frozen(*, account_id: uuid.UUID) -> bool:
    return Account.objects.filter(pk=account_id, frozen=True).exists()


def _settle(charges: Sequence[Charge]) -> None:
    if not charges:
        return
    overran = calls.settle_many(
        hold_ids=[charge.hold_id for charge in charges], money=[charge.money for charge in charges]
    )
    for hold_id, accounts, beyond in overran:
        tell_overrun(accounts, beyond, hold_id)
