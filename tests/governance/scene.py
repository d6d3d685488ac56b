"""A kind of action whose every fact a test can set, and one that a person asks for and Remit itself performs."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from controlplane.common.ids import new_id
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import Principal, PrincipalKind
from governance.choices import ActionState
from governance.types import BudgetRequest, Finding, Grants, Prepared, Proposal

TOOL = "books__apply_credit"
AMOUNT = f"{TOOL}/amount#micros"
# Up to 100 is granted; above 50 a person agrees.
GRANT_POLICIES = f"""
@id("grant/0")
permit (principal, action == Action::"tool.call", resource == Tool::"{TOOL}")
when {{ context.args has "{AMOUNT}" && context.args["{AMOUNT}"] <= 100 }};
@id("grant/0/ask")
@effect("escalate")
@message("A credit above 50 needs a person.")
forbid (principal, action == Action::"tool.call", resource == Tool::"{TOOL}")
when {{ context.args has "{AMOUNT}" && context.args["{AMOUNT}"] > 50 }}
unless {{ context.approved.contains("grant/0/ask") }};
"""
GRANTS = Grants(key="version-1", policies=GRANT_POLICIES, argument_types={AMOUNT: "Long"})
_NUMBERS = itertools.count(1)


@dataclass
class Scene:
    """What is true of the world when a kind is asked. Tests change it between verdict and run."""

    team_id: uuid.UUID
    mission_id: uuid.UUID
    agent_id: uuid.UUID
    mission_active: bool = True
    mission_version: int = 1
    tool_approved: bool = True
    tool_sha256: str = "sha256:aa"
    grants: Grants | None = GRANTS
    guards: list[Finding] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)
    denial: Finding | None = None
    excluded: list[uuid.UUID] = field(default_factory=list)
    ttl_seconds: int = 3600
    budget: bool = True
    brief: dict[str, Any] | None = None
    irreversible: bool = False
    told: list[tuple[ActionState, str]] = field(default_factory=list)

    @property
    def facts(self) -> tuple[object, ...]:
        """What a decision was made by, compared at its commit."""
        return self.mission_active, self.mission_version, self.tool_approved, self.tool_sha256

    @property
    def decided(self) -> list[tuple[ActionState, str]]:
        """What the kind was told, without that it has to wait."""
        return [entry for entry in self.told if entry[0] is not ActionState.WAITING]


class ToolCall:
    """The shape of a real tool call with facts from the scene."""

    code = "test.call"
    label = "Test call"
    cedar_action = "tool.call"

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def prepare(self, *, proposer: Principal, proposal: Proposal) -> Prepared:
        scene = self.scene
        seen = scene.facts
        amount = proposal.arguments.get("amount")
        return Prepared(
            team_id=scene.team_id,
            title=f"Call {proposal.tool}",
            envelope={"mission": f"{scene.mission_id}@{scene.mission_version}", "definition": scene.tool_sha256},
            principal_entity={
                "uid": {"type": "Agent", "id": str(scene.agent_id)},
                "attrs": {"team": str(scene.team_id), "runtime": "managed"},
                "parents": [],
            },
            resource_entity={
                "uid": {"type": "Tool", "id": proposal.tool},
                "attrs": {
                    "server": "books",
                    "read_only": False,
                    "reversible": True,
                    "approved": scene.tool_approved,
                },
                "parents": [],
            },
            context={
                "args": {AMOUNT: amount} if isinstance(amount, int) else {},
                "calls": 0,
                "importance": "normal",
                "mission_active": scene.mission_active,
                **scene.context,
            },
            grants=scene.grants,
            guards=tuple(scene.guards),
            guards_saw="Mission, tool, loop.",
            budget=BudgetRequest(
                account_id=scene.mission_id, money=Decimal("0.25"), currency="USD", signature=b"signature"
            )
            if scene.budget
            else None,
            agent_id=scene.agent_id,
            mission_id=scene.mission_id,
            mission_version=scene.mission_version,
            run_id=proposer.run_id,
            excluded_user_ids=tuple(scene.excluded),
            escalation_ttl_seconds=scene.ttl_seconds,
            effects=tuple(scene.effects),
            denial=scene.denial,
            still=lambda: scene.facts == seen,
            brief=(lambda: scene.brief or {}) if scene.brief is not None else None,
            irreversible=scene.irreversible,
        )

    def lock(self, *, subject_id: uuid.UUID | None) -> None:
        """Nothing of it comes before a question."""

    def on_decided(self, *, action_id: uuid.UUID, state: ActionState, actor: Principal) -> None:
        self.scene.told.append((state, actor.name))


class SignOff(ToolCall):
    """Something a person asks for and Remit itself performs when it is decided. Above 5 a second person agrees."""

    code = "test.sign_off"
    cedar_action = "mission.sign_off"

    def prepare(self, *, proposer: Principal, proposal: Proposal) -> Prepared:
        scene = self.scene
        return Prepared(
            team_id=scene.team_id,
            title="Sign off",
            envelope={"version": scene.mission_version},
            principal_entity={
                "uid": {"type": "Person", "id": str(proposer.id)},
                "attrs": {"roles": sorted(role.value for role in proposer.roles)},
                "parents": [],
            },
            resource_entity={
                "uid": {"type": "Mission", "id": str(scene.mission_id)},
                "attrs": {"importance": "normal", "state": "draft"},
                "parents": [],
            },
            context={
                "money_micros": int(proposal.arguments["money"]) * 1_000_000,
                "sign_off_above_micros": 5_000_000,
                "widens": False,
            },
            guards=tuple(scene.guards),
            mission_id=scene.mission_id,
            excluded_user_ids=tuple(scene.excluded),
        )


def make_run(scene: Scene, organisation: Organisation) -> Principal:
    return Principal(
        kind=PrincipalKind.RUN,
        id=new_id(),
        name=f"run {next(_NUMBERS)}",
        organisation_id=organisation.pk,
        team_id=scene.team_id,
        agent_id=scene.agent_id,
        mission_id=scene.mission_id,
        run_id=new_id(),
    )
