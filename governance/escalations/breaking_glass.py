"""Break-glass: in an emergency one administrator passes over a question. It lifts what people were asked and nothing
else, for minutes, loudly, and another person must say afterwards whether it was right."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.db.models import F, Subquery

from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, conflict, forbidden, invalid, not_found
from controlplane.tenancy.types import Permission, Principal
from governance.announcing import glass_changed, inbox_changed, question_stands
from governance.approval_models import BreakGlass
from governance.bundles import forget
from governance.choices import GLASS_NOT_JUSTIFIED, ActionState, EscalationState, ReviewVerdict, Verdict
from governance.escalations.closing import LONGEST_REASON, subject_of_escalation
from governance.escalations.deciding import check_open
from governance.escalations.electorate import electorate_of
from governance.escalations.telling import tell_review
from governance.gate import Overtaken
from governance.models import Action, Escalation
from governance.rejudging import Again, lock_before_question, look_again, weigh_again, write_again
from governance.transitions import close_unperformed, live_permits

LONGEST_SECONDS: Final = 15 * 60
SHORTEST_REASON: Final = 15
_TOO_CLOSE: Final = "You asked for this, are responsible for it, or stand in for somebody who did or is"
_ATTEMPTS: Final = 4


def break_glass(
    *, actor: Principal, escalation_id: uuid.UUID, version: int, reason: str, seconds: int = LONGEST_SECONDS
) -> BreakGlass:
    """Permit one waiting action without its quorum, its group or its claim. Every hard rule is asked again and stands.

    Needs the permission `escalation.break_glass`. Who asked or is responsible, and who stands in for them, may not.
    Raises 404, 403, 409 as `decide` or `break_glass.refused`, 422 `reason.missing`.
    """
    escalation = _question(actor, escalation_id)
    text = reason.strip()[:LONGEST_REASON]
    if len(text) < SHORTEST_REASON:
        raise invalid(
            "reason.missing",
            "Say what the emergency is: somebody reviews this.",
            FieldError("/reason", f"at least {SHORTEST_REASON} characters"),
        )
    check_open(escalation, version)
    action, before = escalation.action, escalation.decision
    lifted = {*before.approved_policies, *escalation.policies}
    for _ in range(_ATTEMPTS):
        again = look_again(
            action,
            audience="api" if action.tool else "remit",
            approved=lifted,
            judged=before.judged_policies,
        )
        lifted |= set(again.ladder.escalating)
        try:
            with transaction.atomic():
                return _pass_over(actor, escalation, version, text, again, min(max(seconds, 60), LONGEST_SECONDS))
        except _AsksMore as more:
            lifted |= more.policies
        except Overtaken:
            forget(action.organisation_id)
        action.refresh_from_db()
    raise RemitError("policy.changing", "The policies are being changed just now.", 503, retry_after_seconds=1)


def review_break_glass(
    *, reviewer: Principal, break_glass_id: uuid.UUID, verdict: ReviewVerdict, note: str
) -> BreakGlass:
    """What somebody else says of it, once: neither who broke it nor who was too close to the question to answer it.
    What was not justified and has not been used yet is withdrawn.

    Raises 404, 403 `break_glass.own` or `escalation.four_eyes`, 422 `note.missing`, 409 `break_glass.reviewed`.
    """
    rows = BreakGlass.objects.restrict(reviewer, Permission.ESCALATION_DECIDE)
    rows = rows.select_related("escalation__action", "by")
    found = rows.filter(pk=break_glass_id).first()
    if found is None or not reviewer.is_person:
        raise not_found("break-glass")
    if found.by_id == reviewer.user_id:
        raise RemitError(
            "break_glass.own", "You broke this glass, so somebody else reviews it.", 403, remedies=("Ask them.",)
        )
    if electorate_of(found.escalation).too_close(reviewer.id):
        raise RemitError(
            "escalation.four_eyes",
            f"{_TOO_CLOSE}, so somebody else reviews it.",
            403,
            remedies=("Ask another approver or administrator.",),
        )
    text = note.strip()[:LONGEST_REASON]
    if not text:
        raise invalid("note.missing", "Say why you see it so.", FieldError("/note", "a sentence"))
    with transaction.atomic():
        won = BreakGlass.objects.filter(pk=found.pk, reviewed_at__isnull=True).update(
            reviewed_by_id=reviewer.user_id, reviewed_at=now(), verdict=verdict, note=text
        )
        if not won:
            raise conflict("break_glass.reviewed", "Somebody else reviewed it before you.", "Reload the page.")
        record(
            event=Event.BREAK_GLASS_REVIEWED,
            actor=reviewer,
            subject=subject_of_escalation(found.escalation),
            payload={"verdict": verdict.label.lower(), "note": text, "break_glass": str(found.pk)},
        )
        if verdict is ReviewVerdict.NOT_JUSTIFIED:
            _withdraw_unused(found.escalation, reviewer)
        tell_review(found, verdict)
        inbox_changed(found.escalation.action)
        glass_changed(found.escalation.action)
    found.refresh_from_db()
    return found


def _withdraw_unused(passed_over: Escalation, reviewer: Principal) -> None:
    """Only what this glass let through: a later question about the same action was answered for itself."""
    action = passed_over.action
    if Escalation.objects.filter(action=action, pk__gt=passed_over.pk).exists():
        return
    # The permit is locked before the action, as in `redeem`: whoever comes second finds it consumed or voided.
    list(live_permits().select_for_update().filter(action_id=action.pk))
    reason = f"{reviewer.name} reviewed the broken glass that permitted this: not justified."
    Action.objects.filter(pk=action.pk, state=ActionState.PERMITTED).update(
        reason_code=GLASS_NOT_JUSTIFIED, message=reason[:500], remedies=["Ask again; people decide it."]
    )
    close_unperformed(
        action,
        source=ActionState.PERMITTED,
        to=ActionState.WITHDRAWN,
        actor=reviewer,
        event=Event.ACTION_WITHDRAWN,
        payload={"reason": reason, "digest": action.digest},
    )


class _AsksMore(Exception):
    """The sequence rules asked under their lock: those are lifted too, in another pass."""

    def __init__(self, policies: set[str]) -> None:
        super().__init__()
        self.policies = policies


def _question(actor: Principal, escalation_id: uuid.UUID) -> Escalation:
    visible = Escalation.objects.restrict(actor, Permission.ESCALATION_VIEW)
    escalation = visible.select_related("action", "decision").filter(pk=escalation_id).first()
    if escalation is None:
        raise not_found("escalation")
    if not actor.is_person or not actor.has(Permission.ESCALATION_BREAK_GLASS, team_id=escalation.team_id):
        raise forbidden(Permission.ESCALATION_BREAK_GLASS.value)
    if electorate_of(escalation).too_close(actor.id):
        raise RemitError(
            "escalation.four_eyes",
            f"{_TOO_CLOSE}: not even in an emergency.",
            403,
            remedies=("Ask another administrator.",),
        )
    return escalation


def _pass_over(
    actor: Principal, escalation: Escalation, version: int, reason: str, again: Again, seconds: int
) -> BreakGlass:
    moment, action = now(), escalation.action
    lock_before_question(action, again)
    won = Escalation.objects.filter(
        pk=escalation.pk, state=EscalationState.OPEN, version=version, expires_at__gt=moment
    ).update(
        state=EscalationState.APPROVED,
        version=F("version") + 1,
        closed_at=moment,
        claimed_by=None,
        claimed_until=None,
        reason=f"Break-glass by {actor.name}: {reason}"[:500],
    )
    if not won:
        escalation.refresh_from_db()
        check_open(escalation, version)
    weigh_again(action, again)
    if not won or write_again(action, again, source=ActionState.WAITING, actor=actor, glass_broken=True) is None:
        raise conflict("escalation.closed", "The action is no longer waiting.", "Reload the page.")
    ladder = again.ladder
    if ladder.verdict is Verdict.ESCALATE:
        raise _AsksMore(set(ladder.escalating))
    if ladder.denied:
        raise conflict(
            "break_glass.refused",
            f"This is refused whoever agrees: {ladder.finding.message}",
            *ladder.finding.remedies,
            reason_code=ladder.finding.reason_code,
        )
    made = BreakGlass.objects.create(
        organisation_id=action.organisation_id,
        team_id=action.team_id,
        action=action,
        escalation=escalation,
        by_id=actor.id,
        reason=reason,
        policies=sorted(ladder.approved),
        at=moment,
        usable_until=moment + timedelta(seconds=seconds),
    )
    record(
        event=Event.BREAK_GLASS_USED,
        actor=actor,
        subject=subject_of_escalation(escalation),
        payload={
            "reason": reason,
            "digest": action.digest,
            "policies": made.policies,
            "until": made.usable_until.isoformat(),
            "break_glass": str(made.pk),
        },
    )
    inbox_changed(action)
    glass_changed(action)
    question_stands(escalation.pk)
    return made


def usable_until_passed(action: Action) -> bool:
    """Whether the action was let through by broken glass whose minutes are over. Glass broken over an earlier question
    counts no more once people, or other glass, answered a later one."""
    question = Escalation.objects.filter(action=action).order_by("-id").values("pk")[:1]
    return BreakGlass.objects.filter(escalation=Subquery(question), usable_until__lte=now()).exists()
