"""The rows of one decision as one JSON document, and the two database calls that take them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from controlplane.audit.services import Subject
from controlplane.common.statements import planned
from governance.choices import ActionState, EscalationState, Verdict
from governance.escalations.ways import Way
from governance.gate import Ladder
from governance.models import Action
from governance.types import Stage, Statement

Row = dict[str, Any]

STATE_OF: Final[Mapping[Verdict, ActionState]] = {
    Verdict.ALLOW: ActionState.PERMITTED,
    Verdict.ESCALATE: ActionState.WAITING,
    Verdict.DENY: ActionState.DENIED,
}


def commit(*, entries: list[Row], still: Statement | None = None, **rows: Row | None) -> str:
    """Write action, decision, permit or escalation, entries: 'done', 'repeated', 'bundle_changed', or 'overtaken' when
    it is not `still` so. In a transaction."""
    document = _encode({"entries": entries, **{name: row for name, row in rows.items() if row is not None}})
    if still is None:
        return _ask(_COMMIT, document)
    said = _ask_for(f"{_COMMIT} FROM ({still.sql}) AS still", document, *still.parameters)
    return "overtaken" if said is None else str(said)


def consume(
    *,
    action_id: uuid.UUID,
    holder_id: uuid.UUID,
    audience: str,
    digest: str,
    nonce_sha256: str | None,
    bundle_sha256: str,
    moment: datetime,
    entry: Row,
) -> bool:
    """Use the live permit and start the action; False when there is none that fits. Needs a transaction."""
    answer = _ask(
        "SELECT governance_consume(%s, %s, %s, %s, %s, %s, %s, %s::jsonb)",
        *(action_id, holder_id, audience, digest, nonce_sha256, bundle_sha256, moment),
        _encode(entry),
    )
    return answer == "consumed"


def locking(action_id: uuid.UUID, *, state: ActionState) -> Statement:
    """Gives the action's hold when it is in that state; if so it stays there until the transaction ends it."""
    sql = "SELECT hold_id FROM governance_action WHERE id = %s AND state = %s FOR UPDATE"
    return Statement(sql, (action_id, state))


def lock(action_id: uuid.UUID, *, state: ActionState) -> bool:
    """Whether the action is in that state; if so it stays there until this transaction ends it."""
    statement = locking(action_id, state=state)
    return bool(planned(statement.sql, statement.parameters))


def ending(action: Action, entry: Row, *, also: Statement | None = None) -> Statement:
    """Writes how a locked action ended, from the instance, and the entry that tells it, with `also` in one go."""
    parameters = (
        *(action.pk, action.state, action.ended_at),
        *(_encode(action.effects), _encode(action.outcome), action.cost, _encode(entry)),
    )
    if also is None:
        return Statement(_END, parameters)
    return Statement(f"{_END} FROM ({also.sql}) AS also", (*parameters, *also.parameters))


def end(action: Action, entry: Row, *, also: Statement | None = None) -> None:
    statement = ending(action, entry, also=also)
    _ask(statement.sql, *statement.parameters)


def decision_row(
    ladder: Ladder,
    *,
    action_id: uuid.UUID,
    organisation_id: uuid.UUID,
    digest: str,
    decision_id: uuid.UUID,
    at: datetime,
) -> Row:
    finding = ladder.finding
    return {
        "id": decision_id,
        "organisation_id": organisation_id,
        "action_id": action_id,
        "verdict": finding.verdict.value,
        "reason_code": finding.reason_code[:80],
        "message": finding.message[:500],
        "digest": digest,
        "stages": [_stage(stage) for stage in ladder.stages],
        "approved_policies": sorted(ladder.approved),
        "judged_policies": sorted(ladder.judged),
        "bundle_sha256": ladder.bundle_sha256,
        "duration_microseconds": ladder.microseconds,
        "created_at": at,
    }


def permit_row(
    *,
    permit_id: uuid.UUID,
    decision: Row,
    audience: str,
    holder_id: uuid.UUID,
    nonce_sha256: str,
    expires_at: datetime,
) -> Row:
    return {
        "id": permit_id,
        "organisation_id": decision["organisation_id"],
        "action_id": decision["action_id"],
        "decision_id": decision["id"],
        "digest": decision["digest"],
        "audience": audience,
        "holder_id": holder_id,
        "nonce_sha256": nonce_sha256,
        "created_at": decision["created_at"],
        "expires_at": expires_at,
    }


def escalation_row(
    *,
    escalation_id: uuid.UUID,
    action: Action,
    decision: Row,
    policies: list[str],
    excluded_user_ids: list[uuid.UUID],
    way: Way,
) -> Row:
    return {
        "id": escalation_id,
        "organisation_id": action.organisation_id,
        "team_id": action.team_id,
        "action_id": action.pk,
        "decision_id": decision["id"],
        "kind": action.kind,
        "title": action.title,
        "mission_id": action.mission_id,
        "agent_id": action.agent_id,
        "policies": policies,
        "excluded_user_ids": excluded_user_ids,
        "needed": way.needed,
        "amount": way.amount,
        "irreversible": way.irreversible,
        "route_id": way.route_id,
        "route_name": way.route_name,
        "group_id": way.group_id,
        "next_group_id": way.next_group_id,
        "tier": 1,
        "tier_ends_at": way.tier_ends_at(decision["created_at"]),
        "told_tier": 0,
        "state": EscalationState.OPEN.value,
        "version": 1,
        "opened_at": decision["created_at"],
        "expires_at": way.deadline(decision["created_at"]),
        "reason": decision["message"],
    }


def action_row(action: Action) -> Row:
    row = {name: getattr(action, name) for name in _ACTION_COLUMNS}
    row["signature"] = "\\x" + bytes(action.signature).hex()
    return row


def subject_of(action: Action) -> Subject:
    return Subject("action", action.pk, action.title, team_id=action.team_id, mission_id=action.mission_id)


_COMMIT: Final = "SELECT governance_commit(%s::jsonb)"
_END: Final = "SELECT governance_end(%s, %s, %s, %s::jsonb, %s::jsonb, %s, %s::jsonb)"
_ACTION_COLUMNS: Final = tuple(field.attname for field in Action._meta.concrete_fields)


def _encode(value: Any) -> str:
    return _ENCODER.encode(value).decode()


def _ask(statement: str, *parameters: object) -> str:
    value = _ask_for(statement, *parameters)
    if value is None:
        raise RuntimeError("a function that returns one value returned none")
    return str(value)


def _ask_for(statement: str, *parameters: object) -> Any:
    """One value of one statement, None for no row."""
    rows = planned(statement, parameters)
    return rows[0][0] if rows else None


_ENCODER: Final = msgspec.json.Encoder()


def _stage(stage: Stage) -> Row:
    return {
        "name": stage.name,
        "verdict": stage.verdict.value if stage.verdict else None,
        "saw": stage.saw,
        "said": stage.said,
        "microseconds": stage.microseconds,
        "policies": list(stage.policies),
        "reason_code": stage.reason_code,
        **({"details": dict(stage.details)} if stage.details else {}),
    }
