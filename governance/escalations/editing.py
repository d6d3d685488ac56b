"""Edit-and-approve: the edited action is another action of the same agent, which replaces the first and is judged as
any other. Votes on the first don't count for it; the editor's is the first vote on the new question, or, where nobody
has to be asked any more, their answer to the first."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import transaction
from django.db.models import F

from controlplane.audit.events import Event
from controlplane.common.canonical import canonical_bytes
from controlplane.common.clock import now
from controlplane.common.errors import RemitError, conflict, invalid
from controlplane.common.ids import new_id
from controlplane.tenancy.types import Principal
from governance import gate, rows
from governance.announcing import action_changed, inbox_changed
from governance.bundles import bundle_in_force, forget
from governance.choices import ActionState, EscalationState, Verdict
from governance.escalations import differences
from governance.escalations.closing import LONGEST_REASON
from governance.escalations.deciding import cast_vote, check_claim, check_open, decidable, decide
from governance.escalations.differences import Change
from governance.escalations.ways import Way, way_of
from governance.gate import Ladder
from governance.intake import check_proposal, digest_of_envelope, envelope_of
from governance.models import Action, Escalation
from governance.registry import kind_of
from governance.rejudging import proposer_of
from governance.transitions import APPROVED_TTL_SECONDS, close_unperformed, perform_at_once
from governance.types import Finding, Prepared, Proposal
from governance.verdicts import decided_entry as entry_of
from governance.verdicts import judged, new_action, open_escalation

REPLACED: Final = "action.replaced"
_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class EditPreview:
    """What the rules would say of the edited action. Nothing is written, held or counted, and no judge is asked:
    budget, history and judge can still refuse the real thing."""

    finding: Finding
    changes: Sequence[Change]
    way: Way
    judge_is_asked: bool

    @property
    def allowed(self) -> bool:
        return self.finding.verdict is not Verdict.DENY


@dataclass(frozen=True)
class Edited:
    """`escalation` is the new question, None when the edited action needed none; `held_up` says why the editor's own
    approval did not count for it."""

    action: Action
    changes: Sequence[Change]
    escalation: Escalation | None = None
    held_up: RemitError | None = None


@dataclass(frozen=True)
class _Looked:
    proposer: Principal
    proposal: Proposal
    prepared: Prepared
    ladder: Ladder
    envelope: rows.Row
    digest: str


def preview_edit(*, approver: Principal, escalation_id: uuid.UUID, arguments: Mapping[str, Any]) -> EditPreview:
    """Raises 404 and 403 as `decide`, 409 `edit.not_possible`, 422 `edit.nothing_changed` or what makes it no proposal
    at all."""
    action = _editable(decidable(approver, escalation_id))
    looked = _look(action, arguments)
    return EditPreview(
        finding=looked.ladder.finding,
        changes=differences.changes(action.arguments, arguments),
        way=way_of(_built(looked, action), looked.prepared),
        judge_is_asked=bool(looked.ladder.judging),
    )


def edit_and_approve(
    *, approver: Principal, escalation_id: uuid.UUID, version: int, arguments: Mapping[str, Any], reason: str = ""
) -> Edited:
    """Put the edited action in place of the waiting one and approve it. Raises as `preview_edit` and `decide`, and 422
    `edit.refused` when the gate refuses the edited action: then nothing has changed."""
    escalation = decidable(approver, escalation_id)
    check_open(escalation, version)
    check_claim(escalation, approver)
    action = _editable(escalation)
    found = differences.changes(action.arguments, arguments)
    for _ in range(_ATTEMPTS):
        try:
            looked = _look(action, arguments)
            _refuse_denied(looked.ladder)
            gate.consult(looked.ladder, prepared=looked.prepared, organisation_id=action.organisation_id)
            _refuse_denied(looked.ladder)
            with transaction.atomic():
                made, question = _replace(approver, escalation, version, looked, found)
                if question is None:
                    _answer_first(approver, escalation, made, reason)
            break
        except gate.HoldNotGiven as error:
            raise _refused(error.refused.message, error.refused.reason_code, error.refused.remedies) from error
        except gate.Overtaken:
            forget(action.organisation_id)
    else:
        raise RemitError("policy.changing", "The policies are being changed just now.", 503, retry_after_seconds=1)
    gate.emit_spans(looked.ladder)
    if question is None:
        return Edited(made, found)
    # Of its own: if this does not happen, the new question stands open and waits for the editor as for anybody.
    try:
        settled = decide(
            approver=approver, escalation_id=question, version=1, approve=True, reason=reason[:LONGEST_REASON]
        )
    except RemitError as error:
        return Edited(made, found, Escalation.objects.get(pk=question), error)
    made.refresh_from_db()
    return Edited(made, found, settled)


def _editable(escalation: Escalation) -> Action:
    action = escalation.action
    if not action.by_agent or not action.arguments:
        raise conflict(
            "edit.not_possible",
            "Only what an agent asked for can be edited.",
            "Refuse it, and say what you would agree to.",
        )
    return action


def _look(action: Action, arguments: Mapping[str, Any]) -> _Looked:
    """Intake, guards and policy for the edited action, as for any other. Reads only."""
    proposer = proposer_of(action)
    if proposer is None:
        raise conflict("proposer.gone", "Who asked for this is no longer here.", "Refuse it.")
    proposal = Proposal(
        kind=action.kind,
        tool=action.tool,
        arguments=dict(arguments),
        justification=action.justification,
        audience="mcp" if action.tool else "remit",
        action_id=action.pk,  # the replaced one does not count against it
    )
    check_proposal(proposer=proposer, proposal=proposal)
    if canonical_bytes(dict(arguments)) == canonical_bytes(action.arguments):
        raise invalid("edit.nothing_changed", "Nothing is different. Approve it as it is, or change something.")
    kind = kind_of(action.kind)
    prepared = kind.prepare(proposer=proposer, proposal=proposal)
    envelope = envelope_of(proposer=proposer, proposal=proposal, prepared=prepared)
    digest = digest_of_envelope(envelope)
    ladder = Ladder()
    ladder.rung(
        "intake",
        since_ns=ladder.started_ns,
        saw=f"{action.kind} by {proposer.name}, edited by a person.",
        said=f"Digest {digest[7:19]}.",
    )
    gate.examine(ladder, kind=kind, prepared=prepared, bundle=bundle_in_force(action.organisation_id))
    return _Looked(proposer, proposal, prepared, ladder, envelope, digest)


def _built(looked: _Looked, replaced: Action) -> Action:
    made = new_action(
        looked.proposer, looked.proposal, looked.prepared, looked.envelope, looked.digest, request_sha256=""
    )
    made.replaces_id = replaced.pk
    return made


def _replace(
    approver: Principal, escalation: Escalation, version: int, looked: _Looked, found: Sequence[Change]
) -> tuple[Action, uuid.UUID | None]:
    """Inside a transaction: the first question is superseded, its action withdrawn, and the edited one written."""
    moment, first, ladder = now(), escalation.action, looked.ladder
    gate.require_still(looked.prepared)  # the mission first, then the question: a stop takes them in that order too
    won = Escalation.objects.filter(
        pk=escalation.pk, state=EscalationState.OPEN, version=version, expires_at__gt=moment
    ).update(
        state=EscalationState.SUPERSEDED,
        version=F("version") + 1,
        closed_at=moment,
        claimed_by=None,
        claimed_until=None,
        reason=f"{approver.name} changed it: {differences.in_words(found)}"[:500],
    )
    if not won:
        escalation.refresh_from_db(fields=["state", "version", "expires_at"])
        check_open(escalation, version)
        raise conflict("escalation.changed", "Someone was faster.", "Look at it again, then decide.")
    made = _built(looked, first)
    gate.await_earlier(looked.prepared)  # after the question, as an answer to it does, and before any budget
    _withdraw_first(approver, first, made, found)
    gate.sequence_and_judge(ladder, prepared=looked.prepared, organisation_id=made.organisation_id, action_id=made.pk)
    made.hold_id = gate.plan_hold(ladder, prepared=looked.prepared)
    _refuse_denied(ladder)
    judged(made, ladder, moment)
    decision = rows.decision_row(
        ladder,
        action_id=made.pk,
        organisation_id=made.organisation_id,
        digest=made.digest,
        decision_id=new_id(),
        at=moment,
    )
    asks = ladder.verdict is Verdict.ESCALATE
    question, reference = open_escalation(made, ladder, looked.prepared, decision) if asks else (None, None)
    written = rows.commit(
        action=rows.action_row(made),
        decision=decision,
        escalation=question,
        entries=[entry_of(made, looked.proposer, decision)],
    )
    if written != "done":
        raise gate.Overtaken
    if made.hold_id is not None:
        lasts = (reference.expires_at - moment).total_seconds() if reference else APPROVED_TTL_SECONDS
        gate.reserve(
            hold_id=made.hold_id,
            action_id=made.pk,
            prepared=looked.prepared,
            organisation_id=made.organisation_id,
            ttl_seconds=round(lasts) + 30,
            dispatched=False,
        )
    if asks:
        kind_of(made.kind).on_decided(action_id=made.pk, state=ActionState.WAITING, actor=approver)
    else:
        perform_at_once(made, actor=approver)
    action_changed(made)
    inbox_changed(made)
    return made, reference.id if reference else None


def _answer_first(approver: Principal, escalation: Escalation, made: Action, reason: str) -> None:
    """The editor's answer to the question that their edit ended, unless they had given one before: what they agreed to
    is the edited action."""
    if not escalation.votes.filter(user_id=approver.id).exists():
        cast_vote(escalation, approver, approve=True, reason=reason[:LONGEST_REASON], digest=made.digest)


def _withdraw_first(approver: Principal, first: Action, made: Action, found: Sequence[Change]) -> None:
    words = differences.in_words(found)
    Action.objects.filter(pk=first.pk, state=ActionState.WAITING).update(
        reason_code=REPLACED,
        message=f"A person changed this before agreeing to it: {words}"[:500],
        remedies=[
            f"Ask about the action {made.pk}, which stands in its place.",
            "Once that is permitted, make your call again: what was approved is carried out.",
        ],
        decided_at=now(),
    )
    closed = close_unperformed(
        first,
        source=ActionState.WAITING,
        to=ActionState.WITHDRAWN,
        actor=approver,
        event=Event.ACTION_EDITED,
        payload={
            "changed": differences.in_words(found),
            "digest": first.digest,
            "replaced_by": str(made.pk),
            "new_digest": made.digest,
        },
    )
    if not closed:
        raise conflict("escalation.closed", "The action is no longer waiting.", "Reload the page.")


def _refuse_denied(ladder: Ladder) -> None:
    if ladder.denied:
        raise _refused(ladder.finding.message, ladder.finding.reason_code, ladder.finding.remedies)


def _refused(message: str, reason_code: str, remedies: Sequence[str]) -> RemitError:
    return RemitError(
        "edit.refused",
        f"The gate refuses it as edited: {message}",
        422,
        remedies=tuple(remedies),
        data={"reason_code": reason_code},
    )
