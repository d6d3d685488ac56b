"""Settings: members, their roles, invitations, and what each role can do."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.common.clock import now
from controlplane.common.cursors import page as cursor_page
from controlplane.common.errors import FieldError, RemitError, invalid
from controlplane.common.ids import parse_id
from controlplane.tenancy import directory, invitations, members, second_factor
from controlplane.tenancy.directory import Person
from controlplane.tenancy.models import Invitation
from controlplane.tenancy.types import Permission, Role
from frontend import shown_once
from frontend.exports import csv_response, in_pages
from frontend.form_errors import show_error
from frontend.mail import mail_invitation
from frontend.pages import PersonRequest, page, require_anywhere

STATES = (("active", "Active"), ("deactivated", "Deactivated"))
_IF_LOST = "If you lost it, make a new link under Members."
_CSV_HEADER = ("id", "name", "email", "roles", "deactivated_at")
_CSV_MANAGED = (*_CSV_HEADER, "second_factor", "last_seen_at")


@page
@require_GET
def first_settings(request: PersonRequest) -> HttpResponse:  # noqa: ARG001
    return redirect("members")


@page
@require_GET
def listing(request: PersonRequest) -> HttpResponseBase:
    principal = request.principal
    require_anywhere(principal, Permission.MEMBER_VIEW, "Members")
    text, state = request.GET.get("q", "").strip()[:100], request.GET.get("state", "")
    state = state if state in dict(STATES) else ""
    may_write = principal.has_anywhere(Permission.MEMBER_WRITE)
    everyone = directory.people(principal, text=text, state=state)
    if request.GET.get("format") == "csv":
        lines = in_pages(everyone, beside=functools.partial(directory.lines, principal))
        return csv_response("members", _CSV_MANAGED if may_write else _CSV_HEADER, map(_csv_row(may_write), lines))
    found = cursor_page(everyone, cursor=request.GET.get("cursor"))
    context = {
        "people": directory.lines(principal, found.items),
        "page": found,
        "text": text,
        "state": state,
        "states": STATES,
        "may_write": may_write,
        "invitations": invitations.visible(principal) if may_write else [],
        "now": now(),
    }
    return render(request, "settings/members.html", context)


@page
@require_GET
def roles(request: PersonRequest) -> HttpResponse:
    require_anywhere(request.principal, Permission.MEMBER_VIEW, "Members")
    context = {"roles": list(Role), "table": directory.role_table()}
    return render(request, "settings/roles.html", context)


@page
@never_cache
@require_http_methods(["GET", "POST"])
def invite(request: PersonRequest) -> HttpResponse:
    require_anywhere(request.principal, Permission.MEMBER_WRITE, "Invitations")
    form = InviteForm(request.POST or None)
    held, error = _held(request) if request.method == "POST" else (set(), None)
    if request.method == "POST" and form.is_valid() and error is None:
        try:
            made, secret = shown_once.made_once(
                request,
                lambda: invitations.invite(
                    principal=request.principal, email=form.cleaned_data["email"], roles=sorted(held, key=str)
                ),
                if_lost=_IF_LOST,
            )
        except RemitError as refused:
            error = show_error(form, refused)
        else:
            return _shown_once(request, made, secret)
    context = {
        "form": form,
        "error": error,
        "roles": list(Role),
        "rows": _rows(request, held),
        "mails": settings.CONFIG.sends_mail,
        "days": invitations.LIFE.days,
    }
    status = error.status if error else 422 if form.errors else 200
    return render(request, "settings/invite.html", context, status=status)


@page
@never_cache
@require_POST
def invitation(request: PersonRequest, invitation_id: uuid.UUID, what: str) -> HttpResponse:
    if what == "renew":
        made, secret = shown_once.made_once(
            request,
            lambda: invitations.renew(principal=request.principal, invitation_id=invitation_id),
            if_lost=_IF_LOST,
        )
        return _shown_once(request, made, secret)
    if what != "revoke":
        raise Http404
    invitations.revoke(principal=request.principal, invitation_id=invitation_id)
    messages.success(request, "The invitation is taken back; its link is dead.")
    return redirect("members")


@page
@require_GET
def detail(request: PersonRequest, user_id: uuid.UUID) -> HttpResponse:
    return _detail(request, directory.person(request.principal, user_id))


@page
@require_POST
def set_roles(request: PersonRequest, user_id: uuid.UUID) -> HttpResponse:
    shown = directory.person(request.principal, user_id)
    wanted, error = _held(request)
    if error is None:
        try:
            # What the form can't show, because it is not the viewer's to change, stays.
            places = {team.pk if team else None for team in directory.places(request.principal)}
            kept = {held for held in directory.held_by(request.principal, user_id) if held[0] not in places}
            if not wanted | kept:
                raise _without_a_role(request, shown)
            members.set_roles(
                principal=request.principal,
                user_id=user_id,
                wanted=wanted | kept,
                seen=request.POST.get("seen", ""),
            )
        except RemitError as refused:
            if refused.status not in (403, 409, 422):
                raise
            error = refused
        else:
            messages.success(request, f"The roles of {shown.user} are changed.")
            return redirect("member", user_id=user_id)
    return _detail(request, shown, error=error)


@page
@require_POST
def operate(request: PersonRequest, user_id: uuid.UUID, what: str) -> HttpResponse:
    person = directory.person(request.principal, user_id)
    try:
        match what:
            case "deactivate":
                ended = members.deactivate(principal=request.principal, user_id=user_id)
                messages.success(
                    request,
                    f"{person.user} is deactivated. Ended: {ended['sessions']} sessions, {ended['tokens']} tokens, "
                    f"{ended['invitations']} invitations.",
                )
            case "reactivate":
                members.reactivate(principal=request.principal, user_id=user_id)
                messages.success(request, f"{person.user} may sign in again, with the same roles.")
            case "reset-second-factor":
                second_factor.reset(principal=request.principal, user_id=user_id)
                messages.success(request, f"{person.user} signs in without a code and can set up a new one.")
            case "take-out" if _may_take_out(request, person):
                members.set_roles(
                    principal=request.principal, user_id=user_id, wanted=(), seen=request.POST.get("seen", "")
                )
                messages.success(request, f"{person.user} is no member any more.")
                return redirect("members")
            case _:
                raise Http404
    except RemitError as error:
        if error.status != 409:
            raise
        messages.error(request, f"{error.message} {' '.join(error.remedies)}")
    return redirect("member", user_id=user_id)


class InviteForm(forms.Form):
    email = forms.EmailField(
        label="E-mail", max_length=254, widget=forms.EmailInput(attrs={"autocomplete": "off", "autofocus": True})
    )


def _detail(request: PersonRequest, person: Person, *, error: RemitError | None = None) -> HttpResponse:
    principal = request.principal
    held = directory.held_by(principal, person.user.pk)
    is_me = person.user.pk == principal.user_id
    context = {
        "person": person,
        "is_me": is_me,
        "roles": list(Role),
        "rows": _rows(request, held),
        "elsewhere": [seat for seat in person.seats if seat.team not in directory.places(principal)],
        "seen": members.fingerprint(held),
        "error": error,
        "wrong": error.errors[0].message if error and error.errors else "",
        "stakes": directory.stakes(principal, person.user),
        "may_deactivate": _may_deactivate(request, person),
        "may_take_out": _may_take_out(request, person),
        "urls": {
            name.replace("-", "_"): reverse("member-operate", args=[person.user.pk, name])
            for name in ("deactivate", "reactivate", "reset-second-factor", "take-out")
        },
    }
    return render(request, "settings/member.html", context, status=error.status if error else 200)


def _may_deactivate(request: PersonRequest, person: Person) -> bool:
    return request.principal.has(Permission.MEMBER_WRITE) and person.user.pk != request.principal.user_id


def _may_take_out(request: PersonRequest, person: Person) -> bool:
    """By administrators of teams, who can deactivate nobody: a person who has no role outside these teams."""
    if request.principal.has(Permission.MEMBER_WRITE) or person.user.pk == request.principal.user_id:
        return False
    places = {team.pk if team else None for team in directory.places(request.principal)}
    held = directory.held_by(request.principal, person.user.pk)  # also where the viewer sees no members
    return person.suspended_at is None and all(place in places for place, _ in held)


def _without_a_role(request: PersonRequest, person: Person) -> RemitError:
    """Boxes are unticked by mistake, and nothing would bring the person back but a new invitation."""
    if _may_deactivate(request, person):
        remedy = "To take everything away, deactivate them"
    elif _may_take_out(request, person):
        remedy = "To take everything away, press “Take out”"
    else:
        remedy = "To take everything away, ask another administrator of the whole organisation"
    problem = FieldError("/held", f"At least one role. {remedy}")
    return invalid("member.roles", "A member has at least one role. Nothing was changed.", problem)


def _rows(request: PersonRequest, held: Iterable[tuple[uuid.UUID | None, Role]]) -> list[dict[str, Any]]:
    """One row a place with a box for each role. `value` is what `_held` reads back."""
    held = set(held)
    return [
        {
            "name": team.name if team else "Whole organisation",
            "cells": [
                {
                    "value": f"{team.pk if team else 'all'}:{role.value}",
                    "role": role,
                    "checked": (team.pk if team else None, role) in held,
                }
                for role in Role
            ],
        }
        for team in directory.places(request.principal)
    ]


def _held(request: PersonRequest) -> tuple[set[tuple[uuid.UUID | None, Role]], RemitError | None]:
    found: set[tuple[uuid.UUID | None, Role]] = set()
    for value in request.POST.getlist("held")[:500]:
        place, _, role = value.partition(":")
        team_id = None if place == "all" else parse_id(place)
        if role not in {item.value for item in Role} or (team_id is None and place != "all"):
            problem = FieldError("/held", "a role in one of the places shown")
            return found, invalid("member.roles", "These roles don't exist.", problem)
        found.add((team_id, Role(role)))
    return found, None


def _shown_once(request: PersonRequest, made: Invitation, secret: str) -> HttpResponse:
    link = f"{settings.CONFIG.public_url}{reverse('invitation', args=[secret])}"
    mailed = mail_invitation(invitation=made, link=link, organisation=request.principal.organisation_name)
    context = {"invitation": made, "link": link, "mailed": mailed, "mails": settings.CONFIG.sends_mail}
    return render(request, "settings/invited.html", context)


def _csv_row(managed: bool) -> Callable[[Person], tuple[object, ...]]:
    """Second factor and last use are told only to who manages members, as on the page."""

    def row(person: Person) -> tuple[object, ...]:
        seats = (
            f"{role.label} ({seat.team.name if seat.team else 'everywhere'})"
            for seat in person.seats
            for role in seat.roles
        )
        user, away, seen = person.user, person.suspended_at, person.last_seen
        plain = (user.pk, user.name, user.email, "; ".join(seats), away.isoformat() if away else "")
        return (*plain, person.second_factor, seen.isoformat() if seen else "") if managed else plain

    return row
