"""Questions to people: votes, quorum, withdrawal. Approving lifts exactly the policies that asked, for one digest."""

from __future__ import annotations

import uuid
from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import F

from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, conflict, invalid, not_found
from controlplane.tenancy.services import principal_of_user
from controlplane.tenancy.types import Permission, Principal
from governance.announcing import action_changed, inbox_changed
from governance.bundles import forget
from governance.choices import ActionState, EscalationState, Verdict
from governance.gate import Overtaken, require_still
from governance.models import Action, Escalation, Vote
from governance.proposing import BundleChanged
from governance.rejudging import Again, look_again, write_again
from governance.transitions import close_unperformed

_ATTEMPTS: Final = 3
_LONGEST_REASON: Final = 500


def decide(*, approver: Principal, escalation_id: uuid.UUID, version: int, approve: bool, reason: str) -> Escalation:
    """One person's vote. The last one needed judges the action again with what it asked for approved, and settles it.

    `version` is the one the person saw. Raises 404, 403 `escalation.four_eyes`, 422 `reason.missing`, 409
    `escalation.changed | closed | expired | voted`: a vote that comes second changes nothing.
    """
    escalation = _decidable(approver, escalation_id)
    text = reason.strip()[:_LONGEST_REASON]
    if not approve and not text:
        raise invalid("reason.missing", "A refusal needs a reason.", FieldError("/reason", "a sentence"))
    _check_open(escalation, version)
    if not approve:
        _refuse(escalation, approver, version, text)
    elif not _quorum_with(escalation, approver):
        _approve_one(escalation, approver, version, text)
    else:
        _approve_last(escalation, approver, version, text)
    escalation.refresh_from_db()
    return escalation


def withdraw(*, actor: Principal, action_id: uuid.UUID, reason: str = "") -> Action:
    """Take back a waiting or permitted action: by who proposed it, or by a person who operates its mission."""
    visible = Action.objects.restrict(actor, Permission.ACTION_VIEW).filter(proposer_id=actor.id)
    operated = Action.objects.restrict(actor, Permission.MISSION_OPERATE)
    action = visible.filter(pk=action_id).first() or operated.filter(pk=action_id).first()
    if action is None:
        raise not_found("action")
    with transaction.atomic():
        if not withdraw_open(action, actor=actor, reason=reason.strip()[:_LONGEST_REASON]):
            raise conflict(
                "action.not_open",
                "This action is no longer waiting or permitted.",
                "Reload the page.",
                state=action.state,
            )
    return action


def withdraw_open(action: Action, *, actor: Principal, reason: str) -> bool:
    """Inside a transaction: whether the action was open and is withdrawn now, with its escalation, permit and hold."""
    source = ActionState(action.state)
    if source not in (ActionState.WAITING, ActionState.PERMITTED):
        return False
    close_escalation(action, to=EscalationState.WITHDRAWN, event=Event.ESCALATION_WITHDRAWN, actor=actor, reason=reason)
    return close_unperformed(
        action,
        source=source,
        to=ActionState.WITHDRAWN,
        actor=actor,
        event=Event.ACTION_WITHDRAWN,
        payload={"reason": reason, "digest": action.digest},
    )


def close_escalation(action: Action, *, to: EscalationState, event: Event, actor: Principal, reason: str) -> bool:
    """Inside a transaction: close the open escalation of an action, if it has one that is still open."""
    row = Escalation.objects.filter(action=action, state=EscalationState.OPEN).first()
    if row is None:
        return False
    closed = Escalation.objects.filter(pk=row.pk, state=EscalationState.OPEN).update(
        state=to, version=F("version") + 1, closed_at=now(), **({"reason": reason} if reason else {})
    )
    if closed:
        record(event=event, actor=actor, subject=subject_of_escalation(row), payload={"reason": reason})
        inbox_changed(action)
    return bool(closed)


def subject_of_escalation(escalation: Escalation) -> Subject:
    return Subject(
        "escalation",
        escalation.pk,
        escalation.title,
        team_id=escalation.team_id,
        mission_id=escalation.mission_id,
    )


def may_decide(approver: Principal, escalation: Escalation) -> bool:
    """Four eyes: neither who asked nor whom the question names as concerned."""
    user = approver.user_id
    return (
        approver.is_person
        and user is not None
        and user not in escalation.excluded_user_ids
        and user != escalation.action.proposer_id
    )


def _decidable(approver: Principal, escalation_id: uuid.UUID) -> Escalation:
    escalation = (
        Escalation.objects.restrict(approver, Permission.ESCALATION_DECIDE)
        .select_related("action")
        .filter(pk=escalation_id)
        .first()
    )
    if escalation is None:
        raise not_found("escalation")
    if not may_decide(approver, escalation):
        raise RemitError(
            "escalation.four_eyes",
            "Someone else has to decide this: you asked for it or are responsible for it.",
            403,
            remedies=("Ask another approver.",),
        )
    return escalation


def _check_open(escalation: Escalation, version: int) -> None:
    if escalation.state != EscalationState.OPEN:
        raise conflict(
            "escalation.closed",
            f"This was settled before you: {EscalationState(escalation.state).label.lower()}.",
            "Reload the page.",
            state=escalation.state,
            version=escalation.version,
        )
    if escalation.expires_at <= now():
        raise conflict("escalation.expired", "The time to decide this is over.", "The agent can ask again.")
    if escalation.version != version:
        raise conflict(
            "escalation.changed",
            "Someone voted since you loaded this.",
            "Look at it again, then decide.",
            version=escalation.version,
        )


def _quorum_with(escalation: Escalation, approver: Principal) -> bool:
    """Whether this approval is the last one needed. Votes of people who may no longer decide do not count."""
    votes = Vote.objects.filter(escalation=escalation, approve=True).select_related("user")
    standing = 0
    for vote in votes:
        person = principal_of_user(user=vote.user, organisation_id=escalation.organisation_id)
        if person and person.id != approver.id and person.has(Permission.ESCALATION_DECIDE, team_id=escalation.team_id):
            standing += 1
    return standing + 1 >= escalation.needed


def _refuse(escalation: Escalation, approver: Principal, version: int, reason: str) -> None:
    with transaction.atomic():
        _vote(escalation, approver, version, approve=False, reason=reason, to=EscalationState.DENIED)
        record(
            event=Event.ESCALATION_DENIED,
            actor=approver,
            subject=subject_of_escalation(escalation),
            payload={"reason": reason, "digest": escalation.action.digest},
        )
        action = escalation.action
        Action.objects.filter(pk=action.pk).update(
            verdict=Verdict.DENY,
            reason_code="escalation.denied",
            message=f"A person refused this: {reason}"[:500],
            remedies=[],
            decided_at=now(),
        )
        close_unperformed(
            action,
            source=ActionState.WAITING,
            to=ActionState.DENIED,
            actor=approver,
            event=Event.ACTION_DENIED,
            payload={"reason_code": "escalation.denied", "digest": action.digest},
        )


def _approve_one(escalation: Escalation, approver: Principal, version: int, reason: str) -> None:
    with transaction.atomic():
        _vote(escalation, approver, version, approve=True, reason=reason, to=EscalationState.OPEN)
        _record_approval(escalation, approver, reason)
        action_changed(escalation.action)


def _approve_last(escalation: Escalation, approver: Principal, version: int, reason: str) -> None:
    """The facts are read before the transaction; its conditional updates make sure that they are acted on only once."""
    action = escalation.action
    for _ in range(_ATTEMPTS):
        again = look_again(
            action, audience=_audience(action), approved={*_approved_before(escalation), *escalation.policies}
        )
        try:
            with transaction.atomic():
                # The mission first, then the question: a stop takes them in that order too.
                if again.prepared is not None and not again.ladder.denied:
                    require_still(again.prepared)
                _settle(escalation, approver, version, reason, again)
            return
        except Overtaken:
            forget(action.organisation_id)
            action.refresh_from_db()
    raise RemitError("policy.changing", "The policies are being changed just now.", 503, retry_after_seconds=1)


def _settle(escalation: Escalation, approver: Principal, version: int, reason: str, again: Again) -> None:
    allowed = again.ladder.verdict is Verdict.ALLOW
    to = EscalationState.APPROVED if allowed else EscalationState.SUPERSEDED
    _vote(escalation, approver, version, approve=True, reason=reason, to=to)
    _record_approval(escalation, approver, reason)
    if write_again(escalation.action, again, source=ActionState.WAITING, actor=approver) is None:
        raise conflict("escalation.closed", "The action is no longer waiting.", "Reload the page.")
    if allowed and again.ladder.verdict is not Verdict.ALLOW:
        raise BundleChanged  # the sequence rules objected under the lock: look again, and close it as superseded


def _vote(
    escalation: Escalation, approver: Principal, version: int, *, approve: bool, reason: str, to: EscalationState
) -> None:
    """The race is decided here: one UPDATE sees the version that was voted on, all others see none."""
    moment = now()
    won = Escalation.objects.filter(
        pk=escalation.pk, state=EscalationState.OPEN, version=version, expires_at__gt=moment
    ).update(
        version=F("version") + 1,
        state=to,
        **({"closed_at": moment} if to is not EscalationState.OPEN else {}),
    )
    if not won:
        escalation.refresh_from_db(fields=["state", "version", "expires_at"])
        _check_open(escalation, version)
        raise conflict("escalation.changed", "Someone was faster.", "Look at it again, then decide.")
    try:
        with transaction.atomic():
            Vote.objects.create(
                organisation_id=escalation.organisation_id,
                escalation=escalation,
                user_id=approver.id,
                approve=approve,
                reason=reason,
                digest=escalation.action.digest,
            )
    except IntegrityError as error:
        raise conflict("escalation.voted", "You have voted on this already.", "Wait for the others.") from error
    inbox_changed(escalation.action)


def _record_approval(escalation: Escalation, approver: Principal, reason: str) -> None:
    record(
        event=Event.ESCALATION_APPROVED,
        actor=approver,
        subject=subject_of_escalation(escalation),
        payload={"reason": reason, "digest": escalation.action.digest, "policies": list(escalation.policies)},
    )


def _approved_before(escalation: Escalation) -> list[str]:
    """What earlier approvals of the same action lifted, when it had to ask more than once."""
    return list(escalation.decision.approved_policies)


def _audience(action: Action) -> str:
    """Not part of the digest: it only says who will enforce the permit, and none is made here."""
    return "remit" if not action.tool else "api"
