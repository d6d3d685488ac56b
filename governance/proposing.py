"""`propose`: one proposal in, one judgement out, everything of it in one transaction.

`propose_and_start` is for edges that carry an allowed action out themselves: its permit is made and used right there.
"""

from __future__ import annotations

import time
import uuid
from datetime import datetime, timedelta
from typing import Final

from django.db import OperationalError
from psycopg import errors as pg

from controlplane.common.clock import now
from controlplane.common.commits import early_unlock
from controlplane.common.errors import FieldError, RemitError, conflict, invalid
from controlplane.common.ids import new_id
from controlplane.tenancy.types import Principal
from governance import gate, permits, repeating, rows
from governance.announcing import action_changed, inbox_changed
from governance.bundles import active_bundle, forget
from governance.choices import ActionState, EscalationState, Verdict
from governance.gate import Ladder
from governance.intake import check_proposal, digest_of_envelope, envelope_of
from governance.models import Action, Escalation
from governance.registry import kind_of
from governance.transitions import live_permits, perform_at_once
from governance.types import ActionKind, EscalationRef, Judgement, PermitToken, Prepared, Proposal, Statement
from governance.verdicts import decided_entry, judged, new_action, open_escalation, started_entry, waits_for_people

_ATTEMPTS: Final = 3
# The hold outlives its permit a little, so that a permit redeemed in its last second still finds it.
_HOLD_SLACK_SECONDS: Final = 30


class _Repeated(Exception):
    pass


def propose(*, proposer: Principal, proposal: Proposal) -> Judgement:
    """Judge an action. A refusal is an answer, not an error; what is allowed gets a permit.

    Without an idempotency key of its own, the repeat of what waits for a person already in the same run is that action:
    nobody is asked twice and nothing is held twice.

    Raises RemitError for what is no proposal at all (422, 413, 403), a used idempotency key with another body (422
    `idempotency.other_body`) or one still being judged (409 `idempotency.in_flight`).
    """
    return _propose(proposer, proposal, starting=False)


def propose_and_start(*, proposer: Principal, proposal: Proposal) -> Judgement:
    """`propose` and, if that says allow, `redeem` in the same transaction: what is allowed is executing on return, its
    hold dispatched, and `Judgement.started` is the action. The answer to a repeated key starts nothing.
    """
    return _propose(proposer, proposal, starting=True)


def _propose(proposer: Principal, proposal: Proposal, *, starting: bool) -> Judgement:
    since = time.perf_counter_ns()
    request_sha256 = check_proposal(proposer=proposer, proposal=proposal)
    kind = kind_of(proposal.kind)
    try:
        prepared = kind.prepare(proposer=proposer, proposal=proposal)
        for _ in range(_ATTEMPTS):
            try:
                return _judge(proposer, proposal, kind, prepared, request_sha256, since, starting=starting)
            except gate.Overtaken:
                forget(proposer.organisation_id)
                prepared = kind.prepare(proposer=proposer, proposal=proposal)
    except repeating.AlreadyWaits as waits:
        return _waiting(waits.action_id)
    except _Repeated as repeated:
        stored = _stored(proposer, proposal, request_sha256)
        if stored is None:
            raise _in_flight() from repeated
        return stored
    except RemitError:
        # What could be proposed then may not be proposable now; the answer given then still stands.
        stored = _stored(proposer, proposal, request_sha256)
        if stored is None:
            raise
        return stored
    raise RemitError("policy.changing", "The policies are being changed just now.", 503, retry_after_seconds=1)


def _judge(
    proposer: Principal,
    proposal: Proposal,
    kind: ActionKind,
    prepared: Prepared,
    request_sha256: str,
    since: int,
    *,
    starting: bool,
) -> Judgement:
    ladder = Ladder(started_ns=since)
    envelope = envelope_of(proposer=proposer, proposal=proposal, prepared=prepared)
    digest = digest_of_envelope(envelope)
    ladder.rung("intake", since_ns=since, saw=f"{proposal.kind} by {proposer.name}.", said=f"Digest {digest[7:19]}.")
    bundle = active_bundle(proposer.organisation_id)
    gate.examine(ladder, kind=kind, prepared=prepared, bundle=bundle)
    if waits_for_people(ladder) or ladder.judging:
        repeating.refuse_second_question(proposal, prepared=prepared, digest=digest)
    gate.consult(ladder, prepared=prepared, organisation_id=proposer.organisation_id)
    action = new_action(proposer, proposal, prepared, envelope, digest, request_sha256)
    try:
        judgement = _write(ladder, action, proposer, prepared, proposal, starting=starting)
    except OperationalError as error:
        if proposal.idempotency_key is not None and isinstance(error.__cause__, pg.LockNotAvailable):
            raise _in_flight() from error
        raise
    gate.emit_spans(ladder)
    return judgement


def _write(
    ladder: Ladder, action: Action, proposer: Principal, prepared: Prepared, proposal: Proposal, *, starting: bool
) -> Judgement:
    """In one transaction. When the ledger refuses the hold, all of it is undone and the refusal is written instead."""
    try:
        with early_unlock():
            still = None if ladder.denied else _sent_along(prepared)
            if not ladder.denied and still is None:
                gate.require_still(prepared)
            gate.sequence_and_judge(
                ladder, prepared=prepared, organisation_id=action.organisation_id, action_id=action.pk
            )
            if waits_for_people(ladder):
                repeating.refuse_second_question(proposal, prepared=prepared, digest=action.digest, locking=True)
            action.hold_id = gate.plan_hold(ladder, prepared=prepared)
            return _commit(ladder, action, proposer, prepared, proposal.audience, starting=starting, still=still)
    except gate.HoldNotGiven as error:
        gate.refuse_hold(ladder, error.refused, prepared=prepared)
        action.hold_id = None
        with early_unlock():
            return _commit(ladder, action, proposer, prepared, proposal.audience, starting=starting)


def _commit(
    ladder: Ladder,
    action: Action,
    proposer: Principal,
    prepared: Prepared,
    audience: str,
    *,
    starting: bool,
    still: Statement | None = None,
) -> Judgement:
    moment = now()
    judged(action, ladder, moment)
    decision = rows.decision_row(
        ladder,
        action_id=action.pk,
        organisation_id=action.organisation_id,
        digest=action.digest,
        decision_id=new_id(),
        at=moment,
    )
    waits = waits_for_people(ladder)
    # An action without a tool is performed at once: nothing is left to be permitted.
    permitted = ladder.verdict is Verdict.ALLOW and bool(action.tool)
    starts = starting and permitted
    entries = [decided_entry(action, proposer, decision)]
    token, permit = _permit(action, decision, audience, moment) if permitted else (None, None)
    if permit is not None and starts:
        token, permit["consumed_at"] = None, moment
        action.state, action.executing_at = ActionState.EXECUTING, moment
        entries.append(started_entry(proposer, action))
    escalation, reference = open_escalation(action, ladder, prepared, decision) if waits else (None, None)
    written = rows.commit(
        action=rows.action_row(action),
        decision=decision,
        permit=permit,
        escalation=escalation,
        entries=entries,
        still=still,
    )
    if written == "repeated":
        raise _Repeated
    if written != "done":
        raise gate.Overtaken
    action_changed(action)
    if reference is not None:
        inbox_changed(action)
    judgement = judgement_of(action, permit=token, escalation=reference, started=action if starts else None)
    if action.hold_id is not None:
        ttl = permits.TTL_SECONDS if reference is None else _seconds_until(reference.expires_at, moment)
        gate.reserve(
            hold_id=action.hold_id,
            action_id=action.pk,
            prepared=prepared,
            organisation_id=action.organisation_id,
            ttl_seconds=ttl + _HOLD_SLACK_SECONDS,
            dispatched=starts,
        )
    if starts:
        return judgement
    if ladder.verdict is not Verdict.ALLOW:
        kind_of(action.kind).on_decided(action_id=action.pk, state=rows.STATE_OF[ladder.verdict], actor=proposer)
        return judgement
    perform_at_once(action, actor=proposer)
    return judgement if action.tool else judgement_of(action)


def _sent_along(prepared: Prepared) -> Statement | None:
    return prepared.still if isinstance(prepared.still, Statement) else None


def _seconds_until(end: datetime, moment: datetime) -> int:
    return round((end - moment).total_seconds())


def judgement_of(
    action: Action,
    *,
    permit: PermitToken | None = None,
    escalation: EscalationRef | None = None,
    started: Action | None = None,
    replayed: bool = False,
) -> Judgement:
    return Judgement(
        action_id=action.pk,
        state=ActionState(action.state),
        verdict=Verdict(action.verdict),
        reason_code=action.reason_code,
        message=action.message,
        remedies=tuple(action.remedies),
        digest=action.digest,
        permit=permit,
        escalation=escalation,
        started=started,
        replayed=replayed,
    )


def _permit(action: Action, decision: rows.Row, audience: str, moment: datetime) -> tuple[PermitToken | None, rows.Row]:
    nonce = permits.new_nonce()
    expires_at = moment + timedelta(seconds=permits.TTL_SECONDS)
    row = rows.permit_row(
        permit_id=new_id(),
        decision=decision,
        audience=audience,
        holder_id=action.proposer_id,
        nonce_sha256=permits.nonce_sha256(nonce),
        expires_at=expires_at,
    )
    return _token(action, decision["id"], audience, nonce, expires_at), row


def _token(action: Action, decision_id: uuid.UUID, audience: str, nonce: str, expires_at: datetime) -> PermitToken:
    claims = permits.PermitClaims(action.pk, decision_id, action.digest, audience, nonce, expires_at)
    return PermitToken(permits.sign(claims), expires_at)


def _stored(proposer: Principal, proposal: Proposal, request_sha256: str) -> Judgement | None:
    """The answer already given to this idempotency key, once it is on disk; None when there is none."""
    if proposal.idempotency_key is None:
        return None
    with early_unlock():
        return _given_before(proposer, proposal, request_sha256)


def _given_before(proposer: Principal, proposal: Proposal, request_sha256: str) -> Judgement | None:
    action = Action.objects.filter(
        proposer_id=proposer.id,
        organisation_id=proposer.organisation_id,
        idempotency_key=proposal.idempotency_key,
    ).first()
    if action is None:
        return None
    if action.request_sha256 != request_sha256:
        raise invalid(
            "idempotency.other_body",
            "This idempotency key was used for another request.",
            FieldError("/idempotency_key", "a key of its own for each request"),
        )
    return judgement_of(action, permit=_minted_again(action), escalation=_open_question(action), replayed=True)


def _waiting(action_id: uuid.UUID) -> Judgement:
    """The answer to a call that waits already: as it stands now, which may be decided meanwhile. It is on disk."""
    with early_unlock():
        action = Action.objects.get(pk=action_id)
        return judgement_of(action, escalation=_open_question(action), replayed=True)


def _open_question(action: Action) -> EscalationRef | None:
    escalation = Escalation.objects.filter(action=action, state=EscalationState.OPEN).first()
    return EscalationRef(escalation.pk, escalation.expires_at) if escalation else None


def _minted_again(action: Action) -> PermitToken | None:
    """A new token for the live permit: the first is stored nowhere and may have been lost; it stops working."""
    permit = live_permits().filter(action=action, expires_at__gt=now()).first()
    if permit is None:
        return None
    nonce = permits.new_nonce()
    replaced = live_permits().filter(pk=permit.pk).update(nonce_sha256=permits.nonce_sha256(nonce))
    if not replaced:
        return None
    return _token(action, permit.decision_id, permit.audience, nonce, permit.expires_at)


def _in_flight() -> RemitError:
    return conflict(
        "idempotency.in_flight",
        "A request with this idempotency key is being judged.",
        "Repeat the same request in a moment.",
    )
