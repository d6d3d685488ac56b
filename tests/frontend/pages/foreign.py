"""What stands in the addresses of pages and of the REST interface, and a real row of Northwind for each of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from allauth.usersessions.models import UserSession
from django.db import connection
from django.urls import get_resolver
from rest_framework import serializers

from agents.choices import StopScope
from agents.models import AgentVersion, McpTool, Run, Stop
from agents.saved_views import SavedView
from budgets.costs.facts import refresh_changed
from budgets.costs.models import CostMission
from budgets.models import Hold, LimitChange
from controlplane.audit.models import Entry, Job
from controlplane.clusters.models import Sandbox
from controlplane.common.clock import now
from controlplane.tenancy.models import Invitation, Token
from frontend.api.fields import Body, Choice, Flag, Id, Json, Moment, MoneyIn, Whole
from frontend.api.urls import documented
from governance.approval_models import ApprovalRoute, ApproverGroup, BreakGlass, Delegation
from governance.models import Escalation

# Parameter of an address → the row of Northwind that a stranger names in it.
ROWS: dict[str, Callable[[Any], Any]] = {
    "account_id": lambda world: world.account_of("team", world.team.pk),
    "action_id": lambda world: Escalation.objects.latest("id").action_id,
    "agent_id": lambda world: world.agent.pk,
    "break_glass_id": lambda world: BreakGlass.objects.get().pk,
    "budget_id": lambda world: world.account_of("mission", world.mission.pk),
    "change_id": lambda world: LimitChange.objects.get().pk,
    "delegation_id": lambda world: Delegation.objects.get().pk,
    "entry_id": lambda world: Entry.objects.filter(organisation=world.organisation).latest("id").pk,
    "escalation_id": lambda world: Escalation.objects.latest("id").pk,
    "goal": lambda world: CostMission.objects.get(pk=world.mission.pk).goal,
    "group_id": lambda world: ApproverGroup.objects.get().pk,
    "hold_id": lambda world: Hold.objects.latest("id").pk,
    "invitation_id": lambda world: Invitation.objects.get().pk,
    "job_id": lambda world: Job.objects.get().pk,
    "mission_id": lambda world: world.mission.pk,
    "route_id": lambda world: ApprovalRoute.objects.get().pk,
    "run_id": lambda world: Run.objects.filter(mission=world.mission).latest("id").pk,
    "sandbox_id": lambda world: Sandbox.objects.get().pk,
    "server_id": lambda world: world.server.pk,
    "session_id": lambda world: UserSession.objects.get(ip="192.0.2.7").pk,
    "stop_id": lambda world: Stop.objects.get(scope=StopScope.AGENT).pk,
    "team_id": lambda world: world.team.pk,
    "token_id": lambda world: Token.objects.get(user_id=world.owner.id, name="Laptop").pk,
    "tool_id": lambda world: McpTool.objects.get(qualified_name="books__overdue").pk,
    "user_id": lambda world: world.owner.id,
    "version_id": lambda world: AgentVersion.objects.filter(agent=world.agent).latest("id").pk,
    "view_id": lambda world: SavedView.objects.get().pk,
}
# Parameter → its words: part of what is served, of nobody.
WORDS: dict[str, tuple[str, ...]] = {
    "tab": ("timeline", "remit", "budget", "output", "checklist", "runs"),
    "what": (
        *("submit", "pause", "resume", "stop", "restart", "accept", "reject", "token"),
        *("deactivate", "reactivate", "reset-second-factor"),
        *("renew", "revoke"),
    ),
    "list_name": ("missions",),
    "code": ("receivables",),
}
# Whoever has the link is who it is for: no id stands in them. tests/frontend/pages/test_sign_in.py and test_members.py.
BY_SECRET = {"sign-in-link", "invitation", "approval-from-mail"}


@dataclass(frozen=True)
class Route:
    """One address: its name or path, its parameters, and what makes an address of them."""

    name: str
    parameters: tuple[str, ...]
    template: str
    view: Any = None

    def addresses(self, world: Any) -> Iterator[str]:
        """With a row of Northwind, and each word once where there are some."""
        ids = {name: [str(ROWS[name](world))] for name in self.parameters if name in ROWS}
        words = {name: list(WORDS[name]) for name in self.parameters if name in WORDS}
        names = [*ids, *words]
        for values in itertools.product(*ids.values(), *words.values()):
            path = self.template
            for name, value in zip(names, values, strict=True):
                path = path.replace("{" + name + "}", value)
            yield f"/{path}"


def pages() -> list[Route]:
    return [_route(pattern.name, pattern) for pattern in get_resolver("frontend.urls").url_patterns]


def resources() -> list[Route]:
    return [_route(str(pattern.pattern), pattern) for pattern in documented]


def _route(name: str, pattern: Any) -> Route:
    parameters = tuple(pattern.pattern.converters)
    template = str(pattern.pattern)
    for parameter in parameters:
        kind = next(kind for kind in ("uuid", "str", "int", "slug") if f"<{kind}:{parameter}>" in template)
        template = template.replace(f"<{kind}:{parameter}>", "{" + parameter + "}")
    return Route(name, parameters, template, getattr(pattern.callback, "view_class", None))


def furnish(world: Any) -> None:
    """The rows that a working Northwind lacks: a saved view, an export, costs."""
    owner, organisation = world.owner.id, world.organisation
    SavedView.objects.create(organisation=organisation, owner_id=owner, list="missions", name="Mine", query="q=x")
    Job.objects.create(
        organisation_id=organisation.pk,
        kind="export",
        asked_by_id=owner,
        first=1,
        last=1,
        position=1,
        state="ready",
        created_at=now(),
        expires_at=now() + timedelta(hours=1),
    )
    refresh_changed()


# What the database holds ----------------------------------------------------------------------------------------------

# Notes of requests rather than of what they did.
_NOTES = {"idempotency_idempotencykey", "django_session", "usersessions_usersession", "django_migrations"}


def contents() -> dict[str, str]:
    """Each table with its number of rows and a digest of all of them."""
    found = {}
    with connection.cursor() as cursor:
        for table in sorted(set(connection.introspection.table_names(cursor)) - _NOTES):
            cursor.execute(
                f"SELECT count(*) || ' ' || md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t"
            )
            found[table] = cursor.fetchone()[0]
    return found


# Bodies that would be taken -------------------------------------------------------------------------------------------


def body_for(form: type[Body], world: Any) -> dict[str, Any]:
    """A value for every required field, of the kind that it wants."""
    fields = form().fields
    return {name: _value(name, field, world) for name, field in fields.items() if field.required}


def _value(name: str, field: Any, world: Any) -> Any:
    match field:
        case Id():
            return str(ROWS[name](world)) if name in ROWS else str(world.owner.id)
        case Moment():
            return (now() + timedelta(days=1)).isoformat()
        case MoneyIn():
            return {"amount": "1.00"}
        case Flag():
            return True
        case Whole():
            return max(1, field.min_value or 1)
        case Choice():
            return next(iter(field.choices))
        case Json():
            return {}
        case serializers.ListSerializer():
            return [body_for(type(field.child), world)]
        case serializers.ListField():
            return [_value(name, field.child, world)]
        case serializers.Serializer():
            return body_for(type(field), world)
        case serializers.RegexField():
            return "1.00"
    return "Because"[: field.max_length or 7]
