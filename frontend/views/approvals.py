"""Approvals: the inbox of open questions, the card of one, and the answer. Only POST decides."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from agents import selectors as agents
from controlplane.common.errors import RemitError, invalid
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission
from frontend.approving import card, whom_else_it_needs, why_not_settled
from frontend.approving_reasons import reasons
from frontend.pages import PersonRequest, id_of, page, require_anywhere
from frontend.views.actions import compared_with_remit, grants_in_force, rungs_of
from governance import selectors as governance
from governance import services
from governance.choices import EscalationState
from governance.models import Escalation, Vote
from governance.selectors import InboxFilters

_FILTERS = ("kind", "team", "group", "risk")
TABS = ("mine", "open", "decided")
_LOST_RACES = frozenset({"escalation.closed", "escalation.changed", "escalation.expired", "escalation.voted"})


@page
@never_cache
@require_GET
def listing(request: PersonRequest) -> HttpResponse:
    return list_page(request)


@page
@never_cache
@require_GET
def detail(request: PersonRequest, escalation_id: uuid.UUID) -> HttpResponse:
    return card_page(request, escalation_id, error=None, status=200)


@page
@require_POST
def decide(request: PersonRequest, escalation_id: uuid.UUID) -> HttpResponse:
    """One vote, on the version the person saw. Whoever comes second learns who was first."""
    answer, version = request.POST.get("answer", ""), request.POST.get("version", "")
    try:
        if answer not in ("approve", "deny") or not (version.isascii() and version.isdigit() and len(version) < 9):
            raise invalid("approval.malformed", "That answer did not come from this page. Nothing was decided.")
        decided = services.decide(
            approver=request.principal,
            escalation_id=escalation_id,
            version=int(version),
            approve=answer == "approve",
            reason=request.POST.get("reason", ""),
        )
    except RemitError as error:
        if error.status == 404:
            raise
        if error.code not in _LOST_RACES:
            return card_page(request, escalation_id, error=error, status=error.status)
        row = governance.escalation(principal=request.principal, escalation_id=escalation_id)
        mine = next((vote for vote in row.votes.all() if vote.user_id == request.principal.user_id), None)
        if mine is None or mine.approve != (answer == "approve") or not _stands(row, mine):
            return card_page(request, escalation_id, error=_told(row, error, mine), status=error.status)
        messages.info(request, f"{_counts_already(mine)} Nothing was done twice.")
    else:
        tell = messages.warning if decided.state == EscalationState.SUPERSEDED else messages.success
        tell(request, _said(request, decided, approve=answer == "approve"))
    return redirect("home" if request.POST.get("next") == "home" else "approvals")


def list_page(request: PersonRequest, *, error: RemitError | None = None) -> HttpResponse:
    """The inbox with the card of the most urgent question beside it. `error` says above it why nothing was done with
    the rows that were chosen; what was chosen, typed and shown stays."""
    require_anywhere(request.principal, Permission.ESCALATION_VIEW, "Approvals")
    tab = _tab(request)
    rows = _rows(request, tab)
    chosen = None
    if rows and tab != "decided":
        shown = id_of(request.POST.get("shown"))
        first = next((row for row in rows if row.pk == shown), rows[0])
        chosen = governance.escalation(principal=request.principal, escalation_id=first.pk)
    context = {
        **_context(request, tab, rows, chosen),
        "error": error,
        "wrong": error is not None and error.code == "reason.missing",
        "ticked": {text.partition(":")[0] for text in request.POST.getlist("row")},
        "denies": request.POST.get("answer") == "deny",
        "reason": request.POST.get("reason", ""),
    }
    return render(request, "approvals/page.html", context, status=error.status if error else 200)


def card_page(
    request: PersonRequest, escalation_id: uuid.UUID, *, error: RemitError | None, status: int
) -> HttpResponse:
    """The card beside its list; `error` says above it why nothing was done."""
    chosen = governance.escalation(principal=request.principal, escalation_id=escalation_id)
    tab = _tab(request)
    elsewhere = chosen.state != EscalationState.OPEN and "tab" not in request.GET
    if tab == "mine" and (elsewhere or not _may_decide(request)):
        tab = "open" if chosen.state == EscalationState.OPEN else "decided"
    rows = _rows(request, tab)
    return render(
        request,
        "approvals/page.html",
        {**_context(request, tab, rows, chosen), "error": error, "opened": True},
        status=status,
    )


def _context(request: PersonRequest, tab: str, rows: list[Escalation], chosen: Escalation | None) -> dict[str, Any]:
    groups = grouped(rows) if tab != "decided" else []
    context: dict[str, Any] = {
        "breaks_glass": request.principal.has_anywhere(Permission.ESCALATION_BREAK_GLASS),
        "tab": tab,
        "rows": rows,
        "chosen": chosen,
        "may_decide": _may_decide(request),
        "groups": groups,
        "keep": kept(request, tab),
        "again": _again(request, tab, chosen),
        "identical": any(group.rest for group in groups),
        "filters": filters_of(request),
        "filtered": any(value is not None for value in vars(filters_of(request)).values()),
        "choices": _choices(request) if tab != "decided" else None,
    }
    if tab == "mine" and not rows:
        context["last"] = governance.decided_escalations(request.principal, limit=5)
    context["missions"] = agents.missions_of(request.principal, rows or context.get("last", ()))
    if chosen is not None:
        grants = grants_in_force(request, chosen.action)
        over, limits = compared_with_remit(chosen.action, grants)
        shown = card(request.principal, chosen)
        context |= {
            "card": shown,
            "reasons": reasons(shown, over) if chosen.kind == "tool.call" else None,
            "action": chosen.action,
            "rungs": rungs_of(chosen.decision, chosen.action, grants),
            "over": over,
            "limits": limits,
        }
    return context


def _rows(request: PersonRequest, tab: str) -> list[Escalation]:
    match tab:
        case "mine":
            return governance.escalations_waiting_for(request.principal, filters=filters_of(request))
        case "open":
            return governance.open_escalations(request.principal, filters=filters_of(request))
        case _:
            return governance.decided_escalations(request.principal)


def filters_of(request: PersonRequest) -> InboxFilters:
    """From the address; what is none of ours filters nothing."""
    kind = request.GET.get("kind", "")
    return InboxFilters(
        kind=kind if kind in governance.known_kinds() else None,
        team_id=id_of(request.GET.get("team")),
        group_id=id_of(request.GET.get("group")),
        irreversible=True if request.GET.get("risk") == "irreversible" else None,
    )


def kept(request: PersonRequest, tab: str) -> str:
    """What a row's address keeps of the list's: its tab and filters."""
    names = {"tab": tab} if tab != "mine" else {}
    names |= {name: value for name in _FILTERS if (value := request.GET.get(name, ""))}
    return f"?{urlencode(names)}" if names else ""


def _again(request: PersonRequest, tab: str, chosen: Escalation | None) -> str:
    """Where the open page asks for its parts: the question somebody reads stays, whatever is more urgent by then."""
    names = {"tab": tab} | {name: value for name in _FILTERS if (value := request.GET.get(name, ""))}
    path = reverse("approvals") if chosen is None else reverse("approval", args=[chosen.pk])
    return f"{path}?{urlencode(names)}"


def _choices(request: PersonRequest) -> dict[str, Any]:
    return {
        "kinds": list(governance.known_kinds().items()),
        "teams": tenancy.teams_with(request.principal, Permission.ESCALATION_VIEW),
        "groups": governance.approver_groups(request.principal),
    }


@dataclass(frozen=True)
class Group:
    """Questions about the very same action, under the most urgent of them."""

    first: Escalation
    rest: list[Escalation]


def grouped(rows: list[Escalation]) -> list[Group]:
    """In the order of their most urgent question."""
    by_digest: dict[str, list[Escalation]] = {}
    for row in rows:
        by_digest.setdefault(row.action.digest, []).append(row)
    return [Group(found[0], found[1:]) for found in by_digest.values()]


def _tab(request: PersonRequest) -> str:
    chosen = request.GET.get("tab", "")
    return chosen if chosen in TABS else ("mine" if _may_decide(request) else "open")


def _may_decide(request: PersonRequest) -> bool:
    return request.principal.has_anywhere(Permission.ESCALATION_DECIDE)


def _said(request: PersonRequest, escalation: Escalation, *, approve: bool) -> str:
    match escalation.state:
        case EscalationState.APPROVED:
            return f"Approved once: {escalation.title}."
        case EscalationState.DENIED:
            who = "The agent" if escalation.action.by_agent else escalation.action.proposer_name
            return f"Refused: {escalation.title}. {who} was told why."
        case EscalationState.SUPERSEDED:
            return f"Your approval counts: {escalation.title}. {why_not_settled(escalation)}"
    if not approve:
        return "Your answer was recorded."
    return f"Your approval counts. {whom_else_it_needs(governance.answerers(request.principal, escalation))}"


def _stands(row: Escalation, vote: Vote) -> bool:
    """The question is open still, or came out as the vote has it."""
    return row.state in (EscalationState.OPEN, EscalationState.APPROVED if vote.approve else EscalationState.DENIED)


def _counts_already(vote: Vote) -> str:
    return f"Your {'approval' if vote.approve else 'refusal'} counts already."


def _told(row: Escalation, error: RemitError, mine: Vote | None) -> RemitError:
    """The loser of a race learns who was first; whoever wants another answer now, that theirs counts already."""
    if mine is not None:
        return RemitError(error.code, f"{_counts_already(mine)} It can't be changed.", error.status)
    names = ", ".join(f"{vote.user.name} {'approved' if vote.approve else 'refused'}" for vote in row.votes.all())
    if not names:
        return error
    return RemitError(
        error.code, f"{names} before you. Your answer was not counted.", error.status, remedies=error.remedies
    )
