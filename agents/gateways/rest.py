"""`/api/v1/actions`: the REST twin of the MCP gateway, a plain ASGI function because it is hot. Governance judges."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from agents.gateways import answers
from agents.gateways.mcp import MCP
from agents.gateways.threads import in_thread
from controlplane.common.canonical import MAX_BYTES, check_value, parse_strict
from controlplane.common.errors import FieldError, RemitError, invalid, not_found
from controlplane.common.http import (
    Receive,
    Scope,
    Send,
    bearer_of,
    edge,
    header,
    read_body,
    require_json,
    send_json,
)
from controlplane.common.ids import parse_id
from controlplane.tenancy.types import Principal
from governance import selectors
from governance import services as governance
from governance.choices import TERMINAL_ACTION_STATES, ActionState, Verdict
from governance.models import Action
from governance.types import Judgement, Proposal

PREFIX: Final = "/api/v1/actions"
AUDIENCE: Final = "api"
LARGEST_BATCH: Final = 100
LONGEST_WAIT_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.25
_ITEM = re.compile(re.escape(PREFIX) + r"/(?P<id>[0-9a-f-]{36})(?::(?P<verb>[a-z]+))?\Z")
_FIELDS = frozenset({"kind", "tool", "arguments", "justification"})


@edge("api.actions")
async def actions(scope: Scope, receive: Receive, send: Send) -> None:
    principal = await in_thread(_authenticate, bearer_of(scope))
    method, path = scope["method"], scope["path"].rstrip("/")
    item = _ITEM.match(path)
    if path == PREFIX and method == "POST":
        await _propose(principal, scope, receive, send)
    elif path == PREFIX and method == "GET":
        await send_json(send, 200, await in_thread(_listed, principal, _query(scope)))
    elif path == f"{PREFIX}:batch" and method == "POST":
        await _propose_many(principal, scope, receive, send)
    elif item and item["verb"] is None and method == "GET":
        await _shown(principal, _known_id(item), _query(scope), send)
    elif item and item["verb"] in _VERBS and method == "POST":
        body = await _object(scope, receive)
        await send_json(send, 200, await _VERBS[item["verb"]](principal, _known_id(item), body))
    elif path in (PREFIX, f"{PREFIX}:batch") or item:
        raise RemitError("request.method", f"{method} is not served here.", 405)
    else:
        raise not_found("page")


# Proposing ------------------------------------------------------------------------------------------------------------


async def _propose(principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
    proposal = _proposal(await _object(scope, receive), key=header(scope, "idempotency-key"))
    judgement = await in_thread(governance.propose, proposer=principal, proposal=proposal)
    location = {"location": f"{PREFIX}/{judgement.action_id}"}
    await send_json(send, 200 if judgement.replayed else 201, answer_of(judgement), location)


async def _propose_many(principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
    """Up to 100 in one request, judged one after the other; each has its own answer or its own problem."""
    body = await _object(scope, receive)
    items = body.get("items")
    if not isinstance(items, list) or not 1 <= len(items) <= LARGEST_BATCH or set(body) != {"items"}:
        raise invalid("batch.size", "Send 1 to 100 actions.", FieldError("/items", "a list of 1 to 100 actions"))
    key = header(scope, "idempotency-key")
    results = await in_thread(_judge_many, principal, items, key)
    await send_json(send, 200, {"items": results})


def _judge_many(principal: Principal, items: list[Any], key: str | None) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        try:
            proposal = _proposal(item, key=f"{key}/{index}" if key else None)
            results.append({"status": 201, **answer_of(governance.propose(proposer=principal, proposal=proposal))})
        except RemitError as error:
            results.append(error.problem())
    return results


def _proposal(body: Any, *, key: str | None) -> Proposal:
    if not isinstance(body, dict):
        raise invalid("action.malformed", "An action is an object.", FieldError("", "an object"))
    errors = [FieldError(f"/{name}", "not a field of an action") for name in sorted(set(body) - _FIELDS)]
    kind, tool, arguments = body.get("kind"), body.get("tool", ""), body.get("arguments", {})
    justification = body.get("justification", "")
    if not isinstance(kind, str):
        errors.append(FieldError("/kind", "text, such as tool.call"))
    if not isinstance(tool, str):
        errors.append(FieldError("/tool", "text"))
    if not isinstance(arguments, dict):
        errors.append(FieldError("/arguments", "an object"))
    if not isinstance(justification, str):
        errors.append(FieldError("/justification", "text"))
    if errors:
        raise invalid("action.malformed", "The action can't be read as it is.", *errors)
    return Proposal(
        kind=kind,  # type: ignore[arg-type]
        tool=tool,
        arguments=arguments,
        justification=justification,
        idempotency_key=key,
        audience=AUDIENCE,
    )


def answer_of(judgement: Judgement) -> dict[str, Any]:
    """The gate's answer as interfaces promise it to agents."""
    permit, escalation = judgement.permit, judgement.escalation
    return {
        "id": str(judgement.action_id),
        "state": judgement.state.value,
        "verdict": judgement.verdict.value,
        "reason_code": judgement.reason_code,
        "message": judgement.message,
        "remedies": list(judgement.remedies),
        "digest": judgement.digest,
        "permit": {"token": permit.token, "expires_at": permit.expires_at.isoformat()} if permit else None,
        "escalation": {
            "id": str(escalation.id),
            "url": answers.action_url(judgement.action_id),
            "expires_at": escalation.expires_at.isoformat(),
        }
        if escalation
        else None,
    }


# Reading --------------------------------------------------------------------------------------------------------------


async def _shown(principal: Principal, action_id: uuid.UUID, query: Mapping[str, str], send: Send) -> None:
    """`?wait=` holds the request until the action's state changes or the time is over. No thread waits meanwhile."""
    until = time.monotonic() + min(_seconds(query.get("wait", "0")), LONGEST_WAIT_SECONDS)
    row = await in_thread(selectors.action, principal=principal, action_id=action_id)
    first = row.state
    while row.state == first and ActionState(row.state) not in TERMINAL_ACTION_STATES and time.monotonic() < until:
        await asyncio.sleep(min(_POLL_SECONDS, max(0.0, until - time.monotonic())))
        row = await in_thread(selectors.action, principal=principal, action_id=action_id)
    await send_json(send, 200, item_of(row))


def _listed(principal: Principal, query: Mapping[str, str]) -> dict[str, Any]:
    try:
        filters = selectors.ActionFilters(
            mission_id=parse_id(query.get("mission")),
            agent_id=parse_id(query.get("agent")),
            state=ActionState(query["state"]) if "state" in query else None,
            verdict=Verdict(query["verdict"]) if "verdict" in query else None,
            tool=query.get("tool"),
        )
    except ValueError as error:
        raise invalid(
            "filter.invalid", str(error), FieldError("/state", "a state or verdict as in the answers")
        ) from error
    limit = int(_seconds(query.get("limit", "50")))
    found = selectors.actions(principal=principal, filters=filters, limit=limit, cursor=query.get("cursor"))
    return {"items": [item_of(row) for row in found.items], "next": found.next}


def item_of(action: Action) -> dict[str, Any]:
    """One action as REST shows it."""
    return {
        "id": str(action.pk),
        "kind": action.kind,
        "tool": action.tool,
        "arguments": action.arguments,
        "state": action.state,
        "verdict": action.verdict,
        "reason_code": action.reason_code,
        "message": action.message,
        "remedies": list(action.remedies),
        "digest": action.digest,
        "mission_id": str(action.mission_id) if action.mission_id else None,
        "agent_id": str(action.agent_id) if action.agent_id else None,
        "run_id": str(action.run_id) if action.run_id else None,
        "price": {"amount": str(action.price), "currency": action.currency},
        "cost": {"amount": str(action.cost), "currency": action.currency} if action.cost is not None else None,
        "outcome": action.outcome,
        "created_at": action.created_at.isoformat(),
        "decided_at": action.decided_at.isoformat() if action.decided_at else None,
        "ended_at": action.ended_at.isoformat() if action.ended_at else None,
    }


# Verbs on one action --------------------------------------------------------------------------------------------------


async def _execute(principal: Principal, action_id: uuid.UUID, body: Mapping[str, Any]) -> dict[str, Any]:
    """Redeem the permit and let Remit make the call. `{"permit": "…"}`, or `{}` for an action that a person
    approved."""
    _only(body, {"permit"})
    result = await MCP.caller().execute(principal, action_id, permit_token=_text(body, "permit"), audience=AUDIENCE)
    row = await in_thread(selectors.action, principal=principal, action_id=action_id)
    return {**item_of(row), "result": result}


async def _outcome(principal: Principal, action_id: uuid.UUID, body: Mapping[str, Any]) -> dict[str, Any]:
    """An outside executor reports. With `permit` it redeems it in the same request, for work that is done at once."""
    _only(body, {"permit", "outcome", "effects", "usage", "summary", "error", "result_sha256"})
    effects = body.get("effects", [])
    if not isinstance(effects, list) or not all(isinstance(item, str) for item in effects):
        raise invalid("outcome.malformed", "Effects are a list of texts.", FieldError("/effects", "a list of texts"))

    def report() -> Action:
        permit = _text(body, "permit")
        if permit is not None:
            governance.redeem(holder=principal, action_id=action_id, audience=AUDIENCE, permit_token=permit)
        return governance.record_outcome(
            holder=principal,
            action_id=action_id,
            outcome=_text(body, "outcome") or "",
            result_sha256=_text(body, "result_sha256") or "",
            summary=_text(body, "summary") or "",
            error=_text(body, "error") or "",
            effects=effects,
        )

    return item_of(await in_thread(report))


async def _withdraw(principal: Principal, action_id: uuid.UUID, body: Mapping[str, Any]) -> dict[str, Any]:
    _only(body, {"reason"})
    reason = _text(body, "reason") or ""
    return item_of(await in_thread(governance.withdraw, actor=principal, action_id=action_id, reason=reason))


_VERBS = {"execute": _execute, "outcome": _outcome, "withdraw": _withdraw}


# The request ----------------------------------------------------------------------------------------------------------


def _authenticate(token: str | None) -> Principal:
    if token is None:
        raise RemitError(
            "token.missing",
            "Send a token as “Authorization: Bearer rmt_…”.",
            401,
            remedies=("A run's token is shown on its mission's page.",),
        )
    return MCP.principal_of(token)


async def _object(scope: Scope, receive: Receive) -> dict[str, Any]:
    raw = await read_body(scope, receive, max_bytes=MAX_BYTES)
    if raw:
        require_json(scope)
    value = parse_strict(raw) if raw else {}
    if not isinstance(value, dict):
        raise invalid("request.malformed", "The body is one JSON object.", FieldError("", "an object"))
    return value


def _known_id(item: re.Match[str]) -> uuid.UUID:
    key = parse_id(item["id"])
    if key is None:
        raise not_found("action")
    return key


def _query(scope: Scope) -> dict[str, str]:
    raw = scope.get("query_string", b"").decode("latin-1")
    return {name: values[-1] for name, values in parse_qs(raw).items()}


def _seconds(text: str) -> float:
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise invalid("request.number", "That is not a whole number.", FieldError("/wait", "0 to 30"))
    return float(text)


def _only(body: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(body) - known)
    if unknown:
        raise invalid(
            "request.unknown_field",
            "Some fields are not known.",
            *(FieldError(f"/{name}", "unknown") for name in unknown),
        )
    check_value(body)


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid("request.malformed", f"“{name}” is text.", FieldError(f"/{name}", "text"))
    return value
