"""Remit's own tools: what my remit is, how an action stands, what I have done, that I am finished."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from agents import selectors, services
from agents.gateways import answers
from agents.gateways.threads import in_thread
from agents.kinds.tool_call import CHOOSE_A_MISSION, NO_ONE_MISSION
from agents.servers.definitions import argument_errors
from controlplane.common import ending
from controlplane.common.errors import FieldError, RemitError, invalid, not_found
from controlplane.common.ids import parse_id
from controlplane.tenancy.tokens import require_alive
from controlplane.tenancy.types import Permission, Principal
from governance import selectors as governance
from governance.choices import ActionState, EscalationState
from governance.models import Action, Escalation
from governance.services import answer_question

PREFIX: Final = "remit__"
LONGEST_WAIT_SECONDS: Final = 30.0
_ASKED_WAIT_SECONDS: Final = 3.0
_OPEN_STATES = (ActionState.PROPOSED, ActionState.WAITING, ActionState.EXECUTING)

DEFINITIONS: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "remit__action",
        "description": (
            "How an action stands that had to wait for a person. Waits up to `wait` seconds, never more than 30, for a "
            "change. Once its state is “permitted”, make the same call again with the same arguments."
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                "id": {"type": "string", "description": "The id from the answer to the call"},
                "wait": {
                    "type": "number",
                    "minimum": 0,
                    "maximum": 3600,
                    "description": "Seconds to wait for a change; it answers after 30 in any case",
                },
            },
            "required": ["id"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": "remit__answer",
        "description": (
            "Answer a question that a person asked about an action of yours that waits; remit__action shows them under "
            "“questions”. Your answer is shown as your own words; the person still decides."
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                "id": {"type": "string", "description": "The id of the action"},
                "text": {"type": "string", "minLength": 1, "maxLength": 2000},
                "question": {"type": "string", "description": "Which question, by its id; the oldest if left out"},
            },
            "required": ["id", "text"],
            "additionalProperties": False,
        },
    },
    {
        "name": "remit__finish",
        "description": "Say that the goal is reached, or how far you came, with evidence. A person accepts or rejects.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "summary": {"type": "string", "minLength": 1, "maxLength": 4000},
                "outcome": {"type": "string", "maxLength": 40, "description": "In a word, such as reached or partly"},
                "evidence": {
                    "type": "array",
                    "maxItems": 50,
                    "items": {"anyOf": [{"type": "string", "maxLength": 2000}, {"type": "object"}]},
                },
            },
            "required": ["summary"],
            "additionalProperties": False,
        },
    },
    {
        "name": "remit__mission",
        "description": "Your remit: goal, criteria and their state, what you may do, what is left of budget and time.",
        "inputSchema": {"type": "object", "properties": {}, "additionalProperties": False},
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": "remit__progress",
        "description": "Claim one criterion, named by position or item, with evidence; or take the claim back.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "position": {"type": "integer", "minimum": 0, "description": "Which criterion, by its position"},
                "item": {"type": "string", "maxLength": 300, "description": "Or by its text"},
                "state": {"enum": ["claimed", "open"]},
                "evidence": {"type": "string", "maxLength": 4000},
                "note": {"type": "string", "maxLength": 500},
            },
            "additionalProperties": False,
        },
    },
)
_BY_NAME = {definition["name"]: definition for definition in DEFINITIONS}


async def call(principal: Principal, name: str, arguments: Mapping[str, Any]) -> answers.ToolResult:
    """One call of an own tool. Problems are error results with code and remedies, as refusals are."""
    definition = _BY_NAME.get(name)
    try:
        if definition is None:
            raise RemitError("tool.unknown", f"There is no tool {name[:80]}.", 404, remedies=("Look at tools/list.",))
        errors = argument_errors(definition, arguments)
        if errors:
            raise invalid("arguments.schema", "The arguments don't fit the tool's schema.", *errors)
        if principal.mission_id is None:
            raise RemitError(
                "mission.none",
                NO_ONE_MISSION,
                403,
                remedies=CHOOSE_A_MISSION,
            )
        match name:
            case "remit__mission":
                return answers.own(await in_thread(_mission, principal))
            case "remit__action":
                return answers.own(await _action(principal, arguments))
            case "remit__answer":
                return answers.own(await in_thread(_answer, principal, arguments))
            case "remit__progress":
                return answers.own(await in_thread(_progress, principal, arguments))
            case _:
                return answers.own(await in_thread(_finish, principal, arguments))
    except RemitError as error:
        return answers.refused(error)


def _mission(principal: Principal) -> dict[str, Any]:
    waiting = (
        Action.objects.restrict(principal, Permission.ACTION_VIEW)
        .filter(kind="tool.call", state__in=[ActionState.WAITING, ActionState.PERMITTED], verdict="escalate")
        .order_by("-pk")[:20]
    )
    return {
        **selectors.remit_of_run(principal=principal),
        "waiting": [
            {"id": str(action.pk), "tool": action.tool, "arguments": action.arguments, "state": action.state}
            for action in waiting
        ],
    }


async def _action(principal: Principal, arguments: Mapping[str, Any]) -> dict[str, Any]:
    identifier = parse_id(arguments["id"])
    if identifier is None:
        raise not_found("action")
    began = time.monotonic()
    until = began + min(float(arguments.get("wait", LONGEST_WAIT_SECONDS)), LONGEST_WAIT_SECONDS)
    pause, known = 0.1, None
    while True:
        found = await in_thread(_look_up, principal, identifier)
        left = until - time.monotonic()
        asked = {question["id"] for question in found["questions"] if question["open"]}
        known = asked if known is None else known
        # A question that came while it waited is told at once; one it knew already keeps it from waiting long.
        if asked and known == asked:
            left = min(left, _ASKED_WAIT_SECONDS - (time.monotonic() - began))
        if found["state"] not in _OPEN_STATES or left <= 0 or asked - known or ending.has_begun():
            return found
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, 1.0)


def _look_up(principal: Principal, identifier: uuid.UUID) -> dict[str, Any]:
    action = Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(pk=identifier).first()
    if action is None:
        raise not_found("action")
    found = answers.state_of(
        action, open_escalation(action), governance.questions_of(action.pk), governance.in_place_of(action)
    )
    if principal.token_id is not None:
        require_alive(principal.token_id)  # who waits with one that was revoked meanwhile learns nothing more
    return found


def _answer(principal: Principal, arguments: Mapping[str, Any]) -> dict[str, Any]:
    identifier, question = parse_id(arguments["id"]), arguments.get("question")
    if identifier is None:
        raise not_found("action")
    said = answer_question(
        principal=principal,
        action_id=identifier,
        text=arguments["text"],
        question_id=_question_id(question) if question is not None else None,
    )
    return {"id": str(identifier), "question": str(said.answers_id), "answered": True}


def _question_id(text: str) -> uuid.UUID:
    identifier = parse_id(text)
    if identifier is None:
        raise not_found("question")
    return identifier


def open_escalation(action: Action) -> Escalation | None:
    return Escalation.objects.filter(action=action, state=EscalationState.OPEN).first()


def _progress(principal: Principal, arguments: Mapping[str, Any]) -> dict[str, Any]:
    item = services.report_progress(
        principal=principal,
        position=_position(principal, arguments),
        state=str(arguments.get("state", "claimed")),
        evidence=str(arguments.get("evidence", "")),
        note=str(arguments.get("note", "")),
    )
    return {"position": item.position, "text": item.text, "state": item.state}


def _position(principal: Principal, arguments: Mapping[str, Any]) -> int:
    if "position" in arguments:
        return int(arguments["position"])
    wanted = arguments.get("item")
    if wanted is None:
        raise invalid(
            "progress.item",
            "Say which criterion of the checklist is meant.",
            FieldError("/position", "a criterion's position, as remit__mission shows it; or item with its text"),
        )
    for criterion in selectors.remit_of_run(principal=principal)["criteria"]:
        if wanted == criterion["text"]:
            return int(criterion["position"])
    raise invalid(
        "progress.item", "There is no such item on the checklist.", FieldError("/item", "a criterion's exact text")
    )


def _finish(principal: Principal, arguments: Mapping[str, Any]) -> dict[str, Any]:
    evidence = [{"text": entry} if isinstance(entry, str) else dict(entry) for entry in arguments.get("evidence", [])]
    if "outcome" in arguments:
        evidence.insert(0, {"outcome": arguments["outcome"]})
    mission = services.claim_outcome(principal=principal, summary=arguments["summary"], evidence=evidence)
    return {"id": str(mission.pk), "state": mission.state, "outcome": mission.outcome}
