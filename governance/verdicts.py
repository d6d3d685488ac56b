"""What a verdict writes, when an action is judged first and again: the action as judged, its question to people, its
entries in the trail."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from controlplane.audit import services as audit
from controlplane.audit.events import Event
from controlplane.common.ids import new_id
from controlplane.common.observability import trace_id
from controlplane.tenancy.types import Principal
from governance import rows
from governance.choices import Verdict
from governance.escalations.ways import way_of
from governance.gate import Ladder
from governance.models import Action
from governance.types import EscalationRef, Prepared, Proposal

EVENT_OF: Final = {
    Verdict.ALLOW: Event.ACTION_ALLOWED,
    Verdict.ESCALATE: Event.ACTION_ESCALATED,
    Verdict.DENY: Event.ACTION_DENIED,
}
ESCALATION_REMEDIES: Final = ("Go on with other work and ask for the state of this action later.",)


def new_action(
    proposer: Principal,
    proposal: Proposal,
    prepared: Prepared,
    envelope: rows.Row,
    digest: str,
    request_sha256: str,
) -> Action:
    budget = prepared.budget
    return Action(
        id=new_id(),
        organisation_id=proposer.organisation_id,
        team_id=prepared.team_id,
        kind=proposal.kind,
        tool=proposal.tool,
        arguments=proposal.arguments,
        envelope=envelope,
        digest=digest,
        justification=proposal.justification,
        title=prepared.title[:200],
        proposer_kind=proposer.kind.value,
        proposer_id=proposer.id,
        proposer_name=proposer.name[:120],
        agent_id=prepared.agent_id,
        mission_id=prepared.mission_id,
        mission_version=prepared.mission_version,
        run_id=prepared.run_id,
        subject_type=prepared.subject_type,
        subject_id=prepared.subject_id,
        idempotency_key=proposal.idempotency_key,
        request_sha256=request_sha256,
        account_id=budget.account_id if budget else None,
        signature=budget.signature if budget else b"",
        price=budget.money if budget else 0,
        currency=budget.currency if budget else prepared.currency,
        effects=list(prepared.effects),
        trace_id=trace_id(),
    )


def judged(action: Action, ladder: Ladder, moment: datetime) -> None:
    finding = ladder.finding
    action.state = rows.STATE_OF[finding.verdict]
    action.verdict = finding.verdict
    action.reason_code = finding.reason_code[:80]
    action.message = finding.message[:500]
    action.remedies = remedies_of(ladder)
    action.created_at = moment
    action.decided_at = None if waits_for_people(ladder) else moment
    action.ended_at = moment if ladder.denied else None
    action.executing_at = None  # written again after a hold that was not given: it did not start


def remedies_of(ladder: Ladder) -> list[str]:
    given = ladder.finding.remedies or (ESCALATION_REMEDIES if waits_for_people(ladder) else ())
    return [remedy[:300] for remedy in given]


def waits_for_people(ladder: Ladder) -> bool:
    return ladder.verdict is Verdict.ESCALATE


def open_escalation(
    action: Action, ladder: Ladder, prepared: Prepared, decision: rows.Row
) -> tuple[rows.Row, EscalationRef]:
    """The row of a new question to people, and how to refer to it."""
    row = rows.escalation_row(
        escalation_id=new_id(),
        action=action,
        decision=decision,
        policies=list(ladder.escalating),
        excluded_user_ids=list(prepared.excluded_user_ids),
        way=way_of(action, prepared),
    )
    return row, EscalationRef(row["id"], row["expires_at"])


def decided_entry(action: Action, actor: Principal, decision: rows.Row, **also: object) -> rows.Row:
    """The audit entry of a decision: what it was about by digest, never the arguments themselves. `also`: more facts of
    it."""
    return audit.row(
        event=EVENT_OF[Verdict(decision["verdict"])],
        actor=actor,
        subject=rows.subject_of(action),
        payload={
            "kind": action.kind,
            "tool": action.tool,
            "digest": action.digest,
            "decision": str(decision["id"]),
            "reason_code": decision["reason_code"],
            "bundle": decision["bundle_sha256"],
            "approved": decision["approved_policies"],
            **also,
        },
    )


def started_entry(actor: Principal, action: Action) -> rows.Row:
    """The audit entry of a permit that was used."""
    return audit.row(
        event=Event.PERMIT_CONSUMED,
        actor=actor,
        subject=rows.subject_of(action),
        payload={"digest": action.digest, "tool": action.tool},
    )
