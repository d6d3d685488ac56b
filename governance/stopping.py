"""A stop as the gate sees it: every open permit and question of a run, a mission, an agent, a team or an organisation
ends in a few statements, however many there are; and how many of them live."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from django.db import transaction
from django.db.models import F, Q, QuerySet

from controlplane.audit import services as audit
from controlplane.audit.events import Event
from controlplane.audit.services import Subject
from controlplane.common.clock import now
from controlplane.tenancy.types import Principal
from governance.announcing import action_changed, inbox_changed
from governance.choices import ActionState, EscalationState
from governance.models import Action, Escalation, Permit
from governance.registry import kind_of
from governance.rows import subject_of
from governance.transitions import live_permits, withdrawal

_OPEN: Final = (ActionState.WAITING, ActionState.PERMITTED)


@dataclass(frozen=True)
class Reach:
    """Whose actions: of one organisation, narrowed by what is given. What only people do (of no agent, no mission) and
    kinds in `besides` are left alone."""

    organisation_id: uuid.UUID
    team_id: uuid.UUID | None = None
    agent_id: uuid.UUID | None = None
    mission_id: uuid.UUID | None = None
    run_id: uuid.UUID | None = None
    besides: tuple[str, ...] = ()

    def actions(self) -> QuerySet[Action]:
        return Action.objects.filter(
            Q(mission_id__isnull=False) | Q(agent_id__isnull=False), **self._named("")
        ).exclude(kind__in=self.besides)

    def permits(self) -> QuerySet[Permit]:
        return live_permits().filter(**self._named("action__"))

    def questions(self) -> QuerySet[Escalation]:
        rows = Escalation.objects.filter(state=EscalationState.OPEN, action__in=self.actions().filter(state__in=_OPEN))
        return rows.filter(organisation_id=self.organisation_id)

    def _named(self, path: str) -> Mapping[str, uuid.UUID]:
        names = ("organisation_id", "team_id", "agent_id", "mission_id", "run_id")
        return {f"{path}{name}": value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Voided:
    """What ended. The holds are for the caller to release, together with the budgets it freezes: in the ledger's
    order."""

    actions: int
    questions: int
    permits: int
    hold_ids: Sequence[uuid.UUID]


@dataclass(frozen=True)
class Alive:
    """What of a reach still lives. `executing` was sent and is under way outside."""

    permits: int
    questions: int
    executing: int


def void_reach(*, actor: Principal, reach: Reach, stop: str, reason: str) -> Voided:
    """Withdraw whatever of the reach waits or is permitted; `stop` names what was stopped. Inside the transaction that
    has locked its missions: then no decision about one of them is under way. What runs already is not touched."""
    moment = now()
    with transaction.atomic():
        identifiers = list(reach.actions().filter(state__in=_OPEN).values_list("pk", flat=True))
        questions = _close_questions(identifiers, reason)
        permits = live_permits().filter(action_id__in=identifiers).update(voided_at=moment)
        actions = _lock(identifiers)
        Action.objects.filter(pk__in=[action.pk for action in actions]).update(
            state=ActionState.WITHDRAWN, ended_at=moment, **withdrawal(actor=actor, reason=reason)
        )
        for action in actions:
            action.state, action.ended_at = ActionState.WITHDRAWN, moment
            kind_of(action.kind).on_decided(action_id=action.pk, state=ActionState.WITHDRAWN, actor=actor)
            action_changed(action)
        if questions and actions:
            inbox_changed(actions[0])
        audit.record_many(_entries(actor, actions, questions, {"stop": stop, "reason": reason}))
    holds = [action.hold_id for action in actions if action.hold_id is not None]
    return Voided(len(actions), len(questions), permits, holds)


def alive(reach: Reach) -> Alive:
    """Counted now, in the rows themselves."""
    executing = reach.actions().filter(state=ActionState.EXECUTING)
    return Alive(reach.permits().count(), reach.questions().count(), executing.count())


def _close_questions(action_ids: Collection[uuid.UUID], reason: str) -> list[Escalation]:
    rows = Escalation.objects.filter(action_id__in=action_ids, state=EscalationState.OPEN).order_by("id")
    questions = list(rows.select_for_update(no_key=True))
    Escalation.objects.filter(pk__in=[question.pk for question in questions]).update(
        state=EscalationState.WITHDRAWN, version=F("version") + 1, closed_at=now(), reason=reason[:500]
    )
    return questions


def _lock(identifiers: Collection[uuid.UUID]) -> list[Action]:
    """After their questions and permits, as every other writer does."""
    rows = Action.objects.filter(pk__in=identifiers, state__in=_OPEN).order_by("id")
    return list(rows.select_for_update(no_key=True))


def _entries(
    actor: Principal, actions: Sequence[Action], questions: Sequence[Escalation], why: Mapping[str, str]
) -> list[dict[str, object]]:
    told = [
        audit.row(
            event=Event.ESCALATION_WITHDRAWN,
            actor=actor,
            subject=Subject("escalation", row.pk, row.title, team_id=row.team_id, mission_id=row.mission_id),
            payload=why,
        )
        for row in questions
    ]
    return told + [
        audit.row(
            event=Event.ACTION_WITHDRAWN,
            actor=actor,
            subject=subject_of(action),
            payload={**why, "digest": action.digest},
        )
        for action in actions
    ]
