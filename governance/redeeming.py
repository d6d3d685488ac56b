"""`redeem`: a permit is used once, by whom it was given to, for what was judged, while it still holds."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction

from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.clock import now
from controlplane.common.commits import early_unlock
from controlplane.common.errors import RemitError, conflict, not_found
from controlplane.common.ids import new_id
from controlplane.tenancy.types import Permission, Principal
from governance import permits, rows
from governance.announcing import action_changed
from governance.bundles import bundle_in_force, forget
from governance.choices import ActionState, Verdict
from governance.escalations.breaking_glass import usable_until_passed
from governance.gate import BundleChanged, Overtaken, require_still
from governance.models import Action, Decision, Permit
from governance.permits import PermitClaims
from governance.registry import ledger
from governance.rejudging import Again, look_again, weigh_again, write_again
from governance.transitions import APPROVED_TTL_SECONDS, live_permits
from governance.verdicts import started_entry

_ATTEMPTS: Final = 3


def redeem(
    *,
    holder: Principal,
    action_id: uuid.UUID,
    audience: str,
    permit_token: str | None = None,
    hand_to: str | None = None,
) -> Action:
    """Use the permit and start the action: on return it is executing and its hold is dispatched.

    The kind is asked again and the rules compared: changed since means judged again under today's rules, with the
    approvals it already has, and refused unless that says allow. An approved action has no live permit (they live 60
    seconds): it is judged again and its permit made and used here. `hand_to`: another audience that carries it out in
    the holder's stead, and alone says what came of it. Raises RemitError: 404, 403 `permit.*`, 409 `permit.*` or the
    reason code of the new judgement; the loser of a race gets 409 `permit.consumed`.
    """
    claims = permits.verify(permit_token) if permit_token is not None else None
    action = _action_of(holder, action_id)
    if claims is not None and (claims.action_id, claims.digest, claims.audience) != (
        action.pk,
        action.digest,
        audience,
    ):
        raise _refused(holder, action, "permit.other_action", "This permit is for something else.", 403)
    if action.state != ActionState.PERMITTED:
        raise _not_permitted(action)
    permit = live_permits().filter(action=action).select_related("decision").first()
    if permit is not None and permit.audience != audience:
        raise _refused(holder, action, "permit.other_audience", f"This permit is for “{permit.audience}”.", 403)
    decision = permit.decision if permit else Decision.objects.filter(action=action).latest("id")
    again = _look_again(holder, action, audience, decision)
    moment = now()
    if permit is not None and permit.expires_at > moment and _holds(again, decision):
        try:
            return _consume(holder, action, permit, claims, again, hand_to=hand_to)
        except Overtaken:
            again = _look_again(holder, action, audience, decision)
    if permit is None and not decision.approved_policies and action.replaces_id is None:
        raise _lost(holder, action)
    if permit is None and (usable_until_passed(action) or _too_old(action)):
        raise _lapsed()
    if permit is not None and permit.expires_at <= moment:
        raise permits.expired()
    return _judge_again(holder, action, hand_to or audience, again, decision)


def _look_again(holder: Principal, action: Action, audience: str, decision: Decision) -> Again:
    return look_again(
        action,
        audience=audience,
        approved=decision.approved_policies,
        judged=decision.judged_policies,
        token_id=holder.token_id,
    )


def _holds(again: Again, decision: Decision) -> bool:
    """Whether everything is as it was when the permit was given: same digest, same rules, still allowed."""
    return again.ladder.verdict is Verdict.ALLOW and again.ladder.bundle_sha256 == decision.bundle_sha256


def _consume(
    holder: Principal, action: Action, permit: Permit, claims: PermitClaims | None, again: Again, *, hand_to: str | None
) -> Action:
    moment = now()
    with early_unlock():
        if again.prepared is not None:
            require_still(again.prepared)
        won = rows.consume(
            action_id=action.pk,
            holder_id=action.proposer_id,
            audience=permit.audience,
            digest=action.digest,
            nonce_sha256=permits.nonce_sha256(claims.nonce) if claims else None,
            bundle_sha256=permit.decision.bundle_sha256,
            moment=moment,
            entry=started_entry(holder, action),
        )
        if won:
            _started(action, moment)
            if hand_to is not None:
                _hand_over(permit, to=hand_to, moment=moment)
    if not won:
        in_force = bundle_in_force(action.organisation_id)
        if in_force is None or in_force.sha256 != permit.decision.bundle_sha256:
            raise BundleChanged  # in another process: this one remembered the rules of before
        raise _lost(holder, action)
    return action


def _hand_over(permit: Permit, *, to: str, moment: datetime) -> None:
    """What a permit says never changes: beside the one that was used stands one, used too, for who carries it out."""
    permit.pk, permit.audience, permit.consumed_at = new_id(), to, moment
    permit.nonce_sha256 = permits.nonce_sha256(permits.new_nonce())
    permit.save(force_insert=True)


def _judge_again(holder: Principal, action: Action, audience: str, again: Again, decision: Decision) -> Action:
    for _ in range(_ATTEMPTS):
        try:
            with transaction.atomic():
                started = _write_and_start(holder, action, audience, again)
        except Overtaken:
            forget(action.organisation_id)
            again = _look_again(holder, action, audience, decision)
            continue
        if started is None:
            raise _lost(holder, action)
        if not started:
            raise _judged_otherwise(action)
        return action
    raise RemitError("policy.changing", "The policies are being changed just now.", 503, retry_after_seconds=1)


def _write_and_start(holder: Principal, action: Action, audience: str, again: Again) -> bool | None:
    """Whether the action now runs; None when another call was first."""
    weigh_again(action, again)
    written = write_again(action, again, source=ActionState.PERMITTED, actor=holder)
    if written is None:
        return None
    if again.ladder.verdict is not Verdict.ALLOW:
        return False
    nonce, moment = permits.new_nonce(), now()
    permit = rows.permit_row(
        permit_id=new_id(),
        decision=written,
        audience=audience,
        holder_id=holder.id,
        nonce_sha256=permits.nonce_sha256(nonce),
        expires_at=moment + timedelta(seconds=permits.TTL_SECONDS),
    )
    Permit.objects.create(**permit)
    won = rows.consume(
        action_id=action.pk,
        holder_id=holder.id,
        audience=audience,
        digest=action.digest,
        nonce_sha256=permit["nonce_sha256"],
        bundle_sha256=written["bundle_sha256"],
        moment=moment,
        entry=started_entry(holder, action),
    )
    if not won:
        raise BundleChanged
    _started(action, moment)
    return True


def _started(action: Action, moment: object) -> None:
    if action.hold_id is not None:
        ledger().dispatch(hold_id=action.hold_id)
    action.state = ActionState.EXECUTING
    action.executing_at = moment  # type: ignore[assignment]
    action_changed(action)


def _action_of(holder: Principal, action_id: uuid.UUID) -> Action:
    action = Action.objects.restrict(holder, Permission.ACTION_VIEW).filter(pk=action_id).first()
    if action is None:
        raise not_found("action")
    if not action.was_asked_for_by(holder):
        raise _refused(holder, action, "permit.other_holder", "This permit was given to someone else.", 403)
    return action


def _too_old(action: Action) -> bool:
    """Whether its agent had its day to come back; the sweep, which says so on the action, may be late."""
    return action.decided_at is None or action.decided_at <= now() - timedelta(seconds=APPROVED_TTL_SECONDS)


def _lapsed() -> RemitError:
    return conflict("permit.expired", "It was not carried out in the time it was permitted for.", "Propose it again.")


def _lost(holder: Principal, action: Action) -> RemitError:
    """Why the conditional UPDATE found nothing: named from what is there now."""
    action.refresh_from_db()
    if action.state != ActionState.PERMITTED:
        return _not_permitted(action)
    forget(action.organisation_id)
    if not live_permits().filter(action=action, expires_at__gt=now()).exists():
        return permits.expired()
    return _refused(
        holder, action, "permit.superseded", "A newer token was issued for this permit, or the rules have changed.", 409
    )


def _not_permitted(action: Action) -> RemitError:
    state = ActionState(action.state)
    if action.executing_at is not None:
        return conflict(
            "permit.consumed",
            "This permit was used already; a permit works once.",
            "Ask for the action's state; propose again only if it should happen twice.",
            state=state.value,
        )
    return conflict(
        "permit.none",
        f"This action has no permit: {state.label.lower()}.",
        *action.remedies,
        state=state.value,
        reason_code=action.reason_code,
    )


def _judged_otherwise(action: Action) -> RemitError:
    return conflict(
        action.reason_code or "permit.changed",
        f"Judged again before it ran: {action.message}",
        *action.remedies,
        state=ActionState(action.state).value,
        verdict=action.verdict,
    )


def _refused(holder: Principal, action: Action, code: str, message: str, status: int) -> RemitError:
    with transaction.atomic():
        record(
            event=Event.PERMIT_REFUSED,
            actor=holder,
            subject=rows.subject_of(action),
            payload={"reason_code": code},
        )
    return RemitError(code, message, status, remedies=("Propose the action yourself.",))
