"""What a stop reaches, and which stops are in force."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django.db import connection
from django.db.models import Q, QuerySet

from agents.choices import ENDED_MISSION_STATES, WIDE_STOPS, MissionState, RunState, StopScope
from agents.models import Agent, Mission, Run, Stop
from agents.stop_models import StopQuerySet
from budgets import selectors as budget_reads
from budgets import services as budgets
from controlplane.clusters.models import Sandbox
from controlplane.clusters.types import SandboxPhase
from controlplane.common.clock import now
from controlplane.common.errors import RemitError, conflict, not_found
from controlplane.tenancy.models import Organisation, Team, Token, TokenKind
from controlplane.tenancy.types import Permission, Principal
from governance import services as governance
from governance.models import Action
from governance.services import Reach

LIFT: Final = "stop.lift"
LIVE_RUNS: Final = (RunState.PENDING, RunState.STARTING, RunState.RUNNING)
LIVE_MISSIONS: Final = (MissionState.AWAITING_SIGN_OFF, MissionState.ACTIVE, MissionState.PAUSED)
ALIVE: Final = (SandboxPhase.PENDING, SandboxPhase.RUNNING)
_LOCKS: Final = 0x53544F50  # the class of advisory locks that stops and starts of one organisation share


@dataclass(frozen=True)
class Target:
    """One thing that can be stopped. `words`: “the team Receivables”. `account_id`: the budget that is frozen."""

    scope: StopScope
    id: uuid.UUID
    words: str
    organisation_id: uuid.UUID
    team_id: uuid.UUID | None
    agent_id: uuid.UUID | None = None
    mission_id: uuid.UUID | None = None
    run_id: uuid.UUID | None = None
    account_id: uuid.UUID | None = None
    over: bool = False  # it ended before

    def missions(self) -> QuerySet[Mission]:
        return Mission.objects.filter(self._of(""), organisation_id=self.organisation_id)

    def runs(self) -> QuerySet[Run]:
        own = Q(pk=self.run_id) if self.run_id else Q()
        return Run.objects.filter(own & self._of("mission__"), mission__organisation_id=self.organisation_id)

    def sandboxes(self) -> QuerySet[Sandbox]:
        rows = Sandbox.objects.filter(organisation_id=self.organisation_id, purpose="run")
        if self.run_id:
            return rows.filter(owner_id=self.run_id)
        if self.mission_id:
            return rows.filter(mission_id=self.mission_id)
        if self.agent_id:
            return rows.filter(mission_id__in=self.missions().values("pk"))
        return rows.filter(team_id=self.team_id) if self.team_id else rows

    def tokens(self, kind: TokenKind) -> QuerySet[Token]:
        return Token.objects.filter(self.bound(), kind=kind, revoked_at__isnull=True, expires_at__gt=now())

    def bound(self) -> Q:
        """Which credentials are of it."""
        narrow = {"run_id": self.run_id, "mission_id": self.mission_id, "agent_id": self.agent_id}
        named = next(({name: value} for name, value in narrow.items() if value), None)
        of_team = {"team_id": self.team_id} if self.team_id else {}
        return Q(organisation_id=self.organisation_id, **(named or of_team))

    def reach(self) -> Reach:
        narrow = self.mission_id is not None
        return Reach(
            organisation_id=self.organisation_id,
            team_id=self.team_id if self.scope is StopScope.TEAM else None,
            agent_id=self.agent_id if not narrow else None,
            mission_id=self.mission_id if self.run_id is None else None,
            run_id=self.run_id,
            besides=(LIFT,),
        )

    def _of(self, path: str) -> Q:
        if self.mission_id:
            return Q(**{f"{path}id": self.mission_id})
        if self.agent_id:
            return Q(**{f"{path}agent_id": self.agent_id})
        return Q(**{f"{path}team_id": self.team_id}) if self.team_id else Q()


@dataclass(frozen=True)
class Found:
    """What lives of a target at one moment. `missions` are active, `held_back` those that are paused or wait for their
    sign-off: a wide stop pauses the ones and keeps the others from going on. Money is what its budget holds and has
    left, in `currency`; `left` None: no limit of its own."""

    missions: int = 0
    held_back: int = 0
    sandboxes: int = 0
    questions: int = 0
    permits: int = 0
    tokens: int = 0
    credentials: int = 0
    executing: int = 0
    held: Decimal = Decimal(0)
    left: Decimal | None = None
    currency: str = ""


def target(principal: Principal, scope: StopScope, scope_id: uuid.UUID) -> Target:
    """Something the principal may stop: who operates all of it. Raises 404."""
    found = _TARGETS[scope](principal, scope_id)
    if found is None:
        raise not_found(scope.value)
    return found


def target_of(stop: Stop) -> Target:
    """For callers that have judged access to the stop."""
    match StopScope(stop.scope):
        case StopScope.RUN:
            return _of_run(Run.objects.select_related("mission").get(pk=stop.scope_id))
        case StopScope.MISSION:
            return _of_mission(Mission.objects.get(pk=stop.scope_id))
        case StopScope.AGENT:
            return _of_agent(Agent.objects.get(pk=stop.scope_id))
        case StopScope.TEAM:
            return _of_team(Team.objects.get(pk=stop.scope_id))
        case StopScope.ORGANISATION:
            return _of_organisation(Organisation.objects.get(pk=stop.scope_id))


def found(of: Target) -> Found:
    """What a stop would end now, or ends."""
    lives = governance.alive(of.reach())
    balance = next(iter(budget_reads.spend_of(account_ids=[of.account_id]).values()), None) if of.account_id else None
    live = of.missions().filter(state__in=LIVE_MISSIONS)
    active = live.filter(state=MissionState.ACTIVE).count()
    return Found(
        missions=active,
        held_back=live.count() - active,
        sandboxes=of.sandboxes().filter(observed_phase__in=ALIVE).count(),
        questions=lives.questions,
        permits=lives.permits,
        tokens=of.tokens(TokenKind.RUN).count(),
        credentials=of.tokens(TokenKind.AGENT).count() if of.scope in WIDE_STOPS else 0,
        executing=lives.executing,
        held=balance.held.money if balance else Decimal(0),
        left=balance.left.money if balance else None,
        currency=balance.currency if balance else "",
    )


def executing(stop: Stop) -> QuerySet[Action]:
    """What was sent before the stop and is under way outside; nobody can call it back."""
    return target_of(stop).reach().actions().filter(state="executing").order_by("id")


def executing_seen(principal: Principal, stop: Stop) -> QuerySet[Action]:
    """Those that the principal may see: the stop of an organisation is seen by everyone in it."""
    return Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(pk__in=executing(stop).values("pk"))


def paused_seen(principal: Principal, stop: Stop) -> QuerySet[Mission]:
    """Missions that it paused and still holds, as far as the principal may see them."""
    return Mission.objects.restrict(principal, Permission.MISSION_VIEW).filter(paused_by=stop)


def stops(principal: Principal | None) -> StopQuerySet:
    """What the principal may see, the latest first."""
    rows = Stop.objects.visible_to(principal)
    return rows.select_related("by", "lifted_by", "team", "organisation").order_by("-id")


def stop_named(principal: Principal | None, stop_id: uuid.UUID) -> Stop:
    """Raises 404."""
    found_stop = stops(principal).filter(pk=stop_id).first()
    if found_stop is None:
        raise not_found("stop")
    return found_stop


def in_force(
    *, organisation_id: uuid.UUID, team_id: uuid.UUID | None = None, agent_id: uuid.UUID | None = None
) -> Stop | None:
    """The widest stop that holds there now. For callers that have judged access to what it concerns."""
    reached = [value for value in (organisation_id, team_id, agent_id) if value is not None]
    rows = Stop.objects.in_force().filter(organisation_id=organisation_id, scope_id__in=reached)
    return next(iter(sorted(rows, key=lambda stop: WIDE_STOPS.index(StopScope(stop.scope)), reverse=True)), None)


def in_force_for(mission: Mission) -> Stop | None:
    return in_force(organisation_id=mission.organisation_id, team_id=mission.team_id, agent_id=mission.agent_id)


def in_words(stop: Stop, name: str = "") -> str:
    """ "The team Receivables was stopped: drill". `name`: another for what was stopped."""
    words = name or stop.name
    why = f": {stop.reason}" if stop.reason else f" by {stop.by.name}"
    return f"{words[:1].upper()}{words[1:]} was stopped{why}"[:300]


def refusal(stop: Stop) -> RemitError:
    """409 `stop.in_force`."""
    return conflict(
        "stop.in_force", in_words(stop), "Lift the stop first; it is listed under Stops.", stop=str(stop.pk)
    )


def require_no_stop(mission: Mission) -> None:
    """Before a mission may run: inside the transaction that starts it, before it locks the mission."""
    share_lock(mission.organisation_id)
    stop = in_force_for(mission)
    if stop is not None:
        raise refusal(stop)


def share_lock(organisation_id: uuid.UUID) -> None:
    """Until the transaction ends no stop of the organisation begins: what it starts is there for the next one to find.
    Taken before the mission's row, by whoever makes a mission active; decisions need only the row."""
    _lock("pg_advisory_xact_lock_shared", organisation_id)


def exclusive_lock(organisation_id: uuid.UUID) -> None:
    """Stops and their lifting come one after the other, and nothing starts meanwhile."""
    _lock("pg_advisory_xact_lock", organisation_id)


def holding(of: Target) -> Stop | None:
    """The stop of exactly that which holds, or ended it."""
    return Stop.objects.filter(scope=of.scope, scope_id=of.id, lifted_at__isnull=True).first()


def asks_a_second(stop: Stop) -> bool:
    """As the shipped policy has it; an organisation's own rules may ask for more."""
    return stop.scope != StopScope.AGENT or at_stake(stop)[0] > stop.organisation.sign_off_above


def lifting_asked(principal: Principal, stop: Stop) -> Action | None:
    """The latest request to lift it that waits for a person, with its questions."""
    rows = Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(kind=LIFT, subject_id=stop.pk)
    return rows.filter(state="waiting").prefetch_related("escalations").order_by("-id").first()


def may_lift(principal: Principal, stop: Stop) -> bool:
    """Who may ask for it: whoever could make the same stop."""
    try:
        target(principal, stop.kind_of_scope, stop.scope_id)
    except RemitError:
        return False
    return stop.in_force


def at_stake(stop: Stop) -> tuple[Decimal, str]:
    """Money that could be spent once the stop is lifted: what the missions it holds have left, also those that were
    paused before it, at most what the frozen budget has. With the currency."""
    held = target_of(stop).missions().filter(state__in=[MissionState.ACTIVE, MissionState.PAUSED])
    balances = budget_reads.mission_spend(mission_ids=held.values_list("pk", flat=True))
    left = sum((balance.left.money or Decimal(0) for balance in balances.values()), Decimal(0))
    account = budget_reads.spend_of(account_ids=[stop.account_id] if stop.account_id else [])
    for balance in account.values():
        if balance.left.money is not None:
            left = min(left, balance.left.money)
    return left, stop.organisation.currency


def _lock(function: str, organisation_id: uuid.UUID) -> None:
    """A stop is waited for longer than any row: several at once on a busy machine take seconds, and none is lost."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', '30s', true)")
        cursor.execute(f"SELECT {function}(%s, hashtext(%s))", [_LOCKS, str(organisation_id)])
        cursor.execute("RESET lock_timeout")


def _run(principal: Principal, key: uuid.UUID) -> Target | None:
    rows = Run.objects.restrict(principal, Permission.MISSION_OPERATE).select_related("mission")
    row = rows.filter(pk=key).first()
    return _of_run(row) if row else None


def _mission(principal: Principal, key: uuid.UUID) -> Target | None:
    row = Mission.objects.restrict(principal, Permission.MISSION_OPERATE).filter(pk=key).first()
    return _of_mission(row) if row else None


def _agent(principal: Principal, key: uuid.UUID) -> Target | None:
    row = Agent.objects.restrict(principal, Permission.MISSION_OPERATE).filter(pk=key).first()
    return _of_agent(row) if row else None


def _team(principal: Principal, key: uuid.UUID) -> Target | None:
    row = Team.objects.restrict(principal, Permission.MISSION_OPERATE).filter(pk=key).first()
    return _of_team(row) if row else None


def _organisation(principal: Principal, key: uuid.UUID) -> Target | None:
    if key != principal.organisation_id or not principal.has(Permission.MISSION_OPERATE):
        return None
    return _of_organisation(Organisation.objects.get(pk=key))


_TARGETS: Final[Mapping[StopScope, Callable[[Principal, uuid.UUID], Target | None]]] = {
    StopScope.RUN: _run,
    StopScope.MISSION: _mission,
    StopScope.AGENT: _agent,
    StopScope.TEAM: _team,
    StopScope.ORGANISATION: _organisation,
}


def _of_run(run: Run) -> Target:
    mission = run.mission
    return Target(
        StopScope.RUN,
        run.pk,
        f"attempt {run.attempt} of “{mission.title}”",
        mission.organisation_id,
        mission.team_id,
        agent_id=mission.agent_id,
        mission_id=mission.pk,
        run_id=run.pk,
        over=run.state not in LIVE_RUNS,
    )


def _of_mission(mission: Mission) -> Target:
    return Target(
        StopScope.MISSION,
        mission.pk,
        f"“{mission.title}”",
        mission.organisation_id,
        mission.team_id,
        agent_id=mission.agent_id,
        mission_id=mission.pk,
        account_id=mission.account_id,
        over=mission.state in ENDED_MISSION_STATES,
    )


def _of_agent(agent: Agent) -> Target:
    return Target(
        StopScope.AGENT,
        agent.pk,
        f"the agent {agent.name}",
        agent.organisation_id,
        agent.team_id,
        agent_id=agent.pk,
        account_id=agent.account_id,
    )


def _of_team(team: Team) -> Target:
    account_id = budgets.account_of(subject_type="team", subject_id=team.pk)
    return Target(
        StopScope.TEAM, team.pk, f"the team {team.name}", team.organisation_id, team.pk, account_id=account_id
    )


def _of_organisation(organisation: Organisation) -> Target:
    account_id = budgets.account_of(subject_type="organisation", subject_id=organisation.pk)
    words = f"all of {organisation.name}"
    return Target(StopScope.ORGANISATION, organisation.pk, words, organisation.pk, None, account_id=account_id)
