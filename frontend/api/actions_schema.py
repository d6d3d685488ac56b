"""`/api/v1/actions` in the words of OpenAPI. It is a plain ASGI function (`agents.gateways.rest`), so nothing makes
this by itself; tests hold the two against each other."""

from __future__ import annotations

from typing import Any

from agents.gateways.rest_forms import LARGEST_BATCH
from governance.choices import ActionState, Verdict

_UUID = {"type": "string", "format": "uuid"}
_TIME = {"type": "string", "format": "date-time"}
_TEXT = {"type": "string"}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [schema, {"type": "null"}]}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


_PERMIT = _object({"token": _TEXT, "expires_at": _TIME})
_ESCALATION = _object({"id": _UUID, "url": {"type": "string", "format": "uri"}, "expires_at": _TIME})
_ANSWER = {
    "id": _UUID,
    "state": {"type": "string", "enum": list(ActionState.values)},
    "verdict": {"type": "string", "enum": list(Verdict.values)},
    "reason_code": _TEXT,
    "message": _TEXT,
    "remedies": {"type": "array", "items": _TEXT},
    "digest": _TEXT,
    "permit": _or_null(_PERMIT),
    "escalation": _or_null(_ESCALATION),
}
_ITEM = {
    **{name: _ANSWER[name] for name in ("id", "state", "verdict", "reason_code", "message", "remedies", "digest")},
    "kind": _TEXT,
    "tool": _TEXT,
    "arguments": {"type": "object"},
    "mission_id": _or_null(_UUID),
    "agent_id": _or_null(_UUID),
    "run_id": _or_null(_UUID),
    "price": _ref("Money"),
    "cost": _or_null(_ref("Money")),
    "outcome": _or_null({"type": "object"}),
    "created_at": _TIME,
    "decided_at": _or_null(_TIME),
    "ended_at": _or_null(_TIME),
}
_PROPOSAL = {
    **_object(
        {"kind": _TEXT, "tool": _TEXT, "arguments": {"type": "object"}, "justification": _TEXT},
        optional=("tool", "arguments", "justification"),
    ),
    "additionalProperties": False,
}
# What is beside one action when it is read by itself.
_BESIDE = {
    "escalation": _or_null(_ESCALATION),
    "questions": {
        "type": "array",
        "items": _object(
            {"id": _UUID, "text": _TEXT, "asked_at": _TIME, "answer": _or_null(_TEXT), "open": {"type": "boolean"}}
        ),
    },
    "replaced_by": _or_null({"type": "object"}),
}
COMPONENTS: dict[str, Any] = {
    "ActionProposal": _PROPOSAL,
    "ActionAnswer": _object(_ANSWER),
    "Action": _object({**_ITEM, **_BESIDE}, optional=tuple(_BESIDE)),
    "ActionPage": _object({"items": {"type": "array", "items": _ref("Action")}, "next": _or_null(_TEXT)}),
    "ActionResult": _object({**_ITEM, **_BESIDE, "result": {"type": "object"}}),
    "ActionBatch": {
        **_object(
            {"items": {"type": "array", "items": _ref("ActionProposal"), "maxItems": LARGEST_BATCH, "minItems": 1}}
        ),
        "additionalProperties": False,
    },
    "ActionBatchAnswer": _object(
        {"items": {"type": "array", "items": {"anyOf": [_ref("ActionAnswer"), _ref("Problem")]}}}
    ),
    "ActionExecute": {**_object({"permit": _TEXT}, optional=("permit",)), "additionalProperties": False},
    "ActionWithdraw": {**_object({"reason": _TEXT}, optional=("reason",)), "additionalProperties": False},
    "ActionReply": {
        **_object({"text": _TEXT, "question": _UUID}, optional=("question",)),
        "additionalProperties": False,
    },
    "ActionSettle": {
        **_object({"outcome": {"type": "string", "enum": ["success", "failure"]}, "reason": _TEXT}),
        "additionalProperties": False,
    },
    "ActionOutcome": {
        **_object(
            {
                "outcome": {"type": "string", "enum": ["success", "failure", "unknown"]},
                "permit": _TEXT,
                "result_sha256": _TEXT,
                "summary": _TEXT,
                "error": _TEXT,
                "effects": {"type": "array", "items": _TEXT},
                "usage": {"type": "object", "maxProperties": 0},
            },
            optional=("permit", "result_sha256", "summary", "error", "effects", "usage"),
        ),
        "additionalProperties": False,
    },
}
_ID = {"name": "action_id", "in": "path", "required": True, "schema": _UUID}


def _key(required: bool) -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": required,
        "schema": {"type": "string", "minLength": 1, "maxLength": 117, "pattern": "^[!-~]+$"},
    }


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _answers(status: int | tuple[int, ...], name: str, *, changes: bool) -> dict[str, Any]:
    statuses = (status,) if isinstance(status, int) else status
    good = {
        str(code): {"description": "", "content": {"application/json": {"schema": _ref(name)}}} for code in statuses
    }
    codes = [401, 403, 404, 422, 429, 500, 503, *([400, 408, 409, 410, 413, 415, 428] if changes else [])]
    problem = {"description": "", "content": {"application/problem+json": {"schema": _ref("Problem")}}}
    return {**good, **{str(code): problem for code in sorted(codes)}}


def _post(name: str, summary: str, body: str, answers: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["actions"],
        "security": [{"token": []}],
        "parameters": list(parameters),
        "requestBody": {"content": {"application/json": {"schema": _ref(body)}}, "required": True},
        "responses": answers,
    }


def _get(name: str, summary: str, answers: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["actions"],
        "security": [{"token": []}],
        "parameters": list(parameters),
        "responses": answers,
    }


_WHOLE = {"type": "integer", "minimum": 0}
PATHS: dict[str, Any] = {
    "/api/v1/actions": {
        "get": _get(
            "actions_list",
            "List actions",
            _answers(200, "ActionPage", changes=False),
            *(_query(name, _UUID) for name in ("mission", "agent", "run")),
            _query("state", {"type": "string", "enum": list(ActionState.values)}),
            _query("verdict", {"type": "string", "enum": list(Verdict.values)}),
            _query("kind", _TEXT),
            _query("tool", _TEXT),
            _query("limit", {**_WHOLE, "maximum": 200}),
            _query("cursor", _TEXT),
        ),
        "post": _post(
            "actions_propose",
            "Propose an action",
            "ActionProposal",
            _answers((200, 201), "ActionAnswer", changes=True),
            _key(True),
        ),
    },
    "/api/v1/actions:batch": {
        "post": _post(
            "actions_propose_batch",
            "Propose up to 100 actions",
            "ActionBatch",
            _answers(200, "ActionBatchAnswer", changes=True),
            _key(True),
        )
    },
    "/api/v1/actions/{action_id}": {
        "get": _get(
            "actions_get",
            "Read an action, waiting for its state to change",
            _answers(200, "Action", changes=False),
            _ID,
            _query("wait", {**_WHOLE, "maximum": 30}),
        )
    },
    "/api/v1/actions/{action_id}:answer": {
        "post": _post(
            "actions_answer",
            "Answer what a person asked about a waiting action",
            "ActionReply",
            _answers(200, "Action", changes=True),
            _ID,
            _key(False),
        )
    },
    "/api/v1/actions/{action_id}:execute": {
        "post": _post(
            "actions_execute",
            "Let Remit make the permitted call",
            "ActionExecute",
            _answers(200, "ActionResult", changes=True),
            _ID,
            _key(False),
        )
    },
    "/api/v1/actions/{action_id}:outcome": {
        "post": _post(
            "actions_outcome",
            "Report what came of an action done elsewhere",
            "ActionOutcome",
            _answers(200, "Action", changes=True),
            _ID,
            _key(False),
        )
    },
    "/api/v1/actions/{action_id}:settle": {
        "post": _post(
            "actions_settle",
            "Say, as a person, what came of an action that nobody reported on",
            "ActionSettle",
            _answers(200, "Action", changes=True),
            _ID,
            _key(False),
        )
    },
    "/api/v1/actions/{action_id}:withdraw": {
        "post": _post(
            "actions_withdraw",
            "Take back an action that waits or is permitted",
            "ActionWithdraw",
            _answers(200, "Action", changes=True),
            _ID,
            _key(False),
        )
    },
}
