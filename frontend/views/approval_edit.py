"""Approve with edits: a form made from the tool's schema, the verdict it would get, and the edited action itself."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from controlplane.common.errors import RemitError, conflict, invalid
from frontend.approving import EDITABLE_KINDS, card, whom_else_it_needs, why_not_settled
from frontend.argument_forms import ArgumentForm
from frontend.pages import PersonRequest, page
from governance import selectors as governance
from governance import services
from governance.choices import ActionState, EscalationState
from governance.models import Escalation

_TOPUP: Final = {
    "type": "object",
    "properties": {
        "money": {"type": "string", "description": "How much more, such as 2.50"},
        "reason": {"type": "string"},
    },
    "required": ["money"],
}


@page
@never_cache
@require_http_methods(["GET", "POST"])
def edit(request: PersonRequest, escalation_id: uuid.UUID) -> HttpResponse:
    """`do=preview` shows what the gate would say and writes nothing; `do=send` approves it as edited."""
    question = governance.escalation(principal=request.principal, escalation_id=escalation_id)
    shown = card(request.principal, question)
    if question.state != EscalationState.OPEN or question.kind not in EDITABLE_KINDS or not shown.editable:
        raise conflict("edit.not_possible", "This can't be edited any more.", "Open the question.")
    if shown.not_you:
        raise RemitError("escalation.not_yours", shown.not_you, 403, remedies=("Open the question.",))
    form = ArgumentForm(request.POST or None, **_schema(shown, question))
    if request.method == "GET":
        for field in [*form.fields.values()][:1]:
            field.widget.attrs["autofocus"] = True
    context: dict[str, Any] = {"chosen": question, "card": shown, "action": question.action, "form": form}
    status = 200
    if request.method == "POST":
        try:
            done = _answer(request, question, form, context)
        except RemitError as error:
            if error.status == 404:
                raise
            context["error"], status = error, error.status
        else:
            if done is not None:
                return done
            status = 200 if form.is_valid() else 422
    context["reason"] = request.POST.get("reason", "")
    return render(request, "approvals/edit.html", context, status=status)


def _answer(
    request: PersonRequest, question: Escalation, form: ArgumentForm, context: dict[str, Any]
) -> HttpResponse | None:
    version, what = request.POST.get("version", ""), request.POST.get("do", "")
    if what not in ("preview", "send") or not (version.isascii() and version.isdigit() and len(version) < 9):
        raise invalid("approval.malformed", "That did not come from this page. Nothing was decided.")
    if not form.is_valid():
        return None
    if what == "preview":
        preview = services.preview_edit(
            approver=request.principal, escalation_id=question.pk, arguments=form.arguments()
        )
        context["preview"] = preview
        return None
    edited = services.edit_and_approve(
        approver=request.principal,
        escalation_id=question.pk,
        version=int(version),
        arguments=form.arguments(),
        reason=request.POST.get("reason", ""),
    )
    messages.success(request, _said(request, edited))
    if edited.escalation is not None and edited.escalation.state == EscalationState.OPEN:
        return redirect("approval", edited.escalation.pk)
    return redirect("approvals")


def _said(request: PersonRequest, edited: services.Edited) -> str:
    what = f"{edited.action.title}: {governance.in_words(edited.changes)}"
    if edited.escalation is None or edited.action.state in (ActionState.PERMITTED, ActionState.SUCCEEDED):
        return f"Approved as edited, once. {what}."
    if edited.held_up is not None:
        return f"Sent as edited; your approval did not count for it: {edited.held_up.message}"
    if edited.escalation.state == EscalationState.OPEN:
        needed = whom_else_it_needs(governance.answerers(request.principal, edited.escalation))
        return f"Sent as edited with your approval. {needed} {what}."
    return f"Sent as edited with your approval. {why_not_settled(edited.escalation)} {what}."


def _schema(shown: Any, question: Escalation) -> Mapping[str, Any]:
    arguments = question.action.arguments
    if question.kind == "budget.topup":
        return {"schema": _TOPUP, "current": arguments, "only": ("money", "reason")}
    definition = shown.tool.definition if shown.tool is not None else {}
    schema = definition.get("inputSchema")
    return {"schema": schema if isinstance(schema, Mapping) else {}, "current": arguments}
