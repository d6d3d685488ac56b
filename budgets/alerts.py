"""Alerts at a half, four fifths and all of a limit in money: once per window and threshold, with an audit entry."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Final

from django.db import connection
from django.db.models import F, OuterRef, Subquery
from django.db.models.functions import Least

from budgets.holds import subject_of, tell_pages
from budgets.models import Account, AccountLimit, Alert, Window
from budgets.types import Level
from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.common.written_amounts import written_amount
from controlplane.live.services import announce
from controlplane.tenancy.selectors import holders_of
from controlplane.tenancy.types import Permission, Principal, system_principal
from governance import services as governance
from governance.choices import NoticeKind

THRESHOLDS: Final = (50, 80, 100)
TOLD_FROM: Final = 80
# Two workers that see the same crossing: the constraint lets one of them tell. A limit that was set below what is spent
# or held counts as it was set: the window's own comes down to it only as holds clear.
_RAISE: Final = """
INSERT INTO budgets_alert (organisation_id, team_id, account_id, window_id, threshold, spent_money, limit_money, at)
SELECT a.organisation_id, a.team_id, a.id, w.id, t.threshold, u.used, u.allowed, %(at)s
FROM budgets_window AS w
JOIN budgets_account AS a ON a.id = w.account_id
LEFT JOIN budgets_accountlimit AS l ON l.account_id = w.account_id AND l.kind = w.kind
CROSS JOIN LATERAL (SELECT w.spent_money + w.overrun_money, least(w.limit_money, l.money)) AS u (used, allowed)
CROSS JOIN unnest(%(thresholds)s) AS t (threshold)
WHERE w.id = ANY(%(windows)s) AND w.ends_at > %(at)s AND (u.allowed > 0 OR u.used > 0)
    AND u.used * 100 >= u.allowed * t.threshold
ORDER BY w.id, t.threshold
ON CONFLICT (window_id, threshold) DO NOTHING
RETURNING account_id, threshold, spent_money, limit_money, window_id
"""


def raise_for(window_ids: Collection[int]) -> int:
    """Tell of every threshold that one of these windows has reached and nobody has told of. In the caller's
    transaction. Returns how many."""
    if not window_ids:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(_RAISE, {"at": now(), "windows": list(window_ids), "thresholds": list(THRESHOLDS)})
        raised = cursor.fetchall()
    accounts = Account.objects.select_related("organisation").in_bulk({row[0] for row in raised})
    for account_id, threshold, spent, limit, _ in raised:
        account = accounts[account_id]
        currency = account.organisation.currency
        record(
            event=Event.BUDGET_ALERT,
            actor=system_principal(organisation_id=account.organisation_id),
            subject=subject_of(account),
            payload={
                "threshold": f"{threshold} %",
                "spent": f"{written_amount(spent)} {currency}",
                "limit": f"{written_amount(limit)} {currency}",
            },
        )
        tell_pages(account)
    for organisation_id in {account.organisation_id for account in accounts.values()}:
        announce(f"warnings:{organisation_id}", "warnings")
    highest = {window_id: (accounts[account_id], threshold) for account_id, threshold, _, _, window_id in raised}
    for account, threshold in highest.values():
        if threshold >= TOLD_FROM and account.level != Level.MISSION:  # those may be used up
            _tell(account, threshold)
    return len(raised)


def _tell(account: Account, threshold: int) -> None:
    """In the bell of everybody who could raise the limit."""
    about_id = new_id()  # once per window and threshold already
    governance.tell_people(
        governance.News(
            user_id=user_id,
            organisation_id=account.organisation_id,
            team_id=account.team_id,
            kind=NoticeKind.BUDGET,
            subject_type="budget",
            subject_id=account.pk,
            about_id=about_id,
            text=f"{threshold} % spent: {account.name}",
        )
        for user_id in holders_of(
            Permission.BUDGET_WRITE, organisation_id=account.organisation_id, team_id=account.team_id
        )
    )


def limit_changed(account: Account) -> int:
    """Its current windows may stand above a threshold now, or below one that pages warn of."""
    announce(f"warnings:{account.organisation_id}", "warnings")
    windows = Window.objects.filter(account_id=account.pk, ends_at__gt=now())
    return raise_for(list(windows.values_list("pk", flat=True)))


def newest(principal: Principal, *, limit: int = 20) -> list[Alert]:
    """The last alerts the principal may see, of each window the highest, with their accounts."""
    rows = Alert.objects.restrict(principal, Permission.BUDGET_VIEW).select_related("account", "window")
    highest: dict[int, Alert] = {}
    for alert in rows.order_by("-id")[: limit * len(THRESHOLDS)]:
        told = highest.setdefault(alert.window_id, alert)
        if told.threshold < alert.threshold:
            highest[alert.window_id] = alert
    return list(highest.values())[:limit]


def standing(principal: Principal, *, at_least: int = 80, limit: int = 20) -> Sequence[Alert]:
    """What is above a threshold right now, the fullest first: told of, in a current window, and not raised since. Each
    with what is `used` and `allowed` now.

    Budgets of missions are left out: they are meant to be used up.
    """
    share = Decimal(at_least) / 100
    used = F("window__spent_money") + F("window__overrun_money")
    wanted = AccountLimit.objects.filter(account_id=OuterRef("account_id"), kind=OuterRef("window__kind"))
    rows = (
        Alert.objects.restrict(principal, Permission.BUDGET_VIEW)
        .filter(threshold__gte=at_least, window__ends_at__gt=now(), account__closed_at__isnull=True)
        .exclude(account__level="mission")
        .annotate(used=used, allowed=Least("window__limit_money", Subquery(wanted.values("money"))))
        .filter(used__gte=F("allowed") * share)
        .select_related("account", "window")
        .order_by("account_id", "window__kind", "-threshold")
        .distinct("account_id", "window__kind")
    )
    return sorted(rows[:200], key=lambda alert: -alert.threshold)[:limit]
