"""Stop: a run, a mission, an agent, a team or an organisation, in one transaction; and noting when each proof held.

Order of locks: stops of the organisation, missions by id, runs, questions, permits, actions, sandboxes, budgets.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Any

import structlog
from django.db import transaction

from agents import stop_proofs, stops
from agents.choices import WIDE_STOPS, MissionState, StopScope
from agents.models import Mission, Stop
from agents.services import runs
from agents.services.telling import settle_claims, tell_owners
from agents.stops import Target
from budgets import services as budgets
from controlplane.audit import services as audit
from controlplane.audit.events import Event
from controlplane.audit.services import Subject
from controlplane.clusters import services as clusters
from controlplane.common.clock import now
from controlplane.common.errors import conflict, forbidden
from controlplane.common.written_amounts import written_amount
from controlplane.live.services import announce
from controlplane.tenancy import tokens
from controlplane.tenancy.types import Permission, Principal, system_principal
from governance import services as governance

log = structlog.get_logger(__name__)

_STOPPABLE = (MissionState.DRAFT, *stops.LIVE_MISSIONS)


def stop(*, actor: Principal, scope: StopScope, scope_id: uuid.UUID, reason: str = "") -> Stop:
    """From the commit on nothing of it is allowed: permits, tokens and questions die, holds of what had not started are
    released, its budget is frozen, and its sandboxes are killed before this returns, or by a worker.

    What holds already is returned as it is: two clicks are one stop. Raises 404, 409 `run.ended | mission.state`.
    """
    clicked = now()
    if actor.user_id is None:
        raise forbidden(Permission.MISSION_OPERATE.value)
    with transaction.atomic():
        stops.exclusive_lock(actor.organisation_id)
        target = stops.target(actor, scope, scope_id)
        known = Stop.objects.filter(scope=scope, scope_id=scope_id, lifted_at__isnull=True)
        if (before := known.select_related("by", "lifted_by", "team").first()) is not None:
            return before
        if target.over:
            raise _over(target)
        made = Stop(
            organisation_id=target.organisation_id,
            team_id=target.team_id,
            scope=scope,
            scope_id=scope_id,
            name=target.words[:200],
            mission_id=target.mission_id,
            reason=reason.strip()[:300],
            by_id=actor.user_id,
            at=clicked,
            account_id=target.account_id,
        )
        made.save(force_insert=True)
        ended = _carry_out(actor, made, target)
        transaction.on_commit(lambda: _prove(made.pk, ended), robust=True)
    return made


def note_proofs(*, stop_id: uuid.UUID) -> bool:
    """Look at everything once more and note what holds for the first time. True once all of it was seen to hold."""
    made = Stop.objects.get(pk=stop_id)
    if made.proven_at is not None:
        return True
    rungs = stop_proofs.proofs(made)
    moment = now()
    with transaction.atomic():
        made = Stop.objects.select_for_update(no_key=True, of=("self",)).get(pk=stop_id)
        fresh = {rung.name: moment.isoformat() for rung in rungs if rung.holds and rung.name not in made.proofs}
        if made.proven_at is not None or not fresh:
            return made.proven_at is not None
        made.proofs = {**made.proofs, **fresh}
        if all(rung.name in made.proofs for rung in rungs):
            made.proven_at = moment
            audit.record(
                event=Event.STOP_PROVEN,
                actor=system_principal(organisation_id=made.organisation_id),
                subject=subject_of(made),
                payload={"seconds": f"{(moment - made.at).total_seconds():.2f}", "proofs": made.proofs},
            )
        made.save(update_fields=["proofs", "proven_at"])
        announce(f"stop:{made.pk}", "proofs")
    return made.proven_at is not None


def note_open_proofs(*, organisation_ids: frozenset[uuid.UUID] | None = None) -> int:
    """For the sweep, and whenever sandboxes were found dead: stops not proven yet. Returns how many now are."""
    rows = Stop.objects.filter(proven_at__isnull=True, lifted_at__isnull=True)
    if organisation_ids is not None:
        rows = rows.filter(organisation_id__in=organisation_ids)
    return sum(note_proofs(stop_id=key) for key in rows.order_by("id").values_list("pk", flat=True)[:100])


def subject_of(made: Stop) -> Subject:
    return Subject("stop", made.pk, made.name, made.team_id, made.mission_id)


# -- below: one level down
# ----------------------------------------------------------------------------------------------


def _carry_out(actor: Principal, made: Stop, target: Target) -> runs.Ended:
    """Everything of one stop, in the order of locks. Returns what is left to end once it is committed."""
    missions = _lock_missions(target)
    before = stops.found(target)
    _change_missions(actor, made, target, missions)
    live = list(
        target.runs().filter(state__in=stops.LIVE_RUNS).order_by("id").select_for_update(of=("self",), no_key=True)
        .select_related("mission", "sandbox")
    )  # fmt: skip
    voided = governance.void_reach(actor=actor, reach=target.reach(), stop=made.name, reason=made.frozen_for)
    ended = runs.end_runs(actor=actor, live=live, reason=made.why)
    dead_tokens = ended.tokens + tokens.revoke(**_run_tokens(target))
    halted = budgets.halt(
        actor=actor,
        account_id=target.account_id,
        hold_ids=[*voided.hold_ids, *ended.unstarted],
        charges=ended.charges,
        stop=made.name,
        reason=made.frozen_for,
        close=target.scope is StopScope.MISSION,
    )
    made.froze = halted.frozen
    made.counts = {
        **{name: value for name, value in asdict(before).items() if name not in ("held", "left", "currency")},
        "held": written_amount(before.held),
        "currency": before.currency,
        "missions": before.missions if target.scope in WIDE_STOPS else 1,
        "tokens": dead_tokens,
        "permits": voided.permits,
        "questions": voided.questions,
        "holds": halted.released,
    }
    made.save(update_fields=["froze", "counts"])
    audit.record(
        event=Event.STOP_MADE,
        actor=actor,
        subject=subject_of(made),
        payload={"reason": made.reason, "scope": made.scope, "counts": made.counts},
    )
    _tell(made, missions)
    return ended


def _lock_missions(target: Target) -> list[Mission]:
    """Those that could do something, by id: decisions share these rows, so none is under way from here on."""
    rows = target.missions()
    if target.scope in WIDE_STOPS:
        rows = rows.filter(state__in=stops.LIVE_MISSIONS)
    return list(rows.order_by("id").select_for_update(no_key=True))


def _change_missions(actor: Principal, made: Stop, target: Target, missions: list[Mission]) -> None:
    more: dict[str, Any]
    if target.scope is StopScope.RUN:
        target.missions().update(state_reason=stops.in_words(made, name=made.name.partition(" of ")[0]))
        return
    if target.scope is StopScope.MISSION:
        changed, state, event = missions, MissionState.STOPPED, Event.MISSION_STOPPED
        if any(mission.state not in _STOPPABLE for mission in missions):
            raise _over(target)
        state_reason, more = made.why, {"ended_at": now(), "paused_by_id": None}
        told = {"reason": made.reason}
    else:
        changed = [mission for mission in missions if mission.state == MissionState.ACTIVE]
        state, event = MissionState.PAUSED, Event.MISSION_PAUSED
        state_reason, more = made.frozen_for, {"paused_by_id": made.pk}
        told = {"reason": made.reason, "stop": made.name}
    Mission.objects.filter(pk__in=[mission.pk for mission in changed]).update(
        state=state, state_reason=state_reason[:300], **more
    )
    audit.record_many(
        [
            audit.row(
                event=event,
                actor=actor,
                subject=Subject("mission", mission.pk, mission.title, mission.team_id, mission.pk),
                payload=told,
            )
            for mission in changed
        ]
    )
    if target.scope is StopScope.MISSION:
        settle_claims(changed)
    tell_owners(changed, state.label, actor=actor)


def _run_tokens(target: Target) -> dict[str, Any]:
    """Those of its runs, whatever state these are in."""
    narrow = {"run_id": target.run_id, "mission_id": target.mission_id, "agent_id": target.agent_id}
    named = next(({name: value} for name, value in narrow.items() if value), None)
    if named is None:
        named = {"team_id": target.team_id} if target.team_id else {}
    return {"kind": "run", "organisation_id": target.organisation_id, **named}


def _tell(made: Stop, missions: list[Mission]) -> None:
    for mission in missions:
        announce(f"mission:{mission.pk}", "state")
    if made.scope == StopScope.AGENT:
        announce(f"agent:{made.scope_id}", "missions")
    for part in ("missions", "stops"):
        announce(f"organisation:{made.organisation_id}", part)
    announce(f"warnings:{made.organisation_id}", "warnings")


def _prove(stop_id: uuid.UUID, ended: runs.Ended) -> None:
    """After the commit. Whatever of it fails, or is cut short, workers do: they were told, and they sweep."""
    try:
        note_proofs(stop_id=stop_id)
        clusters.end_now(cluster_ids=ended.clusters, outside=ended.outside)
        note_proofs(stop_id=stop_id)
    finally:
        clusters.clear_away(cluster_ids=ended.clusters)


def _over(target: Target) -> Exception:
    mission = target.missions().first()
    if target.scope is StopScope.RUN or mission is None:
        return conflict("run.ended", "This attempt has ended, so there is nothing to stop.", "Reload the page.")
    state = mission.get_state_display().lower()
    return conflict(
        "mission.state", f"That can't be done now: this mission is {state}.", "Reload the page.", state=mission.state
    )
