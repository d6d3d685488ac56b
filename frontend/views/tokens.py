"""Settings: tokens of people and of services. What is shown once is in the answer to the form and nowhere else."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.common.clock import now
from controlplane.common.cursors import page as cursor_page
from controlplane.common.errors import RemitError, not_found
from controlplane.tenancy import credentials
from controlplane.tenancy.models import Token, TokenKind, User
from controlplane.tenancy.types import Permission, Principal
from frontend import shown_once
from frontend.form_errors import show_error
from frontend.pages import PersonRequest, page

OVERLAPS = {"0": "At once", "1": "In an hour", "24": "In a day", "168": "In a week"}
_LIVES = (7, 30, 90, 180, 365)
_IF_LOST = "If you lost it, revoke it under Tokens and make another."
_FIRST_SCOPE = Permission.MISSION_VIEW


@page
@require_GET
def listing(request: PersonRequest) -> HttpResponse:
    principal = request.principal
    rows = credentials.listed(principal)
    found = cursor_page(rows, cursor=request.GET.get("cursor"))
    moment = now()
    context = {
        "rows": [_row(principal, token, moment) for token in found.items],
        "page": found,
        "sees_all": principal.has(Permission.TOKEN_WRITE) and principal.has(Permission.MEMBER_WRITE),
        "now": moment,
    }
    return render(request, "settings/tokens.html", context)


@page
@never_cache
@require_http_methods(["GET", "POST"])
def new(request: PersonRequest) -> HttpResponse:
    principal = request.principal
    kind = TokenKind.SERVICE if request.GET.get("kind") == "svc" else TokenKind.PERSON
    if kind == TokenKind.SERVICE:
        principal.require(Permission.TOKEN_WRITE)
    form = TokenForm(
        request.POST or None,
        scopes=credentials.may_hold(principal, kind),
        longest=credentials.longest_life(principal.organisation_id),
    )
    error: RemitError | None = None
    if request.method == "POST" and form.is_valid():
        try:
            token, text = shown_once.made_once(
                request, lambda: _issue(request, kind, form.cleaned_data), if_lost=_IF_LOST
            )
        except RemitError as refused:
            error = show_error(form, refused)
        else:
            return _shown_once(request, token, text)
    context = {
        "form": form,
        "error": error,
        "kind": kind,
        "may_service": principal.has(Permission.TOKEN_WRITE),
        "groups": _groups(form),
    }
    status = error.status if error else 422 if form.errors else 200
    return render(request, "settings/token_new.html", context, status=status)


@page
@never_cache
@require_http_methods(["GET", "POST"])
def rotate(request: PersonRequest, token_id: uuid.UUID) -> HttpResponse:
    token = credentials.listed(request.principal).filter(pk=token_id).first()
    if token is None:
        raise not_found("token")
    form = RotateForm(request.POST or None)
    error: RemitError | None = None
    if request.method == "POST" and form.is_valid():
        try:
            made, text = shown_once.made_once(
                request,
                lambda: credentials.rotate_token(
                    principal=request.principal,
                    token_id=token_id,
                    overlap=timedelta(hours=int(form.cleaned_data["overlap"])),
                ),
                if_lost=_IF_LOST,
            )
        except RemitError as refused:
            error = show_error(form, refused)
        else:
            return _shown_once(request, made, text, old=Token.objects.get(pk=token_id))
    status = error.status if error else 422 if form.errors else 200
    return render(request, "settings/token_rotate.html", {"token": token, "form": form, "error": error}, status=status)


@page
@require_POST
def revoke(request: PersonRequest, token_id: uuid.UUID) -> HttpResponse:
    credentials.revoke_token(principal=request.principal, token_id=token_id)
    messages.success(request, "The token is revoked and works nowhere any more.")
    return redirect("tokens")


class TokenForm(forms.Form):
    name = forms.CharField(
        label="What it is for",
        max_length=120,
        help_text="How you recognise it later: a script, a machine.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    days = forms.TypedChoiceField(label="Works for", coerce=int)
    scopes = forms.MultipleChoiceField(
        label="What it may do", widget=forms.CheckboxSelectMultiple, initial=[_FIRST_SCOPE.value]
    )

    def __init__(self, data: Any, *, scopes: list[Permission], longest: timedelta) -> None:
        super().__init__(data)
        lives = [days for days in _LIVES if days <= longest.days] or [longest.days]
        self.fields["days"].choices = [(days, f"{days} days" if days > 1 else "1 day") for days in lives]  # type: ignore[attr-defined]
        self.fields["days"].initial = 30 if 30 in lives else lives[-1]
        self.fields["scopes"].choices = [(item.value, item.sentence) for item in scopes]  # type: ignore[attr-defined]


class RotateForm(forms.Form):
    overlap = forms.ChoiceField(
        label="The old one stops", choices=list(OVERLAPS.items()), widget=forms.RadioSelect, initial="24"
    )


def _issue(request: PersonRequest, kind: TokenKind, data: dict[str, Any]) -> tuple[Token, str]:
    scopes = {Permission(value) for value in data["scopes"]}
    expires_at = now() + timedelta(days=data["days"])
    if kind == TokenKind.SERVICE:
        return credentials.issue_service_token(
            principal=request.principal, name=data["name"], expires_at=expires_at, scopes=scopes
        )
    assert isinstance(request.user, User)  # noqa: S101
    return credentials.issue_personal_token(
        principal=request.principal, user=request.user, name=data["name"], expires_at=expires_at, scopes=scopes
    )


def _shown_once(request: PersonRequest, token: Token, text: str, *, old: Token | None = None) -> HttpResponse:
    path = _example(token)
    curl = f"curl -s {settings.CONFIG.public_url}{path} \\\n  -H 'Authorization: Bearer {text}'"
    return render(request, "settings/token_shown.html", {"token": token, "text": text, "curl": curl, "old": old})


def _example(token: Token) -> str:
    """An address the token may read, by its scopes."""
    examples = {"mission.view": "missions", "agent.view": "agents", "action.view": "actions"}
    held = token.scopes or list(examples)
    return f"/api/v1/{next((examples[scope] for scope in examples if scope in held), 'missions')}"


def _row(principal: Principal, token: Token, moment: Any) -> dict[str, Any]:
    alive = token.revoked_at is None and token.expires_at > moment
    replaced = bool(token.replaced_by.all())
    mine = token.user_id is not None and token.user_id == principal.user_id
    return {
        "token": token,
        "alive": alive,
        "replaced": replaced,
        "scopes": [Permission(item).sentence for item in token.scopes or [] if item in _KNOWN],
        "may_rotate": alive and not replaced and (mine or token.kind == TokenKind.SERVICE),
        "revoke_url": reverse("token-revoke", args=[token.pk]),
        "dialog": f"revoke-{token.pk}",
        "revoking": f"Whatever uses “{token.name}” (…{token.hint}) stops working at once. This can't be undone.",
    }


def _groups(form: TokenForm) -> list[tuple[str, list[Any]]]:
    """The boxes by what they are about: the part of the permission before the dot."""
    groups: dict[str, list[Any]] = {}
    for option in form["scopes"]:
        groups.setdefault(str(option.data["value"]).split(".")[0].capitalize(), []).append(option)
    return list(groups.items())


_KNOWN = frozenset(item.value for item in Permission)
