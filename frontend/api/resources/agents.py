"""Agents and their versions: registered, read, retired."""

from __future__ import annotations

import uuid

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from agents import selectors, services
from agents.choices import Runtime
from agents.models import Agent
from controlplane.tenancy.types import Permission
from frontend.api.operations import Resource, operation
from frontend.api.shapes import agents as shapes


class AgentResource(Resource):
    tag = "agents"

    def shown(self, agent_id: uuid.UUID, *, status: int = 200) -> HttpResponseBase:
        agent = selectors.agent(self.principal, agent_id)
        location = f"/api/v1/agents/{agent_id}"
        version = f"{agent.current_version}.{agent.state}"
        return self.item(shapes.AgentOut(agent).data, version=version, status=status, location=location)

    def agent(self, agent_id: uuid.UUID, permission: Permission) -> Agent:
        """Raises 404, and 403 for those who may see it but not do this."""
        found = selectors.agent(self.principal, agent_id)
        self.require(permission, found.team_id)
        return found


class Agents(AgentResource):
    @operation(
        "agents_list",
        "List agents",
        permission=Permission.AGENT_VIEW,
        query=shapes.AgentQuery,
        answer=shapes.AgentOut,
        listed=True,
    )
    def get(self, request: Request) -> Response:
        rows = selectors.agents(self.principal, text=self.query["q"], state=self.query.get("state", ""))
        return self.page(rows, shapes.AgentOut)

    @operation(
        "agents_create",
        "Register an agent",
        permission=Permission.AGENT_WRITE,
        body=shapes.AgentBody,
        answer=shapes.AgentOut,
        status=201,
        about="By a person, who owns it from then on.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        body = self.body
        agent = services.register_agent(
            actor=self.principal,
            team_id=body["team_id"],
            name=body["name"],
            runtime=Runtime(body["runtime"]),
            description=body["description"],
            capabilities=body["capabilities"],
            program=body["program"],
            command=body["command"],
            resources=shapes.resources_from(body.get("resources")),
            wall_clock_seconds=body["wall_clock_seconds"],
            version_label=body["version_label"],
        )
        return self.shown(agent.pk, status=201)


class AgentItem(AgentResource):
    @operation("agents_get", "Read an agent", permission=Permission.AGENT_VIEW, answer=shapes.AgentOut)
    def get(self, request: Request, agent_id: uuid.UUID) -> HttpResponseBase:
        return self.shown(agent_id)


class AgentRetire(AgentResource):
    @operation(
        "agents_retire",
        "Retire an agent",
        permission=Permission.AGENT_WRITE,
        answer=shapes.AgentOut,
        about="It gets no new missions.",
    )
    def post(self, request: Request, agent_id: uuid.UUID) -> HttpResponseBase:
        self.agent(agent_id, Permission.AGENT_WRITE)
        services.retire_agent(actor=self.principal, agent_id=agent_id)
        return self.shown(agent_id)


class AgentReinstate(AgentResource):
    @operation(
        "agents_reinstate",
        "Take a retired agent back",
        permission=Permission.AGENT_WRITE,
        answer=shapes.AgentOut,
    )
    def post(self, request: Request, agent_id: uuid.UUID) -> HttpResponseBase:
        self.agent(agent_id, Permission.AGENT_WRITE)
        services.reinstate_agent(actor=self.principal, agent_id=agent_id)
        return self.shown(agent_id)


class AgentVersions(AgentResource):
    tag = "agent-versions"

    @operation(
        "agent_versions_list",
        "List versions of agents",
        permission=Permission.AGENT_VIEW,
        query=shapes.AgentVersionQuery,
        answer=shapes.AgentVersionOut,
        listed=True,
    )
    def get(self, request: Request) -> Response:
        rows = selectors.agent_versions(self.principal, self.query.get("agent"))
        return self.page(rows, shapes.AgentVersionOut)

    @operation(
        "agent_versions_create",
        "Add a version of an agent",
        permission=Permission.AGENT_WRITE,
        body=shapes.AgentVersionBody,
        answer=shapes.AgentVersionOut,
        status=201,
        about="Runs started from now on use it; runs under way keep theirs.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        body = self.body
        self.agent(body["agent_id"], Permission.AGENT_WRITE)
        version = services.add_version(
            actor=self.principal,
            agent_id=body["agent_id"],
            label=body["label"],
            program=body["program"],
            command=body["command"],
            resources=shapes.resources_from(body.get("resources")),
            wall_clock_seconds=body["wall_clock_seconds"],
        )
        data = shapes.AgentVersionOut(version).data
        return self.item(data, version=version.number, status=201, location=f"/api/v1/agent-versions/{version.pk}")


class AgentVersionItem(Resource):
    tag = "agent-versions"

    @operation(
        "agent_versions_get",
        "Read a version of an agent",
        permission=Permission.AGENT_VIEW,
        answer=shapes.AgentVersionOut,
    )
    def get(self, request: Request, version_id: uuid.UUID) -> HttpResponseBase:
        version = selectors.agent_version(self.principal, version_id)
        return self.item(shapes.AgentVersionOut(version).data, version=version.number)
