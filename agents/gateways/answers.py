"""What agents get back: the gate's answers and upstream results as MCP tool results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings

from agents.servers.types import PinnedTool, UpstreamResult
from controlplane.common.errors import RemitError
from controlplane.common.plain import plain_line
from governance.approval_models import EscalationMessage
from governance.choices import ActionState, EscalationState, Verdict
from governance.models import Action, Escalation
from governance.selectors import changes, in_words
from governance.types import Judgement

ACTION_META = "remit/action"
KEY_META = "remit/idempotency-key"
JUSTIFICATION_META = "remit/justification"
SOURCE_META = "remit/source"
EDITED_META = "remit/edited"
_OLDEST = "2024-11-05"
_VERDICT_OF_STATE = {
    ActionState.DENIED: Verdict.DENY,
    ActionState.EXPIRED: Verdict.DENY,
    ActionState.WITHDRAWN: Verdict.DENY,
    ActionState.WAITING: Verdict.ESCALATE,
    ActionState.PROPOSED: Verdict.ESCALATE,
}

ToolResult = dict[str, Any]


def decided(judgement: Judgement) -> ToolResult:
    """A refusal, or a call that waits for a person: nothing was sent, and the model can read why and what to do."""
    escalation = None
    if judgement.escalation:
        escalation = _escalation(
            judgement.escalation.id, judgement.action_id, judgement.escalation.expires_at.isoformat()
        )
    return _refusal(
        action_id=str(judgement.action_id),
        verdict=judgement.verdict,
        reason_code=judgement.reason_code,
        message=judgement.message,
        remedies=judgement.remedies,
        digest=judgement.digest,
        escalation=escalation,
        state=judgement.state,
    )


def stands(action: Action, escalation: Escalation | None, replacement: Action | None = None) -> ToolResult:
    """An action that was decided before, as it stands now; `replacement` is what people put in its place."""
    waiting = escalation if action.state == ActionState.WAITING else None
    return _refusal(
        action_id=str(action.pk),
        verdict=_VERDICT_OF_STATE.get(ActionState(action.state), Verdict(action.verdict)),
        reason_code=action.reason_code or f"action.{action.state}",
        message=_state_message(action),
        remedies=action.remedies,
        digest=action.digest,
        escalation=_escalation(waiting.pk, action.pk, waiting.expires_at.isoformat()) if waiting else None,
        state=ActionState(action.state),
        replacement=replacement,
    )


def refused(error: RemitError, *, action: Action | None = None) -> ToolResult:
    """A proposal that could not be judged at all, or a permit that was not honoured."""
    return _refusal(
        action_id=str(action.pk) if action else None,
        verdict=Verdict.DENY,
        reason_code=error.code,
        message=error.message,
        remedies=[*error.remedies, *map(str, error.errors)],
        digest=action.digest if action else None,
        escalation=None,
        state=ActionState(action.state) if action else ActionState.DENIED,
        retry_after=error.retry_after_seconds,
    )


def carried_out(action: Action, tool: PinnedTool, result: UpstreamResult, *, protocol_version: str) -> ToolResult:
    """The server's own result, labelled as untrusted. Parts the protocol doesn't know and its `_meta` are left out."""
    answer: ToolResult = {
        "content": [_block(block, protocol_version) for block in result.content.get("content", [])],
        "isError": result.content.get("isError", False),
        "_meta": _labels(action, tool),
    }
    structured = result.content.get("structuredContent")
    if isinstance(structured, dict):
        answer["structuredContent"] = structured
    return answer


def not_carried_out(action: Action, tool: PinnedTool, result: UpstreamResult) -> ToolResult:
    """Permitted, but the server gave no result: failed for certain, or not known."""
    what = "failure" if result.kind == "error" else "unknown"
    advice = (
        "Nothing was sent; the same call may be tried again."
        if not result.sent
        else "It may have happened all the same: look before you try again."
        if what == "unknown"
        else "Try something else, or the same later."
    )
    text = f"{result.message} {advice}"
    return {
        "content": [{"type": "text", "text": text}],
        "structuredContent": {
            "id": str(action.pk),
            "verdict": Verdict.ALLOW.value,
            "state": action.state,
            "outcome": what,
            "reason_code": result.reason_code,
            "message": result.message,
            "remedies": [advice],
            "digest": action.digest,
            "permit": None,
            "escalation": None,
        },
        "isError": True,
        "_meta": _labels(action, tool),
    }


def own(value: Mapping[str, Any]) -> ToolResult:
    """The result of one of Remit's own tools."""
    return {
        "content": [{"type": "text", "text": json.dumps(value, ensure_ascii=False)}],
        "structuredContent": dict(value),
        "isError": False,
    }


def state_of(
    action: Action,
    escalation: Escalation | None,
    questions: Sequence[EscalationMessage] = (),
    replacement: Action | None = None,
) -> dict[str, Any]:
    """What `remit__action` tells."""
    return {
        "id": str(action.pk),
        "state": action.state,
        "verdict": action.verdict,
        "reason_code": action.reason_code,
        "message": _state_message(action),
        "remedies": list(action.remedies),
        "tool": action.tool,
        "arguments": action.arguments,
        "digest": action.digest,
        "escalation": _escalation(escalation.pk, action.pk, escalation.expires_at.isoformat()) if escalation else None,
        "outcome": (action.outcome or {}).get("outcome"),
        "questions": questions_of(questions),
        "replaced_by": replaced_by(replacement),
    }


def questions_of(questions: Sequence[EscalationMessage]) -> list[dict[str, Any]]:
    """What people asked the agent, oldest first, and what it answered."""
    return [
        {
            "id": str(question.pk),
            "text": question.text,
            "asked_at": question.created_at.isoformat(),
            "answer": question.answer.text if hasattr(question, "answer") else None,
            "open": not hasattr(question, "answer") and question.escalation.state == EscalationState.OPEN,
        }
        for question in questions
    ]


def replaced_by(replacement: Action | None) -> dict[str, Any] | None:
    """What people put in the place of an action before agreeing to it."""
    if replacement is None:
        return None
    return {
        "id": str(replacement.pk),
        "state": replacement.state,
        "tool": replacement.tool,
        "arguments": replacement.arguments,
        "digest": replacement.digest,
        "message": _state_message(replacement),
    }


def with_edit(answer: ToolResult, action: Action, asked: Mapping[str, Any]) -> ToolResult:
    """Says so where what was carried out is not what the call asked for: a person changed it and agreed to that."""
    found = changes(asked, action.arguments)
    if not found:
        return answer
    note = f"A person changed this call before agreeing to it: {in_words(found)}. That is what was carried out."
    return {
        **answer,
        "content": [*answer["content"], {"type": "text", "text": note}],
        "_meta": {
            **answer.get("_meta", {}),
            EDITED_META: [{"path": item.path, "asked": item.before, "carried_out": item.after} for item in found],
        },
    }


def for_display(text: str, *, limit: int = 200) -> str:
    """One line for people."""
    return plain_line(text, limit=limit)


def _refusal(
    *,
    action_id: str | None,
    verdict: Verdict,
    reason_code: str,
    message: str,
    remedies: Sequence[str],
    digest: str | None,
    escalation: Mapping[str, Any] | None,
    state: ActionState,
    retry_after: int | None = None,
    replacement: Action | None = None,
) -> ToolResult:
    said = {
        "id": action_id,
        "verdict": verdict.value,
        "state": state.value,
        "reason_code": reason_code,
        "message": message,
        "remedies": list(remedies),
        "digest": digest,
        "permit": None,
        "escalation": escalation,
        **({"retry_after": retry_after} if retry_after is not None else {}),
        **({"replaced_by": replaced_by(replacement)} if replacement is not None else {}),
    }
    lines = [message or reason_code, *remedies]
    if escalation:
        lines.append(
            f"A person is asked until {escalation['expires_at']}. Ask remit__action about {action_id}; once it is "
            "permitted, make the same call again with the same arguments."
        )
    # An error result even while it waits: the tool has not run, and its output schema does not describe this answer.
    return {"content": [{"type": "text", "text": "\n".join(lines)}], "structuredContent": said, "isError": True}


def _escalation(identifier: object, action_id: object, expires_at: str) -> dict[str, Any]:
    return {"id": str(identifier), "url": action_url(action_id), "expires_at": expires_at}


def action_url(action_id: object) -> str:
    """Where people look at an action."""
    return f"{settings.CONFIG.public_url}/actions/{action_id}"


def _state_message(action: Action) -> str:
    match ActionState(action.state):
        case ActionState.PERMITTED:
            return "Permitted. Make the same call again with the same arguments."
        case ActionState.SUCCEEDED | ActionState.FAILED | ActionState.UNKNOWN:
            outcome = action.outcome or {}
            return str(outcome.get("error") or outcome.get("summary") or ActionState(action.state).label)
        case ActionState.EXECUTING:
            return "It is being carried out."
        case _:
            return action.message or ActionState(action.state).label


def _labels(action: Action, tool: PinnedTool) -> dict[str, Any]:
    return {
        ACTION_META: str(action.pk),
        SOURCE_META: {"server": tool.server.slug, "tool": tool.name, "trust": "untrusted"},
    }


def _block(block: Mapping[str, Any], protocol_version: str) -> dict[str, Any]:
    """A content block with the fields the protocol names; anything else becomes its JSON as text."""
    match block:
        case {"type": "text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "image", "data": str(data), "mimeType": str(kind)}:
            return {"type": "image", "data": data, "mimeType": kind}
        case {"type": "audio", "data": str(data), "mimeType": str(kind)} if protocol_version != _OLDEST:
            return {"type": "audio", "data": data, "mimeType": kind}
        case {"type": "resource", "resource": {"uri": str(uri), "text": str(text)}}:
            return {"type": "resource", "resource": {"uri": uri, "text": text}}
    return {"type": "text", "text": json.dumps(block, ensure_ascii=False)}
