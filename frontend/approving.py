"""What stands on an approval card besides the question itself: the clause, the change, the money, who may answer."""

from __future__ import annotations

import difflib
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from agents import selectors as agents
from agents import stops
from agents.choices import MissionState
from agents.grant_changes import Change
from agents.grants import Grant, parse_grants
from agents.models import McpTool, Mission, MissionVersion, Stop
from agents.remits import changes, remit_of
from agents.servers import selectors as servers
from budgets import selectors as budgets
from budgets.types import Balance
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Permission, Principal
from frontend.ceilings import tighter_than
from frontend.pages import zone_of
from governance import selectors as governance
from governance.choices import CHANGED_SINCE, ActionState, EscalationState
from governance.models import Action, Escalation
from governance.selectors import Answerers
from governance.selectors import Change as ArgumentChange

EDITABLE_KINDS = frozenset({"tool.call", "budget.topup"})
_GRANT = re.compile(r"grant/(\d{1,4})/ask\Z")


@dataclass(frozen=True)
class DiffLine:
    """One line for components/diff.html."""

    kind: str
    text: str


@dataclass(frozen=True)
class TopUp:
    """More money for one budget: what it has, and what it would have. `others` wait to be given as well."""

    money: Decimal
    reason: str
    balance: Balance | None
    others: Sequence[Escalation] = ()

    @property
    def limit_after(self) -> Decimal | None:
        limit = self.balance.limits.money if self.balance else None
        return None if limit is None else limit + self.money


@dataclass(frozen=True)
class Card:
    """All that a person needs in order to decide. `not_you` says why the viewer may not; empty when they may. `changed`
    says what it was judged by and is another by now."""

    escalation: Escalation
    mission: Mission | None = None
    version: MissionVersion | None = None
    clauses: Sequence[str] = ()
    grants: Sequence[Grant] = ()
    changes: Sequence[Change] = ()
    goal_lines: Sequence[DiffLine] = ()
    tool: McpTool | None = None
    top_up: TopUp | None = None
    stop: Stop | None = None
    ceiling: str = ""
    before: Sequence[Escalation] = ()
    others: Sequence[User] = ()
    changed: str = ""
    not_you: str = ""
    approvals: int = 0
    answerers: Answerers | None = None
    identical: Sequence[Escalation] = ()
    edited: Sequence[ArgumentChange] = ()
    editable: bool = False
    withdrawable: bool = False
    speaker: bool = False
    past: dict[str, int] = field(default_factory=dict)

    @property
    def may_decide(self) -> bool:
        return self.escalation.state == EscalationState.OPEN and not self.not_you

    @property
    def refusing(self) -> str:
        """What a refusal does."""
        action = self.escalation.action
        if not action.by_agent:
            return f"Nothing is done, and {action.proposer_name} is told your reason."
        return (
            "Nothing is done, what was held is released, and the agent is told your reason. It goes on with other work."
        )

    @property
    def claimed(self) -> bool:
        """Somebody's claim holds now."""
        until = self.escalation.claimed_until
        return self.escalation.state == EscalationState.OPEN and until is not None and until > now()

    @property
    def may_speak(self) -> bool:
        """Those who decide and those whose mission it is."""
        return self.escalation.state == EscalationState.OPEN and self.speaker

    @property
    def claimed_by_another(self) -> bool:
        return self.answerers is not None and self.answerers.claimed_by_another


def card(principal: Principal, escalation: Escalation) -> Card:
    """A constant number of queries. `escalation` comes from `governance.selectors.escalation`."""
    action = escalation.action
    mission = _mission(principal, escalation)
    version = _version(mission, action)
    answerers = governance.answerers(principal, escalation)
    before = governance.similar_decisions(principal, escalation)
    compared = _compared(mission, version) if action.kind == "mission.widen" else None
    voted = {vote.user_id for vote in escalation.votes.all()}
    tool = _tool(principal, action)
    return Card(
        escalation=escalation,
        mission=mission,
        version=version,
        clauses=_clauses(escalation, version),
        grants=parse_grants(version.grants) if version is not None and action.kind != "tool.call" else (),
        changes=_changes(principal, *compared) if compared else (),
        goal_lines=diff_lines(compared[0].goal, compared[1].goal) if compared else (),
        tool=tool,
        top_up=_top_up(principal, action) if action.kind == "budget.topup" else None,
        stop=_stop(principal, action) if action.kind == stops.LIFT else None,
        ceiling=tighter_than(mission, version.budget_money)
        if mission is not None and version is not None and action.kind == "mission.sign_off"
        else "",
        before=before,
        changed=_changed_since(escalation, mission, tool),
        others=[user for user in answerers.left if user.pk != principal.user_id],
        not_you=_why_not(principal, escalation, mission, voted, answerers),
        approvals=answerers.counted,
        answerers=answerers,
        identical=governance.identical_to(principal, escalation) if escalation.state == EscalationState.OPEN else (),
        edited=governance.changes(action.replaces.arguments, action.arguments) if action.replaces else (),
        speaker=principal.has(Permission.ESCALATION_DECIDE, team_id=escalation.team_id)
        or principal.user_id in (*escalation.excluded_user_ids, action.proposer_id),
        withdrawable=principal.id == action.proposer_id
        or (action.mission_id is not None and principal.has(Permission.MISSION_OPERATE, team_id=action.team_id)),
        editable=action.by_agent and action.kind in EDITABLE_KINDS,
        past={
            "approved": sum(row.state == EscalationState.APPROVED for row in before),
            "refused": sum(row.state == EscalationState.DENIED for row in before),
        },
    )


def whom_else_it_needs(answerers: Answerers) -> str:
    """What an approval that is not the last one waits for."""
    if answerers.in_reach:
        return (
            f"It waits for {f'{answerers.missing} other approvers' if answerers.missing > 1 else 'another approver'}."
        )
    return "Nobody can settle it as things are: too few people are left who may answer."


def why_not_settled(escalation: Escalation) -> str:
    """What became of a question whose last approval counted and permitted nothing."""
    action = escalation.action
    if action.state == ActionState.WAITING:
        return escalation.reason
    if action.reason_code == CHANGED_SINCE:
        return f"But nothing was done: no rule refuses it. {escalation.reason} {_asks_again(action)}"
    return f"But nothing was done. {escalation.reason}"


def _changed_since(escalation: Escalation, mission: Mission | None, tool: McpTool | None) -> str:
    """What the question was judged by and is another by now, or a pause. The gate compares it again; this is for who
    reads the card before anybody answers."""
    action = escalation.action
    if escalation.state != EscalationState.OPEN:
        return ""
    other = []
    if action.kind == "tool.call":
        if mission is not None and mission.version != action.mission_version:
            other.append("mission")
        if tool is not None and tool.definition_sha256 != action.envelope.get("definition"):
            other.append("definition")
    if other:
        return f"{governance.changed_in_words(other)} An approval can't permit it any more. {_asks_again(action)}"
    if action.kind == "tool.call" and mission is not None and mission.state == MissionState.PAUSED:
        return "The mission is paused. Approved before it is resumed, this permits nothing: the agent has to ask again."
    if governance.judged_by_other_rules(escalation):
        return "The rules have changed since this was judged. An approval counts only where they still ask people."
    return ""


def _asks_again(action: Action) -> str:
    return f"{'The agent' if action.by_agent else action.proposer_name} has to ask again."


def diff_lines(old: str, new: str) -> list[DiffLine]:
    """Two texts line by line; long stretches without a change are left out."""
    kinds = {"+": "added", "-": "removed", "@": "hunk", " ": "same"}
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=3)
    return [
        DiffLine(kinds[line[0]], line[1:] if line[0] in "+- " else "…")
        for line in lines
        if line and line[0] in kinds and not line.startswith(("---", "+++"))
    ]


def _why_not(
    principal: Principal,
    escalation: Escalation,
    mission: Mission | None,
    voted: set[uuid.UUID],
    answerers: Answerers,
) -> str:
    user_id = principal.user_id
    if not principal.has(Permission.ESCALATION_DECIDE, team_id=escalation.team_id):
        return "Your role sees approvals and does not decide them."
    if user_id == escalation.action.proposer_id:
        return "You asked for this, so somebody else must decide."
    if user_id in escalation.excluded_user_ids:
        owner = mission is not None and mission.owner_id == user_id
        return f"You {'own this mission' if owner else 'are responsible for this'}, so somebody else must decide."
    if user_id in voted:
        return f"You have answered. {whom_else_it_needs(answerers)}"
    return answerers.why_not.message if answerers.why_not else ""


def _mission(principal: Principal, escalation: Escalation) -> Mission | None:
    if escalation.mission_id is None:
        return None
    try:
        return agents.mission(principal, escalation.mission_id)
    except RemitError:  # the viewer may see the question and not the mission
        return None


def _version(mission: Mission | None, action: Action) -> MissionVersion | None:
    if mission is None:
        return None
    return next((row for row in mission.versions.all() if row.number == action.mission_version), None)


def _clauses(escalation: Escalation, version: MissionVersion | None) -> list[str]:
    """The grants of the mission that send this to a person, in the words of the remit."""
    if version is None:
        return []
    grants = parse_grants(version.grants)
    numbers = [int(found[1]) for policy in escalation.policies if (found := _GRANT.match(policy))]
    return [grants[number].in_words() for number in numbers if number < len(grants)]


def _tool(principal: Principal, action: Action) -> McpTool | None:
    if not action.tool:
        return None
    found = servers.tools_in_force(organisation_id=principal.organisation_id, names=[action.tool])
    return found[0] if found else None


def _top_up(principal: Principal, action: Action) -> TopUp:
    balance = None
    if action.subject_id is not None and principal.has_anywhere(Permission.BUDGET_VIEW):
        try:
            balance = budgets.balance(principal, action.subject_id)
        except RemitError:
            balance = None
    others = governance.open_beside(principal, action) if action.state == ActionState.WAITING else ()
    return TopUp(Decimal(action.arguments["money"]), str(action.arguments.get("reason", "")), balance, others)


def _stop(principal: Principal, action: Action) -> Stop | None:
    """What would be lifted; None where the viewer sees the question and not the stop."""
    return stops.stops(principal).filter(pk=action.arguments["stop_id"]).first()


def _compared(mission: Mission | None, version: MissionVersion | None) -> tuple[MissionVersion, MissionVersion] | None:
    """The version in force and the one asked about; once that is in force itself, the one before it."""
    if mission is None or version is None:
        return None
    number = mission.version if mission.version < version.number else version.number - 1
    current = next((row for row in mission.versions.all() if row.number == number), None)
    return (current, version) if current else None


def _changes(principal: Principal, current: MissionVersion, version: MissionVersion) -> list[Change]:
    return changes(remit_of(current), remit_of(version), currency=version.currency, zone=zone_of(principal))
