"""Action kinds by which people start and widen missions: judged by the same gate, answered by the same approvers."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping
from typing import Any

from agents import stops
from agents.choices import ENDED_MISSION_STATES, MissionState, VersionState
from agents.models import Mission, MissionVersion
from agents.remits import Remit
from agents.services import changing, starting
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, invalid, not_found
from controlplane.common.ids import parse_id
from controlplane.live.services import announce
from controlplane.tenancy.types import Permission, Principal
from governance import selectors as governance
from governance.choices import REFUSED_BY_PERSON, ActionState, Verdict
from governance.services import tell_answer
from governance.types import Finding, Prepared, Proposal

_MICRO = 1_000_000
_DAY = 24 * 3600
_WAITS_OR_NOT = {ActionState.WAITING: VersionState.AWAITING_SIGN_OFF, ActionState.WITHDRAWN: VersionState.SUPERSEDED}


class SignOff:
    """`mission.sign_off`: start a draft. Above the organisation's threshold a second person decides."""

    code = "mission.sign_off"
    label = "Start a mission"
    cedar_action = "mission.sign_off"

    def prepare(self, *, proposer: Principal, proposal: Proposal) -> Prepared:
        mission, version = _named(proposer, proposal)
        guards = []
        if mission.state not in (MissionState.DRAFT, MissionState.AWAITING_SIGN_OFF):
            guards.append(Finding(Verdict.DENY, "mission.not_draft", "This mission was started or ended meanwhile."))
        if version.number != mission.version:
            guards.append(Finding(Verdict.DENY, "mission.version_superseded", "It has been reworded since."))
        guards += [*_overdue(version), *_stopped(mission)]
        return _prepared(proposer, proposal, mission, version, f"Start “{mission.title}”", guards)

    def lock(self, *, subject_id: uuid.UUID | None) -> None:
        """The mission: without an approval it becomes a draft again."""
        if subject_id is not None:
            Mission.objects.filter(pk=subject_id).select_for_update(no_key=True).values_list("pk").first()

    def on_decided(self, *, action_id: uuid.UUID, state: ActionState, actor: Principal) -> None:
        action = governance.decided_action(action_id)
        mission_id, version = uuid.UUID(action.arguments["mission_id"]), int(action.arguments["version"])
        owner_id = Mission.objects.values_list("owner_id", flat=True).get(pk=mission_id)
        tell_answer(action=action, state=state, actor=actor, owners=[owner_id])
        if state is ActionState.PERMITTED:
            second = actor.user_id if actor.user_id != action.proposer_id else None
            starting.activate(actor=actor, mission_id=mission_id, number=version, signed_off_by=second)
        elif state is ActionState.WAITING:
            starting.await_sign_off(actor=actor, mission_id=mission_id, number=version, reason=action.message)
        elif state is ActionState.WITHDRAWN:
            starting.withdraw_sign_off(actor=actor, mission_id=mission_id, number=version, reason=action.message)
        elif action.reason_code == REFUSED_BY_PERSON:
            starting.refuse_sign_off(actor=actor, mission_id=mission_id, number=version, reason=action.message)
        else:
            reason = f"Not signed off: {action.message}"  # by the rules or by silence: nobody refused it
            starting.withdraw_sign_off(actor=actor, mission_id=mission_id, number=version, reason=reason)


class Widen:
    """`mission.widen`: put another version in force. One that widens the remit needs a second person."""

    code = "mission.widen"
    label = "Change a mission"
    cedar_action = "mission.widen"

    def prepare(self, *, proposer: Principal, proposal: Proposal) -> Prepared:
        mission, version = _named(proposer, proposal)
        guards = []
        if mission.state in ENDED_MISSION_STATES:
            guards.append(Finding(Verdict.DENY, "mission.ended", "This mission is over."))
        if version.number <= mission.version:
            guards.append(Finding(Verdict.DENY, "mission.version_superseded", "A later version is already in force."))
        guards += _overdue(version)
        if version.widens:
            guards += _stopped(mission)
        return _prepared(
            proposer, proposal, mission, version, f"Change “{mission.title}” to version {version.number}", guards
        )

    def lock(self, *, subject_id: uuid.UUID | None) -> None:
        """Without an approval only the version that was not agreed to changes."""

    def on_decided(self, *, action_id: uuid.UUID, state: ActionState, actor: Principal) -> None:
        action = governance.decided_action(action_id)
        mission = Mission.objects.get(pk=uuid.UUID(action.arguments["mission_id"]))
        tell_answer(action=action, state=state, actor=actor, owners=[mission.owner_id])
        version = mission.versions.get(number=action.arguments["version"])
        if state is ActionState.PERMITTED:
            if version.widens and actor.user_id is not None:
                MissionVersion.objects.filter(pk=version.pk).update(
                    signed_off_by_id=actor.user_id, signed_off_at=action.decided_at
                )
            changing.put_in_force(actor=actor, mission=mission, version=version, action_id=action_id)
            return
        mission.versions.filter(pk=version.pk).update(state=_WAITS_OR_NOT.get(state, VersionState.REFUSED))
        announce(f"mission:{mission.pk}", "remit")


def prepare_widening(*, proposer: Principal, mission: Mission, remit: Remit, widens: bool) -> Prepared:
    """The same facts for a version that nobody has made yet, for trying a change before it is sent."""
    number = mission.version + 1
    version = MissionVersion(
        mission=mission,
        number=number,
        goal=remit.goal,
        grants=[grant.as_dict() for grant in remit.grants],
        budget_money=remit.budget_money,
        currency=mission.organisation.currency,
        deadline=remit.deadline,
        importance=remit.importance,
        widens=widens,
    )
    proposal = Proposal(kind=Widen.code, arguments={"mission_id": str(mission.pk), "version": number})
    return _prepared(proposer, proposal, mission, version, f"Change “{mission.title}”", [])


def _named(proposer: Principal, proposal: Proposal) -> tuple[Mission, MissionVersion]:
    mission_id, number = parse_id(proposal.arguments.get("mission_id")), proposal.arguments.get("version")
    if mission_id is None or not isinstance(number, int) or set(proposal.arguments) != {"mission_id", "version"}:
        raise invalid(
            "action.arguments", "It names a mission and a version.", FieldError("/arguments", "mission_id, version")
        )
    rows = Mission.objects.restrict(proposer, Permission.MISSION_OPERATE).select_related("organisation")
    mission = rows.filter(pk=mission_id).first()
    version = mission.versions.filter(number=number).first() if mission else None
    if mission is None or version is None:
        raise not_found("mission")
    return mission, version


def _overdue(version: MissionVersion) -> list[Finding]:
    """Drafts lie and questions wait: what starts or changes by one that is over would end the mission at once."""
    if version.deadline > now():
        return []
    remedy = "Give it a later deadline, then send it again."
    return [Finding(Verdict.DENY, "mission.deadline", "The deadline it names has passed.", (remedy,))]


def _stopped(mission: Mission) -> list[Finding]:
    stop = stops.in_force_for(mission)
    if stop is None:
        return []
    return [Finding(Verdict.DENY, "stop.in_force", stops.in_words(stop), ("Lift the stop first.",))]


def _still(mission: Mission, *, starts: bool) -> bool:
    """Whether nobody changed the mission meanwhile; it stays locked, since this decision may change it. What lets it do
    more is not decided while a stop holds or begins."""
    if starts:
        stops.share_lock(mission.organisation_id)
        if stops.in_force_for(mission) is not None:
            return False
    rows = Mission.objects.select_for_update(of=("self",))
    return (
        rows.filter(pk=mission.pk, state=mission.state, version=mission.version).values_list("pk").first() is not None
    )


def _prepared(
    proposer: Principal,
    proposal: Proposal,
    mission: Mission,
    version: MissionVersion,
    title: str,
    guards: list[Finding],
) -> Prepared:
    context: Mapping[str, Any] = {
        "money_micros": int(version.budget_money * _MICRO),
        "sign_off_above_micros": int(mission.organisation.sign_off_above * _MICRO),
        "widens": version.widens,
    }
    return Prepared(
        team_id=mission.team_id,
        title=title,
        envelope={
            "kind": proposal.kind,
            "proposer": str(proposer.id),
            "mission": str(mission.pk),
            "version": version.number,
            "grants": version.grants,
            "budget": str(version.budget_money.normalize()),
            "currency": version.currency,
            "deadline": version.deadline.isoformat(),
            "arguments": dict(proposal.arguments),
        },
        principal_entity={
            "uid": {"type": "Person", "id": str(proposer.id)},
            "attrs": {"roles": sorted(role.value for role in proposer.roles)},
            "parents": [],
        },
        resource_entity={
            "uid": {"type": "Mission", "id": str(mission.pk)},
            "attrs": {"importance": version.importance, "state": mission.state},
            "parents": [],
        },
        context=context,
        guards=guards,
        guards_saw=f"mission {mission.state}, version {version.number}",
        mission_id=mission.pk,
        mission_version=version.number,
        agent_id=mission.agent_id,
        subject_type="mission",
        subject_id=mission.pk,
        excluded_user_ids=[user for user in {proposer.user_id, mission.owner_id} if user is not None],
        escalation_ttl_seconds=_DAY,
        still=functools.partial(_still, mission, starts=proposal.kind == SignOff.code or version.widens),
        amount=version.budget_money,
        currency=version.currency,
    )
