"""Judging an action again: after an approval, and when something changed between verdict and run. Its hold stays."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from django.contrib.auth import get_user_model

from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.common.ids import new_id
from controlplane.tenancy.services import principal_of_user
from controlplane.tenancy.types import Principal, PrincipalKind, system_principal
from governance import gate, rows
from governance.announcing import action_changed, inbox_changed
from governance.bundles import active_bundle
from governance.choices import CHANGED_SINCE, ActionState, Verdict
from governance.gate import Ladder
from governance.intake import digest_of_envelope, envelope_of
from governance.models import Action
from governance.registry import kind_of, ledger
from governance.transitions import APPROVED_TTL_SECONDS, lock_subject, move, perform_at_once, void_permits
from governance.types import Finding, Prepared, Proposal
from governance.verdicts import decided_entry, open_escalation, remedies_of, waits_for_people

# What the digest covers besides the proposal, as kinds call it.
_COVERED: Final = {"mission": "The mission's remit", "definition": "The tool's definition"}


@dataclass(frozen=True)
class Again:
    """A second look, not yet written. `prepared` is None when the kind no longer accepts the proposal at all."""

    ladder: Ladder
    prepared: Prepared | None
    digest: str


def look_again(
    action: Action,
    *,
    audience: str,
    approved: Collection[str],
    judged: Collection[str] = (),
    token_id: uuid.UUID | None = None,
) -> Again:
    """Facts and rules as they are now, for exactly the action that was judged. Reads only; what the judge agreed to
    (`judged`) it is not asked again. `token_id`: of who is there to carry it out, which has to live."""
    since = time.perf_counter_ns()
    bundle = active_bundle(action.organisation_id)
    ladder = Ladder(
        approved=frozenset(approved),
        judged=frozenset(judged),
        bundle_sha256=bundle.sha256 if bundle else "",
        started_ns=since,
    )
    proposer = proposer_of(action)
    proposal = Proposal(
        kind=action.kind,
        arguments=action.arguments,
        tool=action.tool,
        justification=action.justification,
        audience=audience,
        action_id=action.pk,
    )
    kind = kind_of(action.kind)
    if proposer is None:
        return _not_acceptable(ladder, since, "proposer.gone", "Who asked for this is no longer a member.")
    try:
        prepared = kind.prepare(proposer=replace(proposer, token_id=token_id), proposal=proposal)
    except RemitError as error:
        return _not_acceptable(ladder, since, error.code, error.message)
    envelope = envelope_of(proposer=proposer, proposal=proposal, prepared=prepared)
    digest = digest_of_envelope(envelope)
    same = digest == action.digest
    ladder.rung(
        "intake",
        since_ns=since,
        saw=f"{action.kind} by {action.proposer_name}, judged again.",
        findings=() if same else (_changed(action.envelope, envelope),),
        said="The same action as before.",
    )
    if same:
        gate.examine(ladder, kind=kind, prepared=prepared, bundle=bundle)
        gate.consult(ladder, prepared=prepared, organisation_id=action.organisation_id)
    else:
        ladder.not_asked("guards", "Not asked: already refused.")
        ladder.not_asked("policy", "Not asked: already refused.")
    return Again(ladder, prepared, digest)


def lock_before_question(action: Action, again: Again) -> None:
    """Inside the transaction that will answer the question: the mission first, as a stop takes it. Raises
    gate.Overtaken."""
    if again.prepared is not None and not again.ladder.denied:
        gate.require_still(again.prepared)
    else:
        lock_subject(action)


def weigh_again(action: Action, again: Again) -> Verdict:
    """Inside the transaction that will `write_again`: the rungs that are asked under locks, and what all of them come
    to. Raises gate.Overtaken."""
    ladder, prepared = again.ladder, again.prepared  # the mission is locked before any permit: a stop does it so too
    if prepared is not None:
        if not ladder.denied:
            gate.require_still(prepared)
        gate.sequence_and_judge(ladder, prepared=prepared, organisation_id=action.organisation_id, action_id=action.pk)
    gate.keep_hold(ladder, hold_id=action.hold_id)
    return ladder.verdict


def write_again(
    action: Action, again: Again, *, source: ActionState, actor: Principal, **told: object
) -> rows.Row | None:
    """What was weighed, as the new decision, and what follows from it; None when the action is no longer in `source`.

    Allowed leaves it permitted without a permit (made when it is redeemed), asked opens a new escalation, refused
    releases the hold. `told`: more facts for its entry of the trail. Raises gate.Overtaken.
    """
    ladder, prepared = again.ladder, again.prepared
    moment = now()
    void_permits(action_ids=[action.pk], moment=moment)
    finding = ladder.finding
    moved = move(
        action,
        sources=[source],
        to=rows.STATE_OF[finding.verdict],
        verdict=finding.verdict,
        reason_code=finding.reason_code[:80],
        message=finding.message[:500],
        remedies=remedies_of(ladder),
        decided_at=None if waits_for_people(ladder) else moment,
        ended_at=moment if ladder.denied else None,
    )
    if not moved:
        return None
    decision = rows.decision_row(
        ladder,
        action_id=action.pk,
        organisation_id=action.organisation_id,
        digest=action.digest,
        decision_id=new_id(),
        at=moment,
    )
    escalation = None
    if waits_for_people(ladder) and prepared is not None:
        escalation, _ = open_escalation(action, ladder, prepared, decision)
    entry = decided_entry(action, actor, decision, **told)
    if rows.commit(decision=decision, escalation=escalation, entries=[entry]) == "bundle_changed":
        raise gate.BundleChanged
    seconds = (escalation["expires_at"] - moment).total_seconds() if escalation else APPROVED_TTL_SECONDS
    _follow(action, ladder, actor, hold_seconds=round(seconds))
    gate.emit_spans(ladder)
    return decision


def changed_in_words(names: Collection[str]) -> str:
    """That what a digest covers besides the proposal is another by now. `names`: as kinds call it."""
    other = [words for name, words in _COVERED.items() if name in names]
    return " ".join(f"{words} has changed since this was judged." for words in other or ["What it is about"])


def proposer_of(action: Action) -> Principal | None:
    """Who asked: a person with their present roles (None when they left), a machine as it was bound then."""
    kind = PrincipalKind(action.proposer_kind)
    if kind is PrincipalKind.USER:
        user = get_user_model().objects.filter(pk=action.proposer_id, is_active=True).first()
        return principal_of_user(user=user, organisation_id=action.organisation_id) if user else None
    if kind is PrincipalKind.SYSTEM:
        return system_principal(organisation_id=action.organisation_id, name=action.proposer_name)
    return Principal(
        kind=kind,
        id=action.proposer_id,
        name=action.proposer_name,
        organisation_id=action.organisation_id,
        team_id=action.team_id,
        agent_id=action.agent_id,
        mission_id=action.mission_id,
        run_id=action.run_id,
    )


def _follow(action: Action, ladder: Ladder, actor: Principal, *, hold_seconds: int) -> None:
    if ladder.verdict is Verdict.ALLOW:
        _keep(action, seconds=hold_seconds)
        perform_at_once(action, actor=actor)
    else:
        if ladder.denied and action.hold_id is not None:
            ledger().void(hold_id=action.hold_id)
        if waits_for_people(ladder):
            _keep(action, seconds=hold_seconds)
            inbox_changed(action)
        kind_of(action.kind).on_decided(action_id=action.pk, state=rows.STATE_OF[ladder.verdict], actor=actor)
    action_changed(action)


def _keep(action: Action, *, seconds: int) -> None:
    if action.hold_id is not None:
        ledger().extend(hold_id=action.hold_id, ttl_seconds=seconds)


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Finding:
    """Says what is another by now: the proposal itself can't be."""
    said = changed_in_words([name for name in _COVERED if before.get(name) != after.get(name)])
    return Finding(Verdict.DENY, CHANGED_SINCE, said, ("Propose the action again.",))


def _not_acceptable(ladder: Ladder, since: int, code: str, message: str) -> Again:
    ladder.rung(
        "intake",
        since_ns=since,
        saw="Judged again.",
        findings=[Finding(Verdict.DENY, code, message, ("Propose the action again.",))],
    )
    for name in gate.STAGES[1:-1]:
        ladder.not_asked(name, "Not asked: already refused.")
    return Again(ladder, None, "")
