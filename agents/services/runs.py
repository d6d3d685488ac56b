"""Runs: attempts at a mission. A managed one is a sandbox, an external one a token that some client elsewhere uses."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Max

from agents import programs
from agents.choices import ENDED_RUN_STATES, MissionState, Outcome, RunState, Runtime
from agents.models import AgentVersion, Mission, Run
from agents.services import sandbox_seconds
from budgets import services as budgets
from controlplane.audit import services as audit
from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.clusters import services as clusters
from controlplane.clusters.models import Sandbox
from controlplane.clusters.types import DriverError, ExitReason, Resources, SandboxPhase
from controlplane.common.clock import now
from controlplane.common.errors import RemitError, conflict, not_found
from controlplane.live.services import announce
from controlplane.tenancy import tokens
from controlplane.tenancy.models import TokenKind
from controlplane.tenancy.types import Permission, Principal, system_principal
from governance import services as governance

PURPOSE = "run"
MAX_ATTEMPTS = 3
_LIVE = [RunState.PENDING, RunState.STARTING, RunState.RUNNING]
# A token outlives neither its run nor its mission's deadline; this is the longest in between.
_LONGEST_TOKEN = timedelta(days=30)


def start_run(*, actor: Principal, mission: Mission) -> Run:
    """The next attempt. Inside the caller's transaction; 409 `run.live` while another one is under way."""
    if Run.objects.filter(mission=mission, state__in=_LIVE).exists():
        raise conflict("run.live", "An attempt is already under way.", "Stop it first.")
    agent = mission.agent
    attempt = (Run.objects.filter(mission=mission).aggregate(last=Max("attempt"))["last"] or 0) + 1
    version = AgentVersion.objects.get(agent=agent, number=agent.current_version)
    run = Run.objects.create(mission=mission, attempt=attempt, agent_version=version)
    if agent.runtime == Runtime.MANAGED:
        sandbox_seconds.hold(run, mission, version)
        run.sandbox = clusters.request_sandbox(
            organisation_id=mission.organisation_id,
            team_id=mission.team_id,
            purpose=PURPOSE,
            owner_id=run.pk,
            name=f"{agent.slug[:40]}-{run.pk.hex[-6:]}",
            program=version.program or " ".join(version.command),
            resources=Resources(**version.resources) if version.resources else Resources(),
            wall_clock_seconds=version.wall_clock_seconds,
            mission_id=mission.pk,
        )
        run.state = RunState.STARTING
        run.save(update_fields=["sandbox", "state"])
    record(
        event=Event.RUN_STARTED,
        actor=actor,
        subject=_subject(mission),
        payload={"attempt": attempt, "run_id": str(run.pk), "agent_version": version.number, "runtime": agent.runtime},
    )
    announce(f"mission:{mission.pk}", "run")
    return run


def restart_run(*, actor: Principal, mission_id: uuid.UUID) -> Run:
    """A person asks for another attempt of an active mission."""
    with transaction.atomic():
        rows = (
            Mission.objects.restrict(actor, Permission.MISSION_OPERATE)
            .select_related("agent")
            .select_for_update(of=("self",))
        )
        mission = rows.filter(pk=mission_id).first()
        if mission is None:
            raise not_found("mission")
        if mission.state != MissionState.ACTIVE:
            raise conflict("mission.not_active", "Only a running mission takes another attempt.", "Resume it first.")
        run = start_run(actor=actor, mission=mission)
        Mission.objects.filter(pk=mission.pk).update(state_reason="")  # what was said of the attempt before
        announce(f"mission:{mission.pk}", "state")
        return run


def issue_run_token(*, actor: Principal, mission_id: uuid.UUID) -> str:
    """The external run's credential, shown once; an earlier one dies. For *Bring your own agent*."""
    with transaction.atomic():
        rows = Mission.objects.restrict(actor, Permission.MISSION_OPERATE).select_related("agent")
        mission = rows.filter(pk=mission_id).first()
        if mission is None:
            raise not_found("mission")
        external = mission.state == MissionState.ACTIVE and mission.agent.runtime == Runtime.EXTERNAL
        # Under the run's lock, as in `launch`: of two tokens the later one lives, and an ended run gets none.
        runs = Run.objects.filter(mission=mission, state__in=_LIVE).select_for_update()
        run = runs.first() if external else None
        if run is None:
            raise conflict(
                "run.no_external", "There is no external run to give a token to.", "Start the mission first."
            )
        tokens.revoke(run_id=run.pk)
        text = _issue(run, mission)
        record(
            event=Event.TOKEN_ISSUED,
            actor=actor,
            subject=Subject("run", run.pk, f"run {run.attempt}", mission.team_id, mission.pk),
        )
        announce(f"mission:{mission.pk}", "run")
    return text


def follow_deadline(*, mission: Mission, deadline: datetime) -> None:
    """Tokens of the attempt under way end with the new deadline. Inside the transaction that changed it."""
    tokens.move_end(mission_id=mission.pk, expires_at=min(deadline, now() + _LONGEST_TOKEN))


def stop_runs(*, actor: Principal, mission: Mission, reason: str) -> int:
    """End every live attempt: its token dies now, its sandbox is deleted by the reconciler. Inside the caller's
    transaction."""
    stopped = 0
    for run in Run.objects.filter(mission=mission, state__in=_LIVE).select_related("mission"):
        if run.sandbox_id is not None:
            clusters.delete_sandbox(sandbox_id=run.sandbox_id)
        stopped += end_run(actor=actor, run=run, state=RunState.STOPPED, reason=reason)
    return stopped


def end_run(*, actor: Principal, run: Run, state: RunState, reason: str) -> bool:
    """Conditional end: tokens revoked, open permits and questions void, seconds settled, audited. False: it had ended
    before."""
    ended = Run.objects.filter(pk=run.pk, state__in=_LIVE).update(
        state=state, desired="stopped", reason=reason[:300], ended_at=now()
    )
    if not ended:
        return False
    tokens.revoke(run_id=run.pk)
    governance.void_open(run_id=run.pk, actor=actor, reason=reason)
    sandbox_seconds.settle(run)
    record(
        event=Event.RUN_ENDED,
        actor=actor,
        subject=_subject(run.mission),
        payload={"attempt": run.attempt, "run_id": str(run.pk), "state": state.value, "reason": reason},
    )
    announce(f"mission:{run.mission_id}", "run")
    return True


@dataclass(frozen=True)
class Ended:
    """What the end of many runs leaves to their stop: charges and holds for the ledger, whom clusters have to end."""

    tokens: int
    charges: Sequence[budgets.Charge]
    unstarted: Sequence[uuid.UUID]
    clusters: frozenset[uuid.UUID]
    outside: frozenset[uuid.UUID]  # runs whose agents run elsewhere


def end_runs(*, actor: Principal, live: Sequence[Run], reason: str) -> Ended:
    """`end_run` for many at once, by a stop that holds their missions and these rows and voids their actions itself."""
    moment = now()
    ids = [run.pk for run in live]
    Run.objects.filter(pk__in=ids).update(
        state=RunState.STOPPED, desired="stopped", reason=reason[:300], ended_at=moment
    )
    dead = tokens.revoke(run_id__in=ids)
    audit.record_many(
        [
            audit.row(
                event=Event.RUN_ENDED,
                actor=actor,
                subject=_subject(run.mission),
                payload={"attempt": run.attempt, "run_id": str(run.pk), "state": "stopped", "reason": reason},
            )
            for run in live
        ]
    )
    for run in live:
        announce(f"mission:{run.mission_id}", "run")
    held = [(run, sandbox_seconds.cost(run)) for run in live if run.hold_id is not None]
    return Ended(
        tokens=dead,
        charges=[budgets.Charge(run.hold_id, cost) for run, cost in held if run.hold_id and cost is not None],
        unstarted=[run.hold_id for run, cost in held if run.hold_id and cost is None],
        clusters=clusters.delete_sandboxes(purpose=PURPOSE, owner_ids=ids),
        outside=frozenset(run.pk for run in live if run.sandbox_id is None),
    )


class RunSandboxes:
    """Answers for sandboxes of runs (clusters.services.SandboxOwner)."""

    def launch(self, *, sandbox: Sandbox) -> clusters.Launch:
        rows = Run.objects.select_related("mission", "mission__agent", "agent_version").filter(pk=sandbox.owner_id)
        programs.install(_under_way(rows.first()).agent_version)
        with transaction.atomic():
            # Under the run's lock: once it has ended and its tokens are dead, no other one is made for it.
            run = _under_way(rows.select_for_update(of=("self",)).first())
            token = _issue(run, run.mission)
        return programs.launch(version=run.agent_version, mission=run.mission, run=run, secrets={"REMIT_TOKEN": token})

    def lock(self, *, sandbox: Sandbox) -> None:
        """The mission before everything else, as a stop takes it: an attempt that ends may start the next one."""
        if sandbox.mission_id is not None:
            Mission.objects.filter(pk=sandbox.mission_id).select_for_update(no_key=True).values_list("pk").first()

    def before_resize(self, *, sandbox: Sandbox, resources: Resources) -> None:
        run = Run.objects.select_related("mission").filter(pk=sandbox.owner_id, state__in=_LIVE).first()
        if run is not None:
            sandbox_seconds.hold_larger(run, sandbox, resources)

    def on_ended(self, *, sandbox_ids: Sequence[uuid.UUID]) -> None:
        from agents.services.stopping import note_open_proofs

        rows = Mission.objects.filter(runs__sandbox_id__in=sandbox_ids)
        note_open_proofs(organisation_ids=frozenset(rows.values_list("organisation_id", flat=True)))

    def on_change(self, *, sandbox: Sandbox) -> None:
        run = Run.objects.select_related("mission", "mission__agent").filter(pk=sandbox.owner_id).first()
        if run is None:
            return
        if sandbox.observed_phase == SandboxPhase.RUNNING:
            if Run.objects.filter(pk=run.pk, state=RunState.STARTING).update(
                state=RunState.RUNNING, started_at=sandbox.started_at
            ):
                announce(f"mission:{run.mission_id}", "run")
            return
        if sandbox.observed_phase == SandboxPhase.PENDING or run.state in ENDED_RUN_STATES:
            return
        _ended_by_itself(run, sandbox)


def _under_way(run: Run | None) -> Run:
    if run is None or run.state in ENDED_RUN_STATES:
        raise DriverError("Its run has ended.", permanent=True, code="run.ended")
    return run


def _ended_by_itself(run: Run, sandbox: Sandbox) -> None:
    actor = system_principal(organisation_id=run.mission.organisation_id)
    state, reason = _verdict_on_exit(sandbox)
    if not end_run(actor=actor, run=run, state=state, reason=reason):
        return
    mission = run.mission
    mission.refresh_from_db()
    if mission.state != MissionState.ACTIVE or mission.outcome == Outcome.CLAIMED:
        return
    if state is RunState.SUCCEEDED:
        Mission.objects.filter(pk=mission.pk).update(state_reason="Its program ended without claiming an outcome")
    elif _may_try_again(run, sandbox):
        try:
            with transaction.atomic():
                start_run(actor=actor, mission=mission)
        except RemitError as error:
            if error.retry_after_seconds is not None:
                raise  # nothing is written of this end: the next pass of the reconciler sees it again
            _pause(actor, mission, f"Attempt {run.attempt + 1} could not start: {error.message}")
    else:
        _pause(actor, mission, f"Attempt {run.attempt} ended: {reason}")
    announce(f"mission:{mission.pk}", "state")
    announce(f"organisation:{mission.organisation_id}", "missions")


def _may_try_again(run: Run, sandbox: Sandbox) -> bool:
    """A stop of the whole installation is no failure: it neither ends the mission nor counts as one of its tries."""
    if sandbox.exit_reason == ExitReason.NODE_STOPPED:
        return True
    stopped = Run.objects.filter(mission=run.mission_id, sandbox__exit_reason=ExitReason.NODE_STOPPED).count()
    return run.attempt - stopped < MAX_ATTEMPTS and sandbox.exit_reason != ExitReason.WALL_CLOCK


def _pause(actor: Principal, mission: Mission, reason: str) -> None:
    if Mission.objects.filter(pk=mission.pk, state=MissionState.ACTIVE).update(
        state=MissionState.PAUSED, state_reason=reason[:300]
    ):
        record(event=Event.MISSION_PAUSED, actor=actor, subject=_subject(mission), payload={"reason": reason})


def _verdict_on_exit(sandbox: Sandbox) -> tuple[RunState, str]:
    match sandbox.exit_reason:
        case ExitReason.COMPLETED:
            return RunState.SUCCEEDED, "Its program ended"
        case ExitReason.OUT_OF_MEMORY:
            size = sandbox.observed_resources or sandbox.desired_resources
            mebibytes = size.get("memory_bytes", 0) // 1024**2
            return RunState.FAILED, f"It ran out of memory (limit {mebibytes} MiB)"
        case ExitReason.WALL_CLOCK:
            return RunState.FAILED, f"It ran longer than {sandbox.wall_clock_seconds} seconds"
        case ExitReason.NODE_LOST:
            return RunState.LOST, "The node that ran it was lost"
        case ExitReason.NODE_STOPPED:
            return RunState.STOPPED, "It was stopped with the installation"
        case ExitReason.STOPPED:
            return RunState.STOPPED, "It was stopped"
        case ExitReason.START_FAILED:
            return RunState.FAILED, f"It could not start: {sandbox.message}"
        case _:
            return RunState.FAILED, f"Its program ended with code {sandbox.exit_code}"


def _issue(run: Run, mission: Mission) -> str:
    version = mission.versions.get(number=mission.version)
    _, text = tokens.issue(
        kind=TokenKind.RUN,
        organisation_id=mission.organisation_id,
        team_id=mission.team_id,
        name=mission.agent.name,
        agent_id=mission.agent_id,
        mission_id=mission.pk,
        run_id=run.pk,
        expires_at=min(version.deadline, now() + _LONGEST_TOKEN),
    )
    return text


def _subject(mission: Mission) -> Subject:
    return Subject("mission", mission.pk, mission.title, mission.team_id, mission.pk)
