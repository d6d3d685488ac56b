"""Tables as CSV that have no list page of their own address: the actions of a mission, questions and their answers."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator

from django.http.response import HttpResponseBase
from django.views.decorators.http import require_GET

from agents import selectors as agents
from controlplane.tenancy.types import Permission, Principal
from frontend.exports import csv_response, every_page, in_pages
from frontend.pages import PersonRequest, page, require_anywhere
from frontend.views.approvals import filters_of
from governance import selectors as governance
from governance.models import Action, Escalation

_ACTIONS = (
    *("id", "proposed_at", "kind", "tool", "title", "state", "verdict", "reason_code", "message", "arguments"),
    *("currency", "price", "cost", "decided_at", "ended_at", "digest"),
)
_QUESTIONS = (
    *("id", "opened_at", "expires_at", "closed_at", "kind", "title", "state", "needed", "reason", "mission_id"),
    *("action_id", "approved_by", "refused_by"),
)


@page
@require_GET
def mission_actions(request: PersonRequest, mission_id: uuid.UUID) -> HttpResponseBase:
    mission = agents.mission(request.principal, mission_id)
    return csv_response(f"mission-{mission.pk}-actions", _ACTIONS, _actions(request.principal, mission.pk))


@page
@require_GET
def questions(request: PersonRequest) -> HttpResponseBase:
    require_anywhere(request.principal, Permission.ESCALATION_VIEW, "Approvals")
    rows = governance.escalations_with_votes(request.principal, filters_of(request))
    return csv_response("approvals", _QUESTIONS, map(_question, in_pages(rows)))


def _actions(principal: Principal, mission_id: uuid.UUID) -> Iterator[tuple[object, ...]]:
    read = functools.partial(
        governance.actions,
        principal=principal,
        filters=governance.ActionFilters(mission_id=mission_id),
        limit=governance.MAX_PAGE,
    )
    for found in every_page(lambda cursor: read(cursor=cursor)):
        yield from map(_action, found.items)


def _action(row: Action) -> tuple[object, ...]:
    arguments = "; ".join(f"{name}={value}" for name, value in row.arguments.items())
    return (
        *(row.pk, row.created_at.isoformat(), row.kind, row.tool, row.title, row.state, row.verdict, row.reason_code),
        *(row.message, arguments, row.currency, row.price, row.cost),
        row.decided_at.isoformat() if row.decided_at else "",
        row.ended_at.isoformat() if row.ended_at else "",
        row.digest,
    )


def _question(row: Escalation) -> tuple[object, ...]:
    votes = list(row.votes.all())
    return (
        *(row.pk, row.opened_at.isoformat(), row.expires_at.isoformat()),
        row.closed_at.isoformat() if row.closed_at else "",
        *(row.kind, row.title, row.state, row.needed, row.reason, row.mission_id, row.action_id),
        ", ".join(vote.user.name for vote in votes if vote.approve),
        ", ".join(vote.user.name for vote in votes if not vote.approve),
    )
