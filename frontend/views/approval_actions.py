"""What people do with questions besides answering one: claim, withdraw, speak, answer identical ones, break the
glass, review."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST, require_safe

from controlplane.common.errors import RemitError, invalid
from controlplane.common.ids import parse_id
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.middleware import go_to_organisation
from controlplane.tenancy.types import Permission
from frontend.pages import PersonRequest, page, require_anywhere
from frontend.views.approvals import card_page, kept, list_page
from governance import selectors as governance
from governance import services
from governance.choices import GLASS_NOT_JUSTIFIED, ActionState, EscalationState, ReviewVerdict


@page
@require_POST
def claim(request: PersonRequest, escalation_id: uuid.UUID) -> HttpResponse:
    """Also the renewal that an open card sends by itself, which wants no page."""
    try:
        services.claim(
            actor=request.principal, escalation_id=escalation_id, take_over=request.POST.get("take") == "over"
        )
    except RemitError as error:
        if "renew" in request.POST:
            return HttpResponse(status=204)
        return _back_with(request, escalation_id, error)
    return HttpResponse(status=204) if "renew" in request.POST else _to_card(escalation_id)


@page
@require_POST
def release(request: PersonRequest, escalation_id: uuid.UUID) -> HttpResponse:
    services.release(actor=request.principal, escalation_id=escalation_id)
    return _to_card(escalation_id)


@page
@require_POST
def withdraw(request: PersonRequest, escalation_id: uuid.UUID) -> HttpResponse:
    """By who asked, or who operates the mission that it is about: then nobody has to answer."""
    question = governance.escalation(principal=request.principal, escalation_id=escalation_id)
    try:
        services.withdraw(actor=request.principal, action_id=question.action_id)
    except RemitError as error:
        return _back_with(request, escalation_id, error)
    messages.success(request, f"Withdrawn: {question.title}. Nobody is asked any more.")
    return _to_card(escalation_id)


@page
@require_POST
def say(request: PersonRequest, escalation_id: uuid.UUID) -> HttpResponse:
    """A comment for the other people, or a question to the agent."""
    to_agent = request.POST.get("to") == "agent"
    speak = services.ask_agent if to_agent else services.comment
    try:
        speak(actor=request.principal, escalation_id=escalation_id, text=request.POST.get("text", ""))
    except RemitError as error:
        return _back_with(request, escalation_id, error)
    messages.success(request, "The agent sees your question when it asks how this stands." if to_agent else "Noted.")
    return redirect("approval", escalation_id)


@page
@require_POST
def decide_many(request: PersonRequest) -> HttpResponse:
    """One answer to identical questions. Each has its own result, and each that failed says why."""
    answer = request.POST.get("answer", "")
    try:
        if answer not in ("approve", "deny"):
            raise invalid("approval.malformed", "That answer did not come from this page. Nothing was decided.")
        results = services.decide_many(
            approver=request.principal,
            items=_chosen(request),
            approve=answer == "approve",
            reason=request.POST.get("reason", ""),
        )
    except RemitError as error:
        if error.status == 404:
            raise
        return list_page(request, error=error)
    unsettled = [result for result in results if result.state == EscalationState.SUPERSEDED and result.error is None]
    taken = [result for result in results if result.error is None and result not in unsettled]
    if taken:
        word = "approved once each" if answer == "approve" else "refused"
        messages.success(request, f"{len(taken)} of {len(results)} answered: {word}. {taken[0].title}.")
    if unsettled:
        counted = f"{len(unsettled)} approval{'' if len(unsettled) == 1 else 's'} counted and did not settle it"
        why = " ".join(dict.fromkeys(result.reason for result in unsettled))
        messages.warning(request, f"{counted}. {why} {unsettled[0].title}.")
    for result in results:
        if result.error is not None:
            messages.error(request, f"Not decided: {result.title}. {result.error.message}")
    return redirect(f"{reverse('approvals')}{kept(request, 'mine')}")


@page
@require_POST
def break_glass(request: PersonRequest, escalation_id: uuid.UUID) -> HttpResponse:
    version = request.POST.get("version", "")
    try:
        if not (version.isascii() and version.isdigit() and len(version) < 9):
            raise invalid("approval.malformed", "That did not come from this page. Nothing was decided.")
        broken = services.break_glass(
            actor=request.principal,
            escalation_id=escalation_id,
            version=int(version),
            reason=request.POST.get("reason", ""),
        )
    except RemitError as error:
        return _back_with(request, escalation_id, error)
    action = governance.action(principal=request.principal, action_id=broken.action_id)
    until = f"Permitted until {broken.usable_until:%H:%M} UTC."
    done = "Done at once." if action.state == ActionState.SUCCEEDED else until
    messages.warning(request, f"{done} Somebody else must review it; everybody sees it.")
    return redirect("broken-glass")


@page
@never_cache
@require_GET
def broken_glass(request: PersonRequest) -> HttpResponse:
    """What was passed over in emergencies; what nobody has reviewed comes first."""
    return _broken_glass(request)


@page
@require_POST
def review(request: PersonRequest, break_glass_id: uuid.UUID) -> HttpResponse:
    verdict = request.POST.get("verdict", "")
    try:
        if verdict not in ReviewVerdict.values:
            raise invalid("review.verdict", "Say whether it was justified.")
        reviewed = services.review_break_glass(
            reviewer=request.principal,
            break_glass_id=break_glass_id,
            verdict=ReviewVerdict(verdict),
            note=request.POST.get("note", ""),
        )
    except RemitError as error:
        if error.status == 404:
            raise
        return _broken_glass(request, error=error)
    withdrawn = reviewed.action.reason_code == GLASS_NOT_JUSTIFIED
    messages.success(request, "Reviewed. It had not been used, and is withdrawn." if withdrawn else "Reviewed.")
    return redirect("broken-glass")


@page
@never_cache
@require_safe
def from_mail(request: PersonRequest, token: str) -> HttpResponse:
    """The link of a mail: it opens the question's page and does nothing else, whoever or whatever fetches it."""
    named = governance.read_link(token)
    if named is None:
        raise RemitError(
            "link.invalid",
            "This link is older than 30 days or was changed on its way. Nothing was decided.",
            404,
            remedies=("Open Approvals: what waits for you stands there.",),
        )
    escalation_id, user_id = named
    if user_id == request.principal.user_id:
        _go_where_it_is_asked(request, escalation_id)
    else:
        messages.info(request, "That mail was for somebody else. You see what you may see.")
    return redirect("approval", escalation_id)


def _go_where_it_is_asked(request: PersonRequest, escalation_id: uuid.UUID) -> None:
    """To the organisation of the question, where its addressee belongs to several: elsewhere there is no such page."""
    organisation_id = governance.organisation_asking(escalation_id)
    if organisation_id is not None and organisation_id in [
        item.pk for item in tenancy.organisations_of(request.principal.id)
    ]:
        go_to_organisation(request, organisation_id)


def _broken_glass(request: PersonRequest, *, error: RemitError | None = None) -> HttpResponse:
    require_anywhere(request.principal, Permission.ESCALATION_VIEW, "Approvals")
    rows = governance.broken_glass(request.principal)
    context = {
        "rows": rows,
        "error": error,
        "decides": request.principal.has_anywhere(Permission.ESCALATION_DECIDE),
        "reviewers": governance.reviewers(rows),
        "verdicts": ReviewVerdict.choices,
    }
    return render(request, "approvals/broken_glass.html", context, status=error.status if error else 200)


def _to_card(escalation_id: uuid.UUID) -> HttpResponse:
    """By its fragment, so that Tab goes on from the card and not from the head of the page."""
    return redirect(f"{reverse('approval', args=[escalation_id])}#approval-card")


def _back_with(request: PersonRequest, escalation_id: uuid.UUID, error: RemitError) -> HttpResponse:
    if error.status == 404:
        raise error
    return card_page(request, escalation_id, error=error, status=error.status)


def _chosen(request: PersonRequest) -> list[tuple[uuid.UUID, int]]:
    """`id:version` of each chosen row."""
    chosen = []
    for text in request.POST.getlist("row"):
        key, _, version = text.partition(":")
        identifier = parse_id(key)
        if identifier is None or not (version.isascii() and version.isdigit() and len(version) < 9):
            raise invalid("approval.malformed", "That choice did not come from this page. Nothing was decided.")
        chosen.append((identifier, int(version)))
    if not chosen:
        raise invalid("bulk.nothing", "Choose at least one question. Nothing was decided.")
    return chosen
