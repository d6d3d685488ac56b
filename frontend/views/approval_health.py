"""How approving goes: how much is asked of whom, how long answers take, how often they are yes."""

from __future__ import annotations

from datetime import timedelta

from django.http import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from controlplane.common.clock import now
from controlplane.tenancy.types import Permission
from frontend.exports import csv_response
from frontend.pages import PersonRequest, page, require_anywhere
from governance import selectors as governance
from governance.selectors import ApproverHealth

_COLUMNS = ("person", "answers", "approved", "approve_rate", "median_seconds", "p90_seconds", "within_10_seconds")
PERIODS = {"7": "7 days", "30": "30 days", "90": "90 days"}


@page
@never_cache
@require_GET
def health(request: PersonRequest) -> HttpResponseBase:
    require_anywhere(request.principal, Permission.ESCALATION_VIEW, "Approvals")
    days = request.GET.get("days", "30")
    days = days if days in PERIODS else "30"
    found = governance.approver_health(request.principal, since=now() - timedelta(days=int(days)))
    if request.GET.get("format") == "csv":
        return csv_response(
            "approvers",
            _COLUMNS,
            [_csv_row(row) for row in found.people],
        )
    return render(request, "approvals/health.html", {"health": found, "days": days, "periods": PERIODS.items()})


def _csv_row(row: ApproverHealth) -> list[object]:
    rate = f"{row.approve_rate:.3f}"
    return [row.name, row.answers, row.approvals, rate, round(row.median), round(row.p90), row.hasty]
