"""Every page and every form of Northwind: who may not open it, a body that would change something, and what that is."""

from __future__ import annotations

from typing import Any

from allauth.usersessions.models import UserSession
from django.urls import reverse

from agents.models import Agent, McpServer, McpTool, Mission, Stop
from budgets.costs.facts import refresh_changed
from budgets.costs.models import CostMission
from budgets.models import Account, AccountLimit, LimitChange
from controlplane.audit.models import Entry
from controlplane.tenancy.members import fingerprint
from controlplane.tenancy.models import Invitation, Membership, Organisation, Token
from controlplane.tenancy.types import Role
from governance import services
from governance.approval_models import ApprovalRoute, ApproverGroup, BreakGlass, Delegation, EscalationMessage
from governance.models import Action, Escalation, Vote

# Page → roles that may not open it; everyone else of the organisation may.
CLOSED_LISTS = {
    "home": set(),
    "missions": set(),
    "mission-new": set(),
    "approvals": {"finn"},
    "approval-health": {"finn"},
    "broken-glass": {"finn"},
    "notices": set(),
    "notices-count": set(),
    "notices-bell": set(),
    "warnings": set(),
    "settings-approvals": {"finn"},
    "agents": set(),
    "agent-new": {"bob", "dana", "finn"},
    "budgets": set(),
    "costs": {"bob", "dana"},
    "audit": {"alice"},
    "audit-exports": {"alice", "bob", "dana", "finn"},
    "servers": set(),
    "server-new": {"bob", "dana", "finn"},
    "policies": set(),
    "stops": set(),
    "me": set(),
    "members": set(),
    "roles": set(),
    "teams": set(),
    "member-invite": {"alice", "bob", "dana", "finn"},
    "tokens": set(),
    "token-new": set(),
    "organisation": {"alice", "bob", "dana", "finn"},
    "search": set(),
    "approvals-csv": {"finn"},
}
DECIDING = {"approval-edit", "approval-claim", "approval-release", "approvals-decide", "broken-glass-review"}
ARRANGING = {"approval-break-glass", "approval-group-save", "approval-route-save", "delegation-save"}
MONEY = {"budget-limit", "budget-freeze", "budget-unfreeze", "budget-change"}
PAGES_WITH_FORMS = {
    "approval-route",
    "mission-change",
    "mission-ask",
    "credential-new",
    "server-teams",
    "server-try",
    "server-credential",
    "stop-new",
    "budget-limit",
    "approval-edit",
}  # opened at the address that they are sent to
OWN_FORMS = ("me", "agent-new", "server-new", "mission-new", "switch-organisation", "member-invite", "token-new")
OWN_FORMS += ("organisation", "teams", "sessions-end", "mfa_activate_totp", "mfa_generate_recovery_codes")
TABS = ("timeline", "remit", "budget", "output", "checklist", "runs")


def items(world: Any) -> dict[str, str]:
    """Every GET address that names something of Northwind."""
    mission, escalation = world.mission, Escalation.objects.latest("id")
    entry = Entry.objects.filter(organisation=world.organisation, mission_id=mission.pk).latest("id")
    return {
        "mission": reverse("mission", args=[mission.pk]),
        "approval-route": reverse("approval-route", args=[ApprovalRoute.objects.get().pk]),
        **{f"mission-{tab}": reverse("mission-tab", args=[mission.pk, tab]) for tab in TABS},
        "mission-part": reverse("mission", args=[mission.pk]) + "?part=timeline",
        "action": reverse("action", args=[escalation.action_id]),
        "approval": reverse("approval", args=[escalation.pk]),
        "agent": reverse("agent", args=[world.agent.pk]),
        "budget": reverse("budget", args=[world.account_of("mission", mission.pk)]),
        "budget-csv": reverse("budget", args=[world.account_of("mission", mission.pk)]) + "?format=csv",
        "cost-goal": reverse("cost-goal", args=[costs_of(mission).goal]),
        "cost-mission": reverse("cost-mission", args=[mission.pk]),
        "audit-entry": reverse("audit-entry", args=[entry.pk]),
        "server": reverse("server", args=[world.server.pk]),
        "member": reverse("member", args=[world.owner.id]),
        "token-rotate": reverse("token-rotate", args=[laptop(world).pk]),
        "stop": reverse("stop", args=[Stop.objects.get(name="the agent Packer").pk]),
        "stop-question": reverse("stop-new") + f"?scope=mission&id={mission.pk}",
        "mission-actions-csv": reverse("mission-actions-csv", args=[mission.pk]),
    }


def costs_of(mission: Mission) -> CostMission:
    """What costs know of the mission, once they were told."""
    refresh_changed()
    return CostMission.objects.get(pk=mission.pk)


def laptop(world: Any) -> Token:
    """Alice's own token."""
    return Token.objects.get(user_id=world.owner.id, name="Laptop")


def forms(world: Any) -> dict[str, tuple[str, dict[str, str]]]:
    """Every POST address that changes something of Northwind, with a body that would."""
    mission, escalation = world.mission, Escalation.objects.latest("id")
    tool = McpTool.objects.get(qualified_name="books__overdue")
    account = world.account_of("team", world.team.pk)
    credential = Token.objects.get(agent_id=world.agent.pk, kind="agt")
    operate = {
        f"mission-{what}": (reverse("mission-operate", args=[mission.pk, what]), {"reason": "no"})
        for what in ("submit", "pause", "resume", "stop", "restart", "accept", "reject", "token")
    }
    return {
        **operate,
        "mission-change": (reverse("mission-change", args=[mission.pk]), {"do": "send", "base": "1"}),
        "mission-ask": (reverse("mission-ask", args=[mission.pk]), {"money": "1.00", "reason": "More customers"}),
        "mission-resize": (
            reverse("mission-resize", args=[mission.pk]),
            {"cpu_millicores": "500", "memory_mib": "512"},
        ),
        "action-settle": (
            reverse("action-settle", args=[Action.objects.filter(mission_id=mission.pk).latest("id").pk]),
            {"outcome": "success", "reason": "I looked"},
        ),
        "approve": (reverse("approval-decide", args=[escalation.pk]), {"answer": "approve", "version": "1"}),
        "deny": (reverse("approval-decide", args=[escalation.pk]), {"answer": "deny", "version": "1", "reason": "no"}),
        "approval-edit": (
            reverse("approval-edit", args=[escalation.pk]),
            {"do": "send", "version": "1", "arg0": "150.00", "arg1": "no", "arg2": "INV-0131"},
        ),
        "approval-claim": (reverse("approval-claim", args=[escalation.pk]), {}),
        "approval-release": (reverse("approval-release", args=[escalation.pk]), {}),
        "approval-withdraw": (reverse("approval-withdraw", args=[escalation.pk]), {}),
        "approval-say": (reverse("approval-say", args=[escalation.pk]), {"text": "Why?", "to": "agent"}),
        "approval-break-glass": (
            reverse("approval-break-glass", args=[escalation.pk]),
            {"version": "1", "reason": "The payment run closes in minutes."},
        ),
        "approvals-decide": (reverse("approvals-decide"), {"answer": "approve", "row": f"{escalation.pk}:1"}),
        "broken-glass-review": (
            reverse("broken-glass-review", args=[BreakGlass.objects.get().pk]),
            {"verdict": "justified", "note": "It was."},
        ),
        "approval-group-save": (
            reverse("approval-group-save"),
            {"group": str(ApproverGroup.objects.get().pk), "do": "retire"},
        ),
        "approval-route-save": (
            reverse("approval-route-save"),
            {"route": str(ApprovalRoute.objects.get().pk), "do": "remove"},
        ),
        "approval-route": (
            reverse("approval-route", args=[ApprovalRoute.objects.get().pk]),
            {"name": "Mine", "needed": "1", "seen": services.version_of_route(ApprovalRoute.objects.get())},
        ),
        "delegation-save": (
            reverse("delegation-save"),
            {"delegation": str(Delegation.objects.get().pk), "do": "end"},
        ),
        "credential-new": (reverse("credential-new", args=[world.agent.pk]), {"name": "Laptop", "days": "30"}),
        "credential-revoke": (reverse("credential-revoke", args=[world.agent.pk, credential.pk]), {}),
        "agent-retire": (reverse("agent-retire", args=[world.agent.pk]), {}),
        "budget-limit": (reverse("budget-limit", args=[account]), {"window": "month", "money": "1", "reason": "no"}),
        "budget-freeze": (reverse("budget-freeze", args=[account]), {"reason": "no"}),
        "budget-unfreeze": (reverse("budget-unfreeze", args=[account]), {"reason": "no"}),
        "budget-ask": (reverse("budget-ask", args=[account]), {"money": "1.00", "reason": "no"}),
        "budget-change": (reverse("budget-change", args=[LimitChange.objects.get().pk]), {"answer": "confirm"}),
        "server-refresh": (reverse("server-refresh", args=[world.server.pk]), {}),
        "agent-reinstate": (reverse("agent-reinstate", args=[world.agent.pk]), {}),
        "server-teams": (reverse("server-teams", args=[world.server.pk]), {"visibility": "everyone"}),
        "server-try": (reverse("server-try", args=[world.server.pk]), {"tool": str(tool.pk), "arguments": "{}"}),
        "server-credential": (
            reverse("server-credential", args=[world.server.pk]),
            {"kind": "bearer", "secret": "0123456789abcdef"},
        ),
        "server-credential-remove": (reverse("server-credential-remove", args=[world.server.pk]), {}),
        "server-switch": (reverse("server-switch", args=[world.server.pk]), {"on": "0"}),
        "tool-approve": (reverse("tool-approve", args=[tool.pk]), {"sha256": tool.definition_sha256}),
        "stop-new": (reverse("stop-new"), {"scope": "mission", "id": str(mission.pk)}),
        "stop-lift": (reverse("stop-lift", args=[Stop.objects.get(name="the agent Packer").pk]), {}),
        "tool-describe": (reverse("tool-describe", args=[tool.pk]), {}),
        "member-roles": (
            reverse("member-roles", args=[world.owner.id]),
            {"held": "all:admin", "seen": fingerprint([(world.team.pk, Role.BUILDER)])},
        ),
        **{
            f"member-{what}": (reverse("member-operate", args=[world.owner.id, what]), {})
            for what in ("deactivate", "reactivate", "reset-second-factor")
        },
        **{
            f"invitation-{what}": (reverse("invitation-operate", args=[Invitation.objects.get().pk, what]), {})
            for what in ("renew", "revoke")
        },
        "token-revoke": (reverse("token-revoke", args=[laptop(world).pk]), {}),
        "session-end": (reverse("session-end", args=[UserSession.objects.get(ip="192.0.2.7").pk]), {}),
    }


def state(world: Any) -> list[Any]:
    """What none of the refused forms may have touched."""
    return [
        list(Mission.objects.values_list("pk", "state", "outcome", "version")),
        list(Agent.objects.values_list("pk", "state")),
        list(Token.objects.order_by("pk").values_list("pk", "revoked_at")),
        list(McpServer.objects.values_list("pk", "state", "checked_at")),
        list(McpTool.objects.order_by("pk").values_list("pk", "state", "read_only", "reversible", "definition_sha256")),
        list(Escalation.objects.order_by("pk").values_list("pk", "state", "version", "claimed_by")),
        list(ApproverGroup.objects.values_list("pk", "name", "retired_at")),
        list(ApprovalRoute.objects.values_list("pk", "name")),
        list(Delegation.objects.values_list("pk", "ends_at")),
        list(BreakGlass.objects.values_list("pk", "reviewed_by")),
        EscalationMessage.objects.count(),
        list(Action.objects.order_by("pk").values_list("pk", "state")),
        list(AccountLimit.objects.order_by("pk").values_list("account", "money")),
        list(Account.objects.order_by("pk").values_list("pk", "frozen")),
        list(LimitChange.objects.values_list("pk", "state")),
        Vote.objects.count(),
        list(Membership.objects.order_by("pk").values_list("pk", "role", "team_id", "suspended_at")),
        list(Token.objects.order_by("pk").values_list("pk", "revoked_at", "expires_at")),
        list(Invitation.objects.values_list("pk", "hash", "revoked_at", "accepted_at")),
        UserSession.objects.filter(ip="192.0.2.7").count(),
        list(Organisation.objects.order_by("pk").values_list("name", "time_zone", "second_factor_required")),
        list(Stop.objects.order_by("pk").values_list("pk", "lifted_at")),
        Entry.objects.exclude(event__startswith="person.").count(),
    ]
