"""What budgets registers with the layers below at start: the ledger, the kind `budget.topup`, a live topic,
who follows a change of the time zone."""

from __future__ import annotations

from controlplane.common.ids import parse_id
from controlplane.tenancy.types import Permission, Principal


def register() -> None:
    from budgets import monitoring
    from budgets.port import LedgerPort
    from budgets.topup import TopUp
    from budgets.zones import follow_zone
    from controlplane.live.services import register_topic
    from controlplane.tenancy.organisations import register_zone_watcher
    from governance.registry import register_kind, register_ledger

    register_ledger(LedgerPort())
    register_kind(TopUp())
    register_topic("budget", _may_see)
    register_zone_watcher(follow_zone)
    monitoring.register()


def _may_see(principal: Principal, identifier: str) -> bool:
    from budgets.models import Account

    account_id = parse_id(identifier)
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW)
    return account_id is not None and visible.filter(pk=account_id).exists()
