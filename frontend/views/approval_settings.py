"""Who is asked: approver groups, routes and which of them a question would take, and who stands in for whom."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.common.errors import FieldError, RemitError, invalid
from controlplane.common.typed_amounts import NotAnAmount, typed_amount
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission
from frontend.pages import PersonRequest, id_of, page, require_anywhere, zone_of
from governance import selectors as governance
from governance import services
from governance.approval_models import ApprovalRoute

# What the service calls a field of a route, and what its form does; below, of standing in.
_FIELDS = {
    name: name for name in ("name", "kind", "amount_above", "amount_argument", "needed", "answer", "next_time")
} | {
    "team_id": "team",
    "group_id": "asks",
    "answer_seconds": "answer",
    "next_group_id": "next",
    "next_seconds": "next_time",
}
_STAND_IN_FIELDS = {
    "from_user_id": "from_user",
    "to_user_id": "to_user",
    "from": "from",
    "until": "until",
    "ends_at": "until",
}
_UNITS = {"minutes": 60, "hours": 3600, "days": 86400, "seconds": 1}


@page
@never_cache
@require_GET
def overview(request: PersonRequest) -> HttpResponse:
    return _page(request)


@page
@require_POST
def save_group(request: PersonRequest) -> HttpResponse:
    """A new group, or one that is named by `group`. `do=retire` asks it no more."""
    group = id_of(request.POST.get("group"))
    try:
        if request.POST.get("do") == "retire" and group:
            services.retire_group(actor=request.principal, group_id=group)
            messages.success(request, "It is asked no more.")
        else:
            saved = services.save_group(
                actor=request.principal,
                name=request.POST.get("name", ""),
                member_ids=[key for text in request.POST.getlist("members") if (key := id_of(text))],
                team_id=id_of(request.POST.get("team")),
                group_id=group,
                expected=request.POST.get("seen") if group else None,
            )
            messages.success(request, f"Saved: {saved.name}.")
    except RemitError as error:
        return _page(request, error=error, part="groups")
    return redirect("settings-approvals")


@page
@require_POST
def save_route(request: PersonRequest) -> HttpResponse:
    """A new route, or what `do` says of the one that is named by `route`: it moves or goes."""
    route, what = id_of(request.POST.get("route")), request.POST.get("do", "save")
    try:
        if route and what in ("up", "down"):
            services.move_route(actor=request.principal, route_id=route, up=what == "up")
        elif route and what == "remove":
            services.remove_route(actor=request.principal, route_id=route)
            messages.success(request, "Removed. Questions that took it keep their way.")
        else:
            saved = services.save_route(actor=request.principal, route=_route(request))
            _say_saved(request, saved)
    except RemitError as error:
        return _page(request, error=error, part="routes")
    return redirect("settings-approvals")


@page
@never_cache
@require_http_methods(["GET", "POST"])
def route(request: PersonRequest, route_id: uuid.UUID) -> HttpResponse:
    """Changing a route where it stands. What somebody else changed meanwhile is shown, not overwritten."""
    row, sentence = governance.approval_route(request.principal, route_id)
    require_anywhere(request.principal, Permission.ORGANISATION_WRITE, "Changes of routes")
    error: RemitError | None = None
    if request.method == "POST":
        try:
            saved = services.save_route(
                actor=request.principal,
                route=_route(request),
                route_id=route_id,
                expected=request.POST.get("seen", ""),
            )
        except RemitError as refused:
            if refused.status not in (412, 422):
                raise
            error = refused
            row, sentence = governance.approval_route(request.principal, route_id)
        else:
            _say_saved(request, saved)
            return redirect("settings-approvals")
    context = {
        "route": row,
        "sentence": sentence,
        # After a race the newer version has been shown, so that saving once more is meant.
        "seen": services.version_of_route(row)
        if error is None or error.status == 412
        else request.POST.get("seen", ""),
        "given": request.POST if error else _given(row),
        "error": error,
        "wrong": _wrong(error, _FIELDS),
        **_choices(request),
    }
    return render(request, "settings/route.html", context, status=error.status if error else 200)


@page
@require_POST
def delegate(request: PersonRequest) -> HttpResponse:
    """`do=end` ends one."""
    delegation = id_of(request.POST.get("delegation"))
    try:
        if request.POST.get("do") == "end" and delegation:
            services.end_delegation(actor=request.principal, delegation_id=delegation)
            messages.success(request, "Ended.")
        else:
            starts_at, ends_at = _days(request)
            made = services.delegate(
                actor=request.principal,
                from_user_id=id_of(request.POST.get("from_user")) or request.principal.id,
                to_user_id=id_of(request.POST.get("to_user")) or uuid.UUID(int=0),
                starts_at=starts_at,
                ends_at=ends_at,
                reason=request.POST.get("reason", ""),
            )
            messages.success(request, f"{made.to_user.name} stands in until {request.POST.get('until')}.")
    except RemitError as error:
        return _page(request, error=error, part="delegations")
    return redirect("settings-approvals")


def _page(request: PersonRequest, *, error: RemitError | None = None, part: str = "") -> HttpResponse:
    principal = request.principal
    require_anywhere(principal, Permission.ESCALATION_VIEW, "Approval settings")
    approvers = tenancy.people_with_anywhere(principal, Permission.ESCALATION_DECIDE)
    routes = governance.routes_in_words(principal)
    context: dict[str, Any] = {
        **_choices(request),
        "may_change": principal.has(Permission.ORGANISATION_WRITE),
        "decides": principal.user_id in {user.pk for user in approvers},
        "routes": routes,
        "never_settled": governance.never_settled(principal, [row for row, _ in routes]),
        "people": approvers,
        "delegations": governance.delegations(principal),
        "given": request.POST if error else {},
        "members": set(request.POST.getlist("members")) if error else set(),
        "error": error,
        "wrong": _wrong(error, {"routes": _FIELDS, "delegations": _STAND_IN_FIELDS}.get(part, {})),
        "part": part,
        "today": datetime.now(ZoneInfo(principal.time_zone)).date().isoformat(),
        "tried": _tried(request),
    }
    return render(request, "settings/approvals.html", context, status=error.status if error else 200)


def _say_saved(request: PersonRequest, saved: ApprovalRoute) -> None:
    messages.success(request, f"Saved: {saved.name}.")
    for words in governance.never_settled(request.principal, [saved]).values():
        messages.warning(request, f"{saved.name}: {words}")


def _wrong(error: RemitError | None, fields: Mapping[str, str]) -> dict[str, str]:
    """What is wrong, by the name that the form has for the field. The first of several about one field counts."""
    problems = reversed(error.errors) if error is not None else ()
    return {name: problem.message for problem in problems if (name := fields.get(problem.pointer.strip("/")))}


def _choices(request: PersonRequest) -> dict[str, Any]:
    """What the form of a route offers. A group comes with those of it who can't decide, and its version."""
    principal = request.principal
    deciders = {user.pk for user in tenancy.people_with_anywhere(principal, Permission.ESCALATION_DECIDE)}
    groups = governance.approver_groups(principal)
    return {
        "groups": [
            (group, [user for user in group.members.all() if user.pk not in deciders], services.version_of_group(group))
            for group in groups
        ],
        "kinds": list(governance.known_kinds().items()),
        "teams": tenancy.teams_with(principal, Permission.ESCALATION_VIEW),
        "units": list(_UNITS),
        "currency": tenancy.currency_of(principal),
    }


def _given(row: ApprovalRoute) -> dict[str, Any]:
    """A route as its form would send it."""
    answer, answer_unit = _in_units(row.answer_seconds)
    next_time, next_time_unit = _in_units(row.next_seconds)
    return {
        "name": row.name,
        "kind": row.kind,
        "team": str(row.team_id or ""),
        "amount_above": "" if row.amount_above is None else f"{row.amount_above.normalize():f}",
        "amount_argument": row.amount_argument,
        "only_irreversible": row.only_irreversible,
        "asks": str(row.group_id or ""),
        "needed": row.needed,
        "answer": answer,
        "answer_unit": answer_unit,
        "next": "" if row.next_seconds is None else str(row.next_group_id or "any"),
        "next_time": next_time,
        "next_time_unit": next_time_unit,
    }


def _in_units(seconds: int | None) -> tuple[str, str]:
    """In the largest unit that says it exactly."""
    if seconds is None:
        return "", "minutes"
    unit = max((name for name in _UNITS if seconds % _UNITS[name] == 0), key=lambda name: _UNITS[name])
    return str(seconds // _UNITS[unit]), unit


def _tried(request: PersonRequest) -> dict[str, Any] | None:
    """Which route a question would take, for the facts in the address. Nothing is asked of anybody."""
    kind, team = request.GET.get("kind", ""), id_of(request.GET.get("team"))
    if kind not in governance.known_kinds() or team is None:
        return None
    typed = request.GET.get("amount", "").strip()
    try:
        amount = typed_amount(typed) if typed else None
    except NotAnAmount as error:
        return {"wrong": str(error)}
    steps, way = governance.try_routes(
        request.principal,
        kind=kind,
        team_id=team,
        amount=amount,
        irreversible=request.GET.get("irreversible") == "1",
    )
    return {"steps": steps, "way": way}


def _route(request: PersonRequest) -> services.Route:
    above = request.POST.get("amount_above", "").strip()
    amount, wrong = None, []
    try:
        amount = typed_amount(above) if above else None
    except NotAnAmount as error:
        wrong.append(FieldError("/amount_above", str(error)))
    needed = request.POST.get("needed", "1").strip()
    if not (needed.isascii() and needed.isdigit() and len(needed) < 4):
        wrong.append(FieldError("/needed", "a whole number"))
    if wrong:
        raise invalid("route.invalid", "The route can't be saved as it is.", *wrong)
    whom = request.POST.get("next", "")
    return services.Route(
        name=request.POST.get("name", ""),
        kind=request.POST.get("kind", ""),
        team_id=id_of(request.POST.get("team")),
        amount_above=amount,
        amount_argument=request.POST.get("amount_argument", "").strip(),
        only_irreversible="only_irreversible" in request.POST,
        group_id=id_of(request.POST.get("asks")),
        needed=int(needed),
        answer_seconds=_seconds(request, "answer"),
        next_group_id=id_of(whom),
        next_seconds=_seconds(request, "next_time") if whom else None,
    )


def _seconds(request: PersonRequest, name: str) -> int | None:
    text, unit = request.POST.get(name, "").strip(), request.POST.get(f"{name}_unit", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 8) or unit not in _UNITS:
        raise invalid("route.invalid", "The route can't be saved as it is.", FieldError(f"/{name}", "a whole number"))
    return int(text) * _UNITS[unit]


def _days(request: PersonRequest) -> tuple[datetime, datetime]:
    """From the beginning of one day of the viewer's to the end of another."""
    first, last = _day(request, "from", time.min), _day(request, "until", time.max)
    if first is None or last is None:
        wrong = [FieldError(f"/{name}", "a day") for name, day in (("from", first), ("until", last)) if day is None]
        raise invalid("delegation.invalid", "This can't be set as it is.", *wrong)
    return first, last


def _day(request: PersonRequest, name: str, at: time) -> datetime | None:
    try:
        day = datetime.fromisoformat(request.POST.get(name, "")).date()
        return datetime.combine(day, at, zone_of(request.principal))
    except (ValueError, OverflowError):
        return None
