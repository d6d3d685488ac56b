"""The end of a budget: what it was for is over."""

from __future__ import annotations

import uuid

from django.db import transaction

from budgets import accounts, changes
from budgets.models import Account
from controlplane.common.clock import now
from controlplane.tenancy.types import Principal


def close_account(*, actor: Principal, account_id: uuid.UUID, reason: str, **told: str) -> None:
    """Nothing is reserved any more, and nobody is asked about its limits. The caller has judged who may end it. Twice
    is once."""
    with transaction.atomic():
        account = accounts.locked(actor, account_id)
        if account.closed_at is not None:
            return
        Account.objects.filter(pk=account.pk).update(closed_at=now())
        changes.withdraw_all(actor=actor, account=account, reason=reason)
        accounts.record_freeze(actor, account, reason, **told)
