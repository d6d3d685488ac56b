"""`/api/v1/actions` as JSON: what a request must look like, and the shapes of its answers. Nothing is decided here."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from agents.gateways import answers
from agents.gateways.answers import action_url
from controlplane.common.canonical import parse_strict
from controlplane.common.errors import FieldError, RemitError, invalid
from controlplane.common.http import Scope, require_json
from controlplane.common.ids import parse_id
from governance import selectors
from governance.choices import ActionState, EscalationState, Verdict
from governance.models import Action
from governance.selectors import MAX_PAGE, ActionFilters
from governance.types import Judgement, Proposal

AUDIENCE: Final = "api"
LARGEST_BATCH: Final = 100
_LONGEST_KEY: Final = 120
_FIELDS = frozenset({"kind", "tool", "arguments", "justification"})
_OUTCOME_TEXTS: Final = ("outcome", "result_sha256", "summary", "error")
_FILTERS: Final = frozenset({"mission", "agent", "run", "state", "verdict", "kind", "tool"})


# Requests -------------------------------------------------------------------------------------------------------------


def object_of(scope: Scope, raw: bytes) -> dict[str, Any]:
    """The body as one strict JSON object; an empty body is the empty one."""
    if not raw:
        return {}
    require_json(scope)
    value = parse_strict(raw)
    if not isinstance(value, dict):
        raise invalid("request.malformed", "The body is one JSON object.", FieldError("", "an object"))
    return value


def key_of(text: str | None, *, room_for: str = "") -> str:
    """The idempotency key that proposing needs: without one, a repeat after a lost answer would hold the budget twice.

    Raises 428 `idempotency.key_missing`, 422 `idempotency.key_malformed`. `room_for`: what will be appended to it.
    """
    if not text:
        raise RemitError(
            "idempotency.key_missing",
            "A proposal needs an Idempotency-Key, so that repeating it is safe.",
            428,
            remedies=("Send a header “Idempotency-Key” with a value of its own for each action.",),
        )
    most = _LONGEST_KEY - len(room_for)
    if len(text) > most or not all("!" <= character <= "~" for character in text):
        raise invalid(
            "idempotency.key_malformed",
            f"The Idempotency-Key has 1 to {most} visible ASCII characters.",
            FieldError("/idempotency_key", f"1 to {most} visible ASCII characters"),
        )
    return text


def proposal_of(body: Any, *, key: str) -> Proposal:
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


def batch_of(body: Mapping[str, Any]) -> list[Any]:
    items = body.get("items")
    if not isinstance(items, list) or not 1 <= len(items) <= LARGEST_BATCH or set(body) != {"items"}:
        raise invalid("batch.size", "Send 1 to 100 actions.", FieldError("/items", "a list of 1 to 100 actions"))
    return items


def report_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The report of an outside executor, ready for `record_outcome`."""
    only(body, {"permit", "effects", "usage", *_OUTCOME_TEXTS})
    effects, usage = body.get("effects", []), body.get("usage", {})
    if not isinstance(effects, list) or not all(isinstance(item, str) for item in effects):
        raise invalid("outcome.malformed", "Effects are a list of texts.", FieldError("/effects", "a list of texts"))
    if usage != {}:
        raise invalid(
            "outcome.usage",
            "What a call costs is its listed price; another usage can't be reported.",
            FieldError("/usage", "{} or nothing"),
        )
    return {**{name: text(body, name) or "" for name in _OUTCOME_TEXTS}, "effects": effects}


def only(body: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(body) - known)
    if unknown:
        raise invalid(
            "request.unknown_field",
            "Some fields are not known.",
            *(FieldError(f"/{name}", "unknown") for name in unknown),
        )


def text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid("request.malformed", f"“{name}” is text.", FieldError(f"/{name}", "text"))
    return value


def query_of(scope: Scope, known: frozenset[str]) -> dict[str, str]:
    """The query, strictly: a parameter that is misspelt or given twice must not quietly show something else."""
    raw = scope.get("query_string", b"").decode("latin-1")
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError as error:
        raise invalid("query.malformed", "The query can't be read.") from error
    query = dict(pairs)
    wrong = sorted(set(query) - known) or sorted(name for name, value in pairs if not value.isprintable())
    if wrong or len(query) != len(pairs):
        raise invalid(
            "query.unknown",
            f"Known here, once each: {', '.join(sorted(known))}.",
            *(FieldError(f"/{name[:40]}", "not known here") for name in wrong),
        )
    return query


def whole(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number from the query, at most `most`."""
    given = query.get(name)
    if given is None:
        return default
    if not given.isascii() or not given.isdigit() or len(given) > 6:
        raise invalid("query.number", f"“{name}” is a whole number.", FieldError(f"/{name}", f"0 to {most}"))
    return min(int(given), most)


LIST_QUERY: Final = _FILTERS | {"limit", "cursor"}


def filters_of(query: Mapping[str, str]) -> ActionFilters:
    errors: list[FieldError] = []
    ids = {}
    for name in ("mission", "agent", "run"):
        ids[f"{name}_id"] = parse_id(query.get(name))
        if name in query and ids[f"{name}_id"] is None:
            errors.append(FieldError(f"/{name}", "an id"))
    for name, choices in (("state", ActionState), ("verdict", Verdict)):
        if name in query and query[name] not in choices:
            errors.append(FieldError(f"/{name}", f"one of: {', '.join(choices)}"))
    if errors:
        raise invalid("filter.invalid", "Some filters can't be used.", *errors)
    return ActionFilters(
        mission_id=ids["mission_id"],
        agent_id=ids["agent_id"],
        run_id=ids["run_id"],
        state=ActionState(query["state"]) if "state" in query else None,
        verdict=Verdict(query["verdict"]) if "verdict" in query else None,
        kind=query.get("kind"),
        tool=query.get("tool"),
    )


def limit_of(query: Mapping[str, str]) -> int:
    return whole(query, "limit", 50, MAX_PAGE)


# Answers --------------------------------------------------------------------------------------------------------------


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
        "escalation": _escalation(escalation.id, judgement.action_id, escalation.expires_at.isoformat())
        if escalation
        else None,
    }


def item_of(action: Action) -> dict[str, Any]:
    """One action as lists show it."""
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
        "price": {"amount": f"{action.price:.12f}", "currency": action.currency},
        "cost": {"amount": f"{action.cost:.12f}", "currency": action.currency} if action.cost is not None else None,
        "outcome": action.outcome,
        "created_at": action.created_at.isoformat(),
        "decided_at": action.decided_at.isoformat() if action.decided_at else None,
        "ended_at": action.ended_at.isoformat() if action.ended_at else None,
    }


def detail_of(action: Action) -> dict[str, Any]:
    """One action by itself: with the question it waits for. Its escalations must have been fetched."""
    waiting = [row for row in action.escalations.all() if row.state == EscalationState.OPEN]
    question = _escalation(waiting[-1].pk, action.pk, waiting[-1].expires_at.isoformat()) if waiting else None
    asked = waiting or action.reason_code == "action.replaced"
    return {
        **item_of(action),
        "escalation": question,
        "questions": answers.questions_of(selectors.questions_of(action.pk)) if asked else [],
        "replaced_by": answers.replaced_by(selectors.in_place_of(action)) if asked else None,
    }


def _escalation(identifier: uuid.UUID, action_id: uuid.UUID, expires_at: str) -> dict[str, Any]:
    return {"id": str(identifier), "url": action_url(action_id), "expires_at": expires_at}
