"""Who acts and what they may: roles, permissions and the principal every service takes. Plain values, no queries."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.common.errors import forbidden


class Role(enum.StrEnum):
    ADMIN = "admin"
    BUILDER = "builder"
    APPROVER = "approver"
    FINANCE = "finance"
    AUDITOR = "auditor"

    @property
    def label(self) -> str:
        return self.value.capitalize()

    @property
    def sentence(self) -> str:
        return _ROLE_SENTENCES[self]


class Permission(enum.StrEnum):
    AGENT_VIEW = "agent.view"
    AGENT_WRITE = "agent.write"
    MISSION_VIEW = "mission.view"
    MISSION_WRITE = "mission.write"
    MISSION_OPERATE = "mission.operate"  # start, pause, resume, stop, accept
    ACTION_VIEW = "action.view"
    ACTION_PROPOSE = "action.propose"
    ESCALATION_VIEW = "escalation.view"
    ESCALATION_DECIDE = "escalation.decide"
    ESCALATION_BREAK_GLASS = "escalation.break_glass"
    BUDGET_VIEW = "budget.view"
    BUDGET_WRITE = "budget.write"
    COST_VIEW = "cost.view"
    AUDIT_VIEW = "audit.view"
    AUDIT_EXPORT = "audit.export"
    SERVER_VIEW = "server.view"
    SERVER_WRITE = "server.write"
    POLICY_VIEW = "policy.view"
    POLICY_WRITE = "policy.write"
    SANDBOX_VIEW = "sandbox.view"
    MEMBER_VIEW = "member.view"
    MEMBER_WRITE = "member.write"
    TOKEN_WRITE = "token.write"  # noqa: S105
    ORGANISATION_WRITE = "organisation.write"

    @property
    def sentence(self) -> str:
        """What the holder may do, as the table of roles says it."""
        return _PERMISSION_SENTENCES[self]


_READ = frozenset(
    {
        Permission.AGENT_VIEW,
        Permission.MISSION_VIEW,
        Permission.ACTION_VIEW,
        Permission.BUDGET_VIEW,
        Permission.SERVER_VIEW,
        Permission.POLICY_VIEW,
        Permission.SANDBOX_VIEW,
        Permission.MEMBER_VIEW,
    }
)
ROLE_PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission) - {Permission.ACTION_PROPOSE},
    Role.BUILDER: _READ
    | {
        Permission.AGENT_WRITE,
        Permission.MISSION_WRITE,
        Permission.MISSION_OPERATE,
        Permission.ESCALATION_VIEW,
        Permission.SERVER_WRITE,
        Permission.TOKEN_WRITE,
        Permission.COST_VIEW,
    },
    Role.APPROVER: _READ | {Permission.ESCALATION_VIEW, Permission.ESCALATION_DECIDE, Permission.AUDIT_VIEW},
    Role.FINANCE: _READ | {Permission.BUDGET_WRITE, Permission.COST_VIEW, Permission.AUDIT_VIEW},
    Role.AUDITOR: _READ
    | {Permission.ESCALATION_VIEW, Permission.COST_VIEW, Permission.AUDIT_VIEW, Permission.AUDIT_EXPORT},
}
_ROLE_SENTENCES = {
    Role.ADMIN: "Manages members, servers, policies and limits, and may do what the other roles do.",
    Role.BUILDER: "Registers agents, starts missions, watches and stops them.",
    Role.APPROVER: "Decides what agents may not decide alone. Never their own requests.",
    Role.FINANCE: "Sees every cost and sets budgets.",
    Role.AUDITOR: "Sees everything, changes nothing.",
}
_PERMISSION_SENTENCES = {
    Permission.AGENT_VIEW: "See agents",
    Permission.AGENT_WRITE: "Register and retire agents",
    Permission.MISSION_VIEW: "See missions, runs and their output",
    Permission.MISSION_WRITE: "Draft missions and change their remit",
    Permission.MISSION_OPERATE: "Start, pause, resume, stop and accept missions",
    Permission.ACTION_VIEW: "See actions and how they were judged",
    Permission.ACTION_PROPOSE: "Propose actions, as agents do",
    Permission.ESCALATION_VIEW: "See what waits for a person",
    Permission.ESCALATION_DECIDE: "Approve and refuse what waits for a person",
    Permission.ESCALATION_BREAK_GLASS: "Pass over a question in an emergency, reviewed afterwards",
    Permission.BUDGET_VIEW: "See budgets",
    Permission.BUDGET_WRITE: "Set limits, freeze and release budgets",
    Permission.COST_VIEW: "See costs",
    Permission.AUDIT_VIEW: "Read and verify the audit trail",
    Permission.AUDIT_EXPORT: "Export the audit trail with its proof",
    Permission.SERVER_VIEW: "See MCP servers and their tools",
    Permission.SERVER_WRITE: "Register MCP servers and approve tools",
    Permission.POLICY_VIEW: "Read policies",
    Permission.POLICY_WRITE: "Change policies",
    Permission.SANDBOX_VIEW: "See sandboxes and their capacity",
    Permission.MEMBER_VIEW: "See who is a member, with which role",
    Permission.MEMBER_WRITE: "Invite and deactivate people, give and take roles",
    Permission.TOKEN_WRITE: "Issue tokens for agents and services",
    Permission.ORGANISATION_WRITE: "Change the organisation's settings and add teams",
}
# Reads, and decides nothing: what somebody gets whom nobody gave a role by hand.
LEAST_ROLE = Role.AUDITOR
# What machines may: an agent's own credential, one run of one mission, a service account.
AGENT_PERMISSIONS = frozenset({Permission.MISSION_VIEW, Permission.ACTION_PROPOSE, Permission.ACTION_VIEW})


class PrincipalKind(enum.StrEnum):
    USER = "user"
    SERVICE = "service"
    AGENT = "agent"
    RUN = "run"
    SYSTEM = "system"


ALL_TEAMS = None  # in `Principal.roles`: the role counts in every team of the organisation


@dataclass(frozen=True)
class Principal:
    """Someone authenticated, inside one organisation. Made only by `tenancy.services`, never from request data.

    `roles` maps a role to the teams it counts in (ALL_TEAMS for the whole organisation). For agents and runs `roles` is
    empty and `agent_id`, `mission_id`, `run_id` say what they are bound to.
    """

    kind: PrincipalKind
    id: uuid.UUID
    name: str
    organisation_id: uuid.UUID
    organisation_name: str = ""
    roles: Mapping[Role, frozenset[uuid.UUID] | None] = field(default_factory=dict)
    user_id: uuid.UUID | None = None
    team_id: uuid.UUID | None = None
    agent_id: uuid.UUID | None = None
    mission_id: uuid.UUID | None = None
    run_id: uuid.UUID | None = None
    token_id: uuid.UUID | None = None
    scopes: frozenset[Permission] | None = None  # None: everything the roles allow
    time_zone: str = "UTC"
    second_factor_required: bool = False  # by the organisation, of people who sign in

    def teams_with(self, permission: Permission) -> frozenset[uuid.UUID] | None:
        """Teams in which the permission holds; ALL_TEAMS (None) for the whole organisation; empty for nowhere."""
        if self.scopes is not None and permission not in self.scopes:
            return frozenset()
        if self.kind is PrincipalKind.SYSTEM:
            return ALL_TEAMS
        if self.kind in (PrincipalKind.AGENT, PrincipalKind.RUN):
            held = permission in AGENT_PERMISSIONS and self.team_id is not None
            return frozenset({self.team_id}) if held and self.team_id else frozenset()
        teams: set[uuid.UUID] = set()
        for role, where in self.roles.items():
            if permission not in ROLE_PERMISSIONS[role]:
                continue
            if where is ALL_TEAMS:
                return ALL_TEAMS
            teams |= where
        return frozenset(teams)

    def has(self, permission: Permission, *, team_id: uuid.UUID | None = None) -> bool:
        """Whether the permission holds in `team_id`; without a team: for the organisation as a whole."""
        teams = self.teams_with(permission)
        return teams is ALL_TEAMS or (team_id is not None and team_id in teams)

    def has_anywhere(self, permission: Permission) -> bool:
        teams = self.teams_with(permission)
        return teams is ALL_TEAMS or bool(teams)

    def require(self, permission: Permission, *, team_id: uuid.UUID | None = None) -> None:
        if not self.has(permission, team_id=team_id):
            raise forbidden(permission.value)

    @property
    def is_narrowed(self) -> bool:
        """Acts by a token that leaves out something of what the roles allow."""
        return self.scopes is not None and any(not ROLE_PERMISSIONS[role] <= self.scopes for role in self.roles)

    @property
    def is_person(self) -> bool:
        return self.kind is PrincipalKind.USER


def system_principal(*, organisation_id: uuid.UUID, name: str = "Remit") -> Principal:
    """Remit itself: sweeps, timers, reconciliation."""
    return Principal(kind=PrincipalKind.SYSTEM, id=uuid.UUID(int=0), name=name, organisation_id=organisation_id)
