"""What people do to a budget: change a limit, answer somebody else's change, freeze, release, ask for more."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from budgets import selectors, services
from budgets.changes import wording_of
from budgets.types import Balance, Limits, WindowKind
from controlplane.common.errors import RemitError, forbidden, invalid
from controlplane.common.typed_amounts import NotAnAmount, typed_amount
from controlplane.tenancy.types import Permission
from frontend.form_errors import show_error
from frontend.pages import PersonRequest, page
from frontend.templatetags.amounts import money_text
from governance import services as governance
from governance.choices import ActionState
from governance.types import Proposal

_LOST = frozenset({"budget.changed", "budget.closed"})


class LimitForm(forms.Form):
    """Empty is no limit of its own; the levels above still count."""

    money = forms.CharField(
        label="Money",
        required=False,
        max_length=40,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )
    steps = forms.IntegerField(label="Steps", required=False, min_value=0)
    tokens = forms.IntegerField(label="Model tokens", required=False, min_value=0)
    reason = forms.CharField(
        label="Why",
        max_length=300,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Others read it on the budget and in the trail.",
    )
    seen = forms.CharField(required=False, max_length=40, widget=forms.HiddenInput)
    replaces = forms.UUIDField(required=False, widget=forms.HiddenInput)

    def clean_money(self) -> Decimal | None:
        typed = self.cleaned_data["money"].strip()
        if not typed:
            return None
        try:
            return typed_amount(typed)
        except NotAnAmount as error:
            raise forms.ValidationError(str(error)) from error

    def limits(self) -> Limits:
        return Limits(self.cleaned_data["money"], self.cleaned_data["tokens"], self.cleaned_data["steps"])


@page
@never_cache
@require_http_methods(["GET", "POST"])
def limit(request: PersonRequest, account_id: uuid.UUID) -> HttpResponse:
    """The form of one window's limit. What was typed stays when it is refused; a stale form shows what is there now."""
    balance = selectors.balance(request.principal, account_id)
    if not request.principal.has(Permission.BUDGET_WRITE, team_id=balance.team_id):
        raise forbidden(Permission.BUDGET_WRITE.value)
    window = _window(request.POST.get("window") or request.GET.get("window")) or balance.window
    current = selectors.limit_of(request.principal, account_id, window)
    waiting = selectors.change_waiting(request.principal, account_id, window)
    error: RemitError | None = None
    if request.method == "POST":
        form = LimitForm(request.POST)
        if form.is_valid():
            try:
                changed = services.change_limit(
                    actor=request.principal,
                    account_id=account_id,
                    window=window,
                    limits=form.limits(),
                    reason=form.cleaned_data["reason"],
                    seen=form.cleaned_data["seen"],
                    replaces=form.cleaned_data["replaces"],
                )
            except RemitError as refused:
                error = show_error(form, refused)
                if refused.code in _LOST:  # what is typed stays; sent again it starts from what is there now
                    given = request.POST.copy()
                    given["seen"] = wording_of(current)
                    given["replaces"] = str(waiting.pk) if waiting else ""
                    form = LimitForm(given)
            else:
                if changed.waits:
                    messages.info(request, "Asked. The limit changes when a second person confirms it.")
                else:
                    messages.success(request, "The limit is set.")
                if changed.replaced:
                    messages.info(request, f"What {changed.replaced.proposer_name} had asked for waits no more.")
                return redirect("budget", account_id=account_id)
    else:
        form = LimitForm(initial={**_initial(current), "replaces": waiting and waiting.pk})
    context = {
        "balance": balance,
        "entry": _entry(balance, window),
        "window": window,
        "windows": list(WindowKind),
        "current": current,
        "form": form,
        "error": error,
        "waiting": waiting,
        "rules": _rules(request, balance, window),
    }
    status = error.status if error is not None else 422 if form.errors else 200
    return render(request, "budgets/limit.html", context, status=status)


@page
@require_POST
def freeze(request: PersonRequest, account_id: uuid.UUID) -> HttpResponse:
    services.freeze(actor=request.principal, account_id=account_id, reason=request.POST.get("reason", ""))
    messages.success(request, "Frozen. Nothing more is held here or below; what is held already settles.")
    return redirect("budget", account_id=account_id)


@page
@require_POST
def unfreeze(request: PersonRequest, account_id: uuid.UUID) -> HttpResponse:
    reason = request.POST.get("reason", "").strip()
    if not reason:
        raise invalid("budget.reason_missing", "Say why you release it: others read it in the trail.")
    services.unfreeze(actor=request.principal, account_id=account_id, reason=reason[:300])
    messages.success(request, "Released. It can be spent from again.")
    return redirect("budget", account_id=account_id)


@page
@require_POST
def answer(request: PersonRequest, change_id: uuid.UUID) -> HttpResponse:
    """Confirm, refuse or withdraw a change that waits."""
    what, actor = request.POST.get("answer", ""), request.principal
    match what:
        case "confirm":
            services.confirm_change(actor=actor, change_id=change_id)
            messages.success(request, "Confirmed. The limit is set.")
        case "refuse":
            services.refuse_change(actor=actor, change_id=change_id, reason=request.POST.get("reason", ""))
            messages.success(request, "Refused. The limit stays as it is.")
        case "withdraw":
            services.withdraw_change(actor=actor, change_id=change_id)
            messages.success(request, "Withdrawn. The limit stays as it is.")
        case _:
            raise invalid("budget.malformed", "That answer did not come from this page. Nothing was changed.")
    return redirect("budgets")


@page
@require_POST
def ask(request: PersonRequest, account_id: uuid.UUID) -> HttpResponse:
    """A person asks for more, as agents do: the same action, the same approvers."""
    judgement = governance.propose(
        proposer=request.principal,
        proposal=Proposal(
            kind="budget.topup",
            tool="",
            arguments={
                "account_id": str(account_id),
                "money": request.POST.get("money", "").strip(),
                "reason": request.POST.get("reason", "").strip(),
            },
            justification="",
        ),
    )
    if judgement.state is ActionState.WAITING:
        messages.info(request, "Asked. It waits for an approver.")
    elif judgement.state is ActionState.DENIED:
        messages.error(request, f"Refused: {judgement.message}")
    else:
        messages.success(request, "The limit is raised.")
    return redirect("budget", account_id=account_id)


def _rules(request: PersonRequest, balance: Balance, window: WindowKind) -> list[dict[str, str]]:
    left = selectors.may_give_alone(request.principal, balance.account_id, window)
    alone = money_text(left, balance.currency)
    at_once = f"Lowering it, or raising it by up to {alone}, counts" if left else "Lowering it counts"
    beyond = f"Raising it by more than {alone}" if left else "Raising it further"
    return [
        {"tone": "allow", "text": f"{at_once} at once."},
        {"tone": "ask", "text": f"{beyond}, or taking it away, waits for a second person: raises of 24 hours add up."},
        {"tone": "allow", "text": "A limit below what is held and spent takes hold now and sinks as holds clear."},
    ]


def _initial(limits: Limits) -> dict[str, Any]:
    money = "" if limits.money is None else f"{limits.money.normalize():f}"
    return {"money": money, "steps": limits.steps, "tokens": limits.tokens, "seen": wording_of(limits)}


def _window(text: str | None) -> WindowKind | None:
    return WindowKind(text) if text in WindowKind.values else None


def _entry(balance: Balance, window: WindowKind) -> Balance | None:
    return next((entry for entry in (balance, *balance.also) if entry.window == window), None)
