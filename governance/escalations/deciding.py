"""One person's answer: who may give it, the quorum, the race. Approving lifts exactly the policies that asked, for one
digest."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import F

from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, conflict, invalid, not_found
from controlplane.tenancy.types import Permission, Principal
from governance.announcing import action_changed, inbox_changed
from governance.bundles import forget
from governance.choices import CHANGED_SINCE, REFUSED_BY_PERSON, ActionState, EscalationState, Verdict
from governance.escalations.closing import LONGEST_REASON, subject_of_escalation
from governance.escalations.electorate import Electorate, electorate_of
from governance.escalations.tiers import go_on
from governance.gate import Overtaken
from governance.models import Action, Escalation, Vote
from governance.rejudging import Again, lock_before_question, look_again, weigh_again, write_again
from governance.transitions import close_unperformed, lock_subject

_MOST_AT_ONCE: Final = 100
_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Result:
    """What came of one of many answers. `error` is empty where it was taken; `reason` says why an approval that counts
    settled nothing."""

    escalation_id: uuid.UUID
    title: str
    state: str
    error: RemitError | None = None
    reason: str = ""


def decide(*, approver: Principal, escalation_id: uuid.UUID, version: int, approve: bool, reason: str) -> Escalation:
    """One person's vote. The last one needed judges the action again with what it asked for approved, and settles it.

    `version` is the one the person saw. Raises 404, 403 `escalation.four_eyes | not_asked | seat_taken`, 422
    `reason.missing`, 409 `escalation.changed | closed | expired | voted | claimed`: a vote that comes second changes
    nothing.
    """
    escalation = decidable(approver, escalation_id)
    text = reason.strip()[:LONGEST_REASON]
    if not approve and not text:
        raise invalid("reason.missing", "A refusal needs a reason.", FieldError("/reason", "a sentence"))
    check_open(escalation, version)
    if not approve:
        _refuse(escalation, approver, version, text)
    else:
        check_claim(escalation, approver)
        if _count_with(escalation, approver) < escalation.needed:
            _approve_one(escalation, approver, version, text)
        else:
            _approve_last(escalation, approver, version, text)
    escalation.refresh_from_db()
    return escalation


def decide_many(
    *, approver: Principal, items: Sequence[tuple[uuid.UUID, int]], approve: bool, reason: str
) -> list[Result]:
    """The same answer to questions about the very same action: same agent, mission, run, tool and arguments, hence the
    same digest. Each is decided by itself and has its own result.

    Raises 422 `bulk.different` when one of them is another action, `bulk.size`, `reason.missing`; then nothing is
    decided.
    """
    wanted = dict(items)
    if not 1 <= len(wanted) <= _MOST_AT_ONCE or len(wanted) != len(items):
        raise invalid("bulk.size", f"Choose 1 to {_MOST_AT_ONCE} questions, each once.")
    rows = Escalation.objects.restrict(approver, Permission.ESCALATION_DECIDE).filter(pk__in=wanted)
    found = {row.pk: row for row in rows.select_related("action")}
    if len(found) != len(wanted):
        raise not_found("escalation")
    if len({row.action.digest for row in found.values()}) != 1:
        raise invalid(
            "bulk.different",
            "These are not the same: they differ in agent, mission, run, tool or arguments. Nothing was decided.",
            remedies=("Choose questions that are identical, or answer each by itself.",),
        )
    if not approve and not reason.strip():
        raise invalid("reason.missing", "A refusal needs a reason.", FieldError("/reason", "a sentence"))
    return [_one_of_many(approver, found[key], version, approve, reason) for key, version in items]


def _one_of_many(approver: Principal, row: Escalation, version: int, approve: bool, reason: str) -> Result:
    try:
        decided = decide(approver=approver, escalation_id=row.pk, version=version, approve=approve, reason=reason)
    except RemitError as error:
        return Result(row.pk, row.title, row.state, error)
    return Result(row.pk, row.title, decided.state, reason=decided.reason)


def decidable(approver: Principal, escalation_id: uuid.UUID) -> Escalation:
    """The question, if this person may answer it. Raises 404, 403 `escalation.four_eyes | not_asked | seat_taken`."""
    escalation = (
        Escalation.objects.restrict(approver, Permission.ESCALATION_DECIDE)
        .select_related("action", "group", "claimed_by")
        .filter(pk=escalation_id)
        .first()
    )
    if escalation is None:
        raise not_found("escalation")
    why = why_not_decide(approver, escalation, electorate_of(escalation), list(escalation.votes.all()))
    if why is not None:
        raise why
    return escalation


def why_not_decide(
    approver: Principal, escalation: Escalation, electorate: Electorate, votes: Sequence[Vote]
) -> RemitError | None:
    """Why this person, who holds the role, may not answer; None when they may. Reads nothing."""
    user_id = approver.user_id
    if not approver.is_person or user_id is None or user_id in electorate.excluded:
        return _four_eyes("you asked for it or are responsible for it")
    if user_id in electorate.delegates_of_excluded:
        return _four_eyes("you stand in for the person who asked or is responsible")
    if not electorate.seats_of(user_id):
        name = escalation.group.name if escalation.group else "another group"
        return RemitError(
            "escalation.not_asked",
            f"This asks “{name}”, and you are not in it.",
            403,
            remedies=("Ask somebody of that group, or an administrator to put you into it.",),
        )
    if electorate.seat_for(user_id, votes) is None:
        return RemitError(
            "escalation.seat_taken",
            "The person you stand in for has answered already, and nobody's answer counts twice.",
            403,
            remedies=("Ask another approver.",),
        )
    return None


def _four_eyes(why: str) -> RemitError:
    return RemitError(
        "escalation.four_eyes",
        f"Someone else has to decide this: {why}.",
        403,
        remedies=("Ask another approver.",),
    )


def check_open(escalation: Escalation, version: int) -> None:
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
            "This has changed since you loaded it: somebody answered, or others were asked.",
            "Look at it again, then decide.",
            version=escalation.version,
        )


def check_claim(escalation: Escalation, approver: Principal) -> None:
    """Somebody else's claim keeps others from approving until it ends; it never keeps anybody from refusing."""
    if escalation.claimed_by_id in (None, approver.user_id) or not is_claimed(escalation):
        return
    raise conflict(
        "escalation.claimed",
        f"{escalation.claimed_by} is at work on this.",
        "Wait until they are done, or take it over.",
        until=escalation.claimed_until.isoformat() if escalation.claimed_until else None,
    )


def is_claimed(escalation: Escalation) -> bool:
    return (
        escalation.state == EscalationState.OPEN
        and escalation.claimed_until is not None
        and escalation.claimed_until > now()
    )


def _count_with(escalation: Escalation, approver: Principal) -> int:
    """Approvals that count with this person's. Votes of people who may no longer decide do not."""
    votes = list(Vote.objects.filter(escalation=escalation, approve=True))
    return electorate_of(escalation).count_with(approver.id, votes)


def _refuse(escalation: Escalation, approver: Principal, version: int, reason: str) -> None:
    with transaction.atomic():
        lock_subject(escalation.action)
        vote = _vote(escalation, approver, version, approve=False, reason=reason, to=EscalationState.DENIED)
        record(
            event=Event.ESCALATION_DENIED,
            actor=approver,
            subject=subject_of_escalation(escalation),
            payload={"reason": reason, "digest": escalation.action.digest, **_stood_in(vote)},
        )
        action = escalation.action
        Action.objects.filter(pk=action.pk).update(
            verdict=Verdict.DENY,
            reason_code=REFUSED_BY_PERSON,
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
            payload={"reason_code": REFUSED_BY_PERSON, "digest": action.digest},
        )


def _approve_one(escalation: Escalation, approver: Principal, version: int, reason: str) -> None:
    with transaction.atomic():
        vote = _vote(escalation, approver, version, approve=True, reason=reason, to=EscalationState.OPEN)
        _record_approval(escalation, approver, vote)
        if electorate_of(escalation).reachable(list(escalation.votes.all())) < escalation.needed:
            go_on(escalation, reason="too few are left to answer")
        action_changed(escalation.action)


def _approve_last(escalation: Escalation, approver: Principal, version: int, reason: str) -> None:
    """The facts are read before the transaction; its conditional updates make sure that they are acted on only once."""
    action, before = escalation.action, escalation.decision
    for _ in range(_ATTEMPTS):
        again = look_again(
            action,
            audience=_audience(action),
            approved={*before.approved_policies, *escalation.policies},
            judged=before.judged_policies,
        )
        try:
            with transaction.atomic():
                lock_before_question(action, again)
                _settle(escalation, approver, version, reason, again)
            return
        except Overtaken:
            forget(action.organisation_id)
            action.refresh_from_db()
    raise RemitError("policy.changing", "The policies are being changed just now.", 503, retry_after_seconds=1)


def _settle(escalation: Escalation, approver: Principal, version: int, reason: str, again: Again) -> None:
    vote = _vote(escalation, approver, version, approve=True, reason=reason, to=EscalationState.OPEN)
    _record_approval(escalation, approver, vote)
    if _count_with(escalation, approver) < escalation.needed:
        raise conflict(
            "escalation.changed", "Somebody who approved may no longer decide.", "Look at it again, then decide."
        )
    # What the run did meanwhile, and a judge that was not asked before, may object to what was approved.
    allowed = weigh_again(escalation.action, again) is Verdict.ALLOW
    to = EscalationState.APPROVED if allowed else EscalationState.SUPERSEDED
    why = {} if allowed else {"reason": _why_not_settled(again)}
    Escalation.objects.filter(pk=escalation.pk).update(state=to, closed_at=now(), **why)
    if write_again(escalation.action, again, source=ActionState.WAITING, actor=approver) is None:
        raise conflict("escalation.closed", "The action is no longer waiting.", "Reload the page.")


def _why_not_settled(again: Again) -> str:
    """What ended a question whose approvals permitted nothing."""
    finding = again.ladder.finding
    if finding.verdict is Verdict.ESCALATE:
        return "Another rule asks as well by now, so it waits as a new question."
    said = finding.message.removeprefix("Not sent. ")
    return (said if finding.reason_code == CHANGED_SINCE else f"It is refused by now: {said}")[:LONGEST_REASON]


def _vote(
    escalation: Escalation, approver: Principal, version: int, *, approve: bool, reason: str, to: EscalationState
) -> Vote:
    """The race is decided here: one UPDATE sees the version that was voted on, all others see none."""
    moment = now()
    won = Escalation.objects.filter(
        pk=escalation.pk, state=EscalationState.OPEN, version=version, expires_at__gt=moment
    ).update(
        version=F("version") + 1,
        state=to,
        claimed_by=None,
        claimed_until=None,
        **({"closed_at": moment} if to is not EscalationState.OPEN else {}),
    )
    if not won:
        escalation.refresh_from_db(fields=["state", "version", "expires_at"])
        check_open(escalation, version)
        raise conflict("escalation.changed", "Someone was faster.", "Look at it again, then decide.")
    try:
        with transaction.atomic():
            vote = cast_vote(escalation, approver, approve=approve, reason=reason, digest=escalation.action.digest)
    except IntegrityError as error:
        raise conflict("escalation.voted", "You have voted on this already.", "Wait for the others.") from error
    inbox_changed(escalation.action)
    return vote


def cast_vote(escalation: Escalation, approver: Principal, *, approve: bool, reason: str, digest: str) -> Vote:
    seat = electorate_of(escalation).seat_for(approver.id, list(escalation.votes.all()))
    return Vote.objects.create(
        organisation_id=escalation.organisation_id,
        escalation=escalation,
        user_id=approver.id,
        approve=approve,
        reason=reason,
        digest=digest,
        for_user_id=seat if seat != approver.id else None,
    )


def _record_approval(escalation: Escalation, approver: Principal, vote: Vote) -> None:
    record(
        event=Event.ESCALATION_APPROVED,
        actor=approver,
        subject=subject_of_escalation(escalation),
        payload={
            "reason": vote.reason,
            "digest": escalation.action.digest,
            "policies": list(escalation.policies),
            **_stood_in(vote),
        },
    )


def _stood_in(vote: Vote) -> dict[str, str]:
    """Whose say it was, where it was not one's own."""
    return {"stood_in_for": vote.for_user.name} if vote.for_user else {}


def _audience(action: Action) -> str:
    """Not part of the digest: it only says who will enforce the permit, and none is made here."""
    return "remit" if not action.tool else "api"
