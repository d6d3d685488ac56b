"""The action kind `tool.call`: one tool of one registered server, with exact arguments, inside one mission."""

from __future__ import annotations

import functools
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from agents.choices import (
    ENDED_MISSION_STATES,
    ENDED_RUN_STATES,
    Importance,
    MissionState,
    Runtime,
    ServerState,
    ToolState,
)
from agents.grants import Grant, argument_facts, compile_grants
from agents.kinds import call_facts, call_totals
from agents.kinds.call_facts import Snapshot
from agents.models import McpTool, MissionVersion
from agents.servers.definitions import call_errors
from budgets import prices
from controlplane.common.canonical import canonical_bytes
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, invalid
from controlplane.tenancy.types import Permission, Principal
from governance.choices import ActionState, Verdict
from governance.services import calls_so_far, judge_is_on
from governance.types import BudgetRequest, CallLimits, Finding, Grants, Prepared, Proposal

NO_ONE_MISSION = "This agent has no mission under way, or several, and its credential names none."
CHOOSE_A_MISSION = ("Start a mission for it.", "Of several, choose by a run's token: its mission's page shows it.")
RATE_LIMIT = 200  # proposals of one run in the window
_LONG_TOOL = 160


class ToolCall:
    code = "tool.call"
    label = "Call a tool"
    cedar_action = "tool.call"

    def prepare(self, *, proposer: Principal, proposal: Proposal) -> Prepared:
        if not proposer.has(Permission.ACTION_PROPOSE, team_id=proposer.team_id) or proposer.agent_id is None:
            raise RemitError("action.not_an_agent", "Only agents call tools, with a run's token.", 403)
        if not proposal.tool or len(proposal.tool) > _LONG_TOOL:
            raise invalid("action.tool", "Name the tool.", FieldError("/tool", "1 to 160 characters"))
        mission_id, run_id = proposer.mission_id, proposer.run_id
        if mission_id is None:
            raise invalid(
                "mission.ambiguous",
                NO_ONE_MISSION,
                remedies=CHOOSE_A_MISSION,
            )
        snapshot = call_facts.read(proposer, mission_id, run_id, proposal)
        grants = call_facts.grants_of(snapshot.version_id)
        mine = [grant for grant in grants if grant.tool == proposal.tool]
        limited = any(grant.max_calls is not None for grant in mine)
        calls = calls_so_far(run_id, proposal.tool, proposal.action_id) if limited else 0
        totals = call_totals.read(snapshot.mission_id, proposal, mine)
        envelope = {
            "kind": self.code,
            "agent": str(snapshot.agent_id),
            "mission": f"{snapshot.mission_id}@{snapshot.mission_version}",
            "tool": proposal.tool,
            "definition": snapshot.definition_sha256 or "unknown",
            "arguments": dict(proposal.arguments),
        }
        return Prepared(
            team_id=snapshot.team_id,
            title=proposal.tool,
            envelope=envelope,
            principal_entity={
                "uid": {"type": "Agent", "id": str(snapshot.agent_id)},
                "attrs": {"team": snapshot.team, "runtime": snapshot.runtime},
                "parents": [],
            },
            resource_entity=_tool_entity(proposal.tool, snapshot),
            context={
                "args": argument_facts(
                    tool=proposal.tool,
                    arguments=proposal.arguments,
                    grants=mine,
                    totals={total.argument: total.seen for total in totals},
                ),
                "calls": calls,
                "importance": snapshot.importance,
                "mission_active": snapshot.mission_state == MissionState.ACTIVE,
                "judge": judge_is_on(),
            },
            grants=_compiled(snapshot.version_id),
            guards=_guards(snapshot, proposal, granted=bool(mine)),
            guards_saw=(
                f"mission {snapshot.mission_state}, run {snapshot.run_state or 'none'}, {snapshot.recent} calls in 10 s"
            ),
            denial=call_totals.denial(totals) or _denial(proposal, snapshot, mine, calls),
            budget=_budget(proposer, snapshot, proposal),
            agent_id=snapshot.agent_id,
            mission_id=snapshot.mission_id,
            mission_version=snapshot.mission_version,
            run_id=run_id,
            subject_type="tool",
            excluded_user_ids=[snapshot.owner_id],
            call_limits=_call_limits(proposal.tool, mine, calls),
            total_limits=totals,
            effects=list(snapshot.effects or ()),
            currency=snapshot.currency,
            still=call_facts.still(snapshot, run_id=run_id, tool=proposal.tool, token_id=proposer.token_id),
            brief=functools.partial(_brief, snapshot, proposal, grants),
            irreversible=not snapshot.read_only and not snapshot.reversible,
        )

    def lock(self, *, subject_id: uuid.UUID | None) -> None:
        """An answer changes nothing of the mission."""

    def on_decided(self, *, action_id: uuid.UUID, state: ActionState, actor: Principal) -> None:
        """Nothing to do here: the agent's own next call, or its poll, carries the action out."""


def prepare_preview(
    *,
    team_id: uuid.UUID,
    team: str,
    tool: str,
    arguments: Mapping[str, Any],
    grants: Sequence[Grant],
    definition: McpTool | None,
    runtime: str = Runtime.MANAGED,
    importance: Importance = Importance.NORMAL,
) -> Prepared:
    """The same facts and guards for a call of a mission that does not exist yet, for trying a remit before it starts.

    `definition`: the tool as it is registered in the organisation, whichever teams its server is for.
    """
    mine = [grant for grant in grants if grant.tool == tool]
    proposal = Proposal(kind="tool.call", tool=tool, arguments=arguments)
    snapshot = _imagined(team_id, team, definition)
    return Prepared(
        team_id=team_id,
        title=tool,
        envelope={},
        principal_entity={
            "uid": {"type": "Agent", "id": "preview"},
            "attrs": {"team": team, "runtime": runtime},
            "parents": [],
        },
        resource_entity=_tool_entity(tool, snapshot),
        context={
            "args": argument_facts(tool=tool, arguments=arguments, grants=mine),
            "calls": 0,
            "importance": importance.value,
            "mission_active": True,
            "judge": judge_is_on(),
        },
        grants=compile_grants(version_id=uuid.UUID(int=0), grants=grants),
        guards=_tool_guards(snapshot, proposal, granted=bool(mine)),
        denial=_denial(proposal, snapshot, mine, calls=0),
    )


def _tool_entity(tool: str, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "uid": {"type": "Tool", "id": tool},
        "attrs": {
            "server": snapshot.server or "",
            "read_only": bool(snapshot.read_only),
            "reversible": bool(snapshot.reversible),
            # A tool nobody knows is not in quarantine; that it is unknown is a guard's finding.
            "approved": snapshot.tool_state in (None, ToolState.ACTIVE),
        },
        "parents": [],
    }


def _imagined(team_id: uuid.UUID, team: str, tool: McpTool | None) -> Snapshot:
    """A mission that is active and has done nothing yet."""
    nobody = uuid.UUID(int=0)
    teams = tool.server.team_ids if tool else None
    return Snapshot(
        mission_id=nobody,
        team_id=team_id,
        mission_state=MissionState.ACTIVE,
        state_reason="",
        owner_id=nobody,
        account_id=None,
        mission_version=1,
        agent_id=nobody,
        title="",
        version_id=nobody,
        importance="normal",
        deadline=now(),
        currency="",
        agent_name="",
        runtime="managed",
        agent_state="active",
        team=team,
        run_state=None,
        tool=tool.qualified_name if tool else None,
        definition_sha256=tool.definition_sha256 if tool else None,
        definition=tool.definition if tool else None,
        tool_state=tool.state if tool else None,
        read_only=tool.read_only if tool else None,
        reversible=tool.reversible if tool else None,
        effects=None,
        server=tool.server.slug if tool else None,
        server_state=tool.server.state if tool else None,
        recent=0,
        stopped=None,
        for_team=teams is None or team_id in teams,
    )


def _brief(snapshot: Snapshot, proposal: Proposal, grants: Sequence[Grant]) -> dict[str, Any]:
    """What the judge reads. The agent's own justification is left out: it is there to persuade."""
    version = MissionVersion.objects.only("goal", "criteria", "budget_money").get(pk=snapshot.version_id)
    definition = snapshot.definition if snapshot.definition is not None else "{}"
    described = json.loads(definition) if isinstance(definition, str) else definition
    return {
        "mission": {"goal": version.goal, "criteria": list(version.criteria)},
        "remit": {
            "may": [grant.in_words() for grant in grants],
            "budget": f"{version.budget_money:f} {snapshot.currency}",
            "deadline": snapshot.deadline.isoformat(),
            "importance": snapshot.importance,
        },
        "action": {
            "tool": proposal.tool,
            "arguments": dict(proposal.arguments),
            "read_only": bool(snapshot.read_only),
            "reversible": bool(snapshot.reversible),
            "effects": list(snapshot.effects or ()),
        },
        "untrusted": {"tool_description": str(described.get("description") or "")[:4000]},
    }


def _guards(snapshot: Snapshot, proposal: Proposal, *, granted: bool) -> list[Finding]:
    found: list[Finding] = []

    def deny(code: str, message: str, *remedies: str) -> None:
        found.append(Finding(Verdict.DENY, code, message, remedies))

    if snapshot.stopped is not None:
        words = f"Nothing is allowed now: {snapshot.stopped}"
        deny("stop.in_force", words[:400], "Wait until a person lifts the stop.")
    if snapshot.mission_state in ENDED_MISSION_STATES:
        deny(
            "mission.ended",
            f"This mission is over: {snapshot.state_reason or snapshot.mission_state}.",
            "End the program.",
        )
    elif snapshot.mission_state != MissionState.ACTIVE:
        why = snapshot.state_reason or f"it is {snapshot.mission_state}"
        deny("mission.not_active", f"Nothing is allowed now: {why}.", "Wait until a person resumes the mission.")
    if snapshot.deadline <= now():
        deny("mission.deadline", "The mission's deadline has passed.", "Ask the mission's owner for more time.")
    if snapshot.agent_state != "active":
        deny("agent.retired", "This agent is retired.")
    if snapshot.run_state in ENDED_RUN_STATES:
        deny("run.ended", "This run has ended.", "End the program.")
    if snapshot.recent >= RATE_LIMIT:
        deny(
            "rate.exceeded",
            f"More than {RATE_LIMIT} actions in ten seconds.",
            "Slow down and try again in ten seconds.",
        )
    return [*found, *_tool_guards(snapshot, proposal, granted=granted)]


def _tool_guards(snapshot: Snapshot, proposal: Proposal, *, granted: bool) -> list[Finding]:
    found: list[Finding] = []

    def deny(code: str, message: str, *remedies: str) -> None:
        found.append(Finding(Verdict.DENY, code, message, remedies))

    # What is not granted is not there: of tools outside the remit nothing is told, not even their schema.
    if granted and snapshot.tool is None:
        deny(*call_facts.why_unknown(snapshot.team_id, proposal.tool))
    if granted and snapshot.server_state == ServerState.DISABLED:
        deny("server.off", f"The server of {proposal.tool} is switched off.", "Ask who runs it; go on with other work.")
    if granted and not snapshot.for_team:
        deny(
            "server.other_team",
            f"The server of {proposal.tool} is not for this mission's team.",
            "Ask an administrator to let the team use the server.",
            "Go on with other work.",
        )
    if (
        granted
        and snapshot.for_team
        and snapshot.definition is not None
        and (problem := _schema_problem(snapshot.definition_sha256 or "", snapshot.definition, proposal))
    ):
        deny("arguments.schema", problem, "Look at the tool's input schema and correct the arguments.")
    return found


def _denial(proposal: Proposal, snapshot: Snapshot, mine: Sequence[Grant], calls: int) -> Finding:
    """What to say when no grant permits the call: what is wrong and what to do, without leaking the policy text."""
    if not mine or snapshot.tool is None:
        return Finding(
            Verdict.DENY,
            "grant.missing",
            f"Not sent. This mission may not use {proposal.tool[:80]}.",
            ("Use one of the tools that tools/list shows.", "Ask the mission's owner to add it to the remit."),
        )
    if all(grant.max_calls is not None and calls >= grant.max_calls for grant in mine):
        most = max(grant.max_calls or 0 for grant in mine)
        return Finding(
            Verdict.DENY,
            "grant.calls_used_up",
            f"Not sent. {proposal.tool} may be called {most} times; they are used up.",
            ("Go on with other work.", "Ask the mission's owner for more calls."),
        )
    nearest = min((grant.unmet(proposal.arguments) for grant in mine), key=len)
    names = sorted(nearest or {name for grant in mine for name in grant.constraints})
    facts = [argument_facts(tool=proposal.tool, arguments=proposal.arguments, grants=[grant]) for grant in mine]
    if any(_over_limit(grant, proposal.arguments) for grant in mine) and all(facts):
        code, limits = "grant.argument_above_limit", "; or ".join(grant.in_words() for grant in mine)
    else:
        code, limits = "grant.argument_outside", "; or ".join(grant.in_words() for grant in mine)
    return Finding(
        Verdict.DENY,
        code,
        f"Not sent. {proposal.tool} is allowed only within limits on {', '.join(names) or 'its arguments'}.",
        (f"Allowed: {limits}."[:300], "Ask the mission's owner if the remit is too narrow."),
    )


def _over_limit(grant: Grant, arguments: Mapping[str, Any]) -> bool:
    for name, rules in grant.constraints.items():
        try:
            if "max" in rules and Decimal(str(arguments.get(name))) > Decimal(str(rules["max"])):
                return True
        except ArithmeticError:
            continue
    return False


def _call_limits(tool: str, mine: Sequence[Grant], calls: int) -> CallLimits | None:
    limits = sorted({grant.max_calls for grant in mine if grant.max_calls is not None})
    return CallLimits(tool=tool, seen=calls, limits=limits) if limits else None


def _budget(proposer: Principal, snapshot: Snapshot, proposal: Proposal) -> BudgetRequest | None:
    if snapshot.account_id is None:
        return None
    signature = hashlib.sha256(proposal.tool.encode() + b"\0" + canonical_bytes(proposal.arguments)).digest()
    return BudgetRequest(
        account_id=snapshot.account_id,
        money=prices.tool_call_price(organisation_id=proposer.organisation_id, tool=proposal.tool),
        currency=snapshot.currency,
        steps=1,
        signature=signature,
    )


@functools.lru_cache(maxsize=512)
def _compiled(version_id: uuid.UUID) -> Grants:
    return compile_grants(version_id=version_id, grants=call_facts.grants_of(version_id))


def _schema_problem(sha256: str, definition: str | dict[str, Any], proposal: Proposal) -> str:
    text = definition if isinstance(definition, str) else json.dumps(definition)
    errors = call_errors(sha256=sha256, definition=text, arguments=dict(proposal.arguments))
    if not errors:
        return ""
    first = errors[0]
    return f"Arguments don't fit the tool's schema at {first.pointer or '/'}: {first.message}"[:400]
