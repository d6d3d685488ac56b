"""Saved views as a list shows them: which one is open, and whether what is shown now can be saved."""

from __future__ import annotations

from typing import Any

from agents.saved_views import filters_of, views_of
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission
from frontend.pages import PersonRequest


def saved_views(request: PersonRequest, list_name: str) -> dict[str, Any]:
    """Context of components/saved_views.html. Two queries, one where nothing is filtered."""
    now = filters_of(request.META.get("QUERY_STRING", ""))
    views = views_of(request.principal, list_name)
    known = any(view.query == now for view in views)
    return {
        "saved": views,
        "saved_list": list_name,
        "saved_now": now,
        "may_save": bool(now) and not known,
        "saved_teams": tenancy.teams_with(request.principal, Permission.MEMBER_VIEW) if now and not known else [],
    }
