"""MCP servers and their tools: registered, listed, approved, described; and the templates that use them."""

from __future__ import annotations

import uuid

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from agents.catalogue import TEMPLATES
from agents.choices import CredentialKind, Transport
from agents.models import McpTool
from agents.servers import checking, credentials, selectors, services
from agents.servers.types import MountRequest, ToolTraits
from controlplane.common.errors import not_found
from controlplane.idempotency.services import one_at_a_time
from controlplane.tenancy.selectors import currency_of
from controlplane.tenancy.types import Permission
from frontend.api.operations import Resource, digest_of, operation
from frontend.api.shapes import servers as shapes


class ServerResource(Resource):
    tag = "mcp-servers"

    def shown(self, server_id: uuid.UUID, *, status: int = 200) -> HttpResponseBase:
        server = selectors.server(self.principal, server_id)
        location = f"/api/v1/mcp-servers/{server_id}"
        return self.item(
            shapes.ServerOut(server).data, version=digest_of(server.team_ids), status=status, location=location
        )


class Servers(ServerResource):
    @operation(
        "mcp_servers_list",
        "List MCP servers",
        permission=Permission.SERVER_VIEW,
        query=shapes.ServerQuery,
        answer=shapes.ServerOut,
        listed=True,
    )
    def get(self, request: Request) -> Response:
        rows = selectors.servers(self.principal)
        if "state" in self.query:
            rows = rows.filter(state=self.query["state"])
        return self.page(rows, shapes.ServerOut)

    @operation(
        "mcp_servers_create",
        "Register an MCP server",
        permission=Permission.SERVER_WRITE,
        body=shapes.ServerBody,
        answer=shapes.ServerOut,
        status=201,
        about="By a person. Whoever reads its tools first approves what they are then.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        body = self.body
        server = services.register_server(
            actor=self.principal,
            name=body["name"],
            slug=body["slug"],
            transport=Transport(body["transport"]),
            environment=body["environment"],
            command=body["command"],
            url=body["url"],
            mounts=[MountRequest(**mount) for mount in body["mounts"]],
            team_ids=body["team_ids"],
        )
        return self.shown(server.pk, status=201)


class ServerItem(ServerResource):
    @operation("mcp_servers_get", "Read an MCP server", permission=Permission.SERVER_VIEW, answer=shapes.ServerOut)
    def get(self, request: Request, server_id: uuid.UUID) -> HttpResponseBase:
        return self.shown(server_id)


class ServerRefresh(ServerResource):
    @operation(
        "mcp_servers_refresh",
        "Ask an MCP server for its tools",
        permission=Permission.SERVER_WRITE,
        answer=shapes.RefreshedOut,
        one_transaction=False,  # it is a conversation over the network
        about="Within this request. Tools that changed are quarantined until a person approves them. Not while the"
        " server is switched off or a stop holds over who uses it.",
    )
    def post(self, request: Request, server_id: uuid.UUID) -> Response:
        selectors.server(self.principal, server_id)
        return Response(shapes.RefreshedOut(services.refresh_tools(actor=self.principal, server_id=server_id)).data)


class ServerSwitchOn(ServerResource):
    @operation(
        "mcp_servers_switch_on",
        "Take an MCP server back into use",
        permission=Permission.SERVER_WRITE,
        answer=shapes.ServerOut,
    )
    def post(self, request: Request, server_id: uuid.UUID) -> HttpResponseBase:
        services.switch_server(actor=self.principal, server_id=server_id, on=True)
        return self.shown(server_id)


class ServerSwitchOff(ServerResource):
    @operation(
        "mcp_servers_switch_off",
        "Take an MCP server out of use",
        permission=Permission.SERVER_WRITE,
        answer=shapes.ServerOut,
        about="None of its tools can be called then, whatever is granted.",
    )
    def post(self, request: Request, server_id: uuid.UUID) -> HttpResponseBase:
        services.switch_server(actor=self.principal, server_id=server_id, on=False)
        return self.shown(server_id)


class ServerSetTeams(ServerResource):
    @operation(
        "mcp_servers_set_teams",
        "Say which teams may use an MCP server",
        permission=Permission.SERVER_WRITE,
        body=shapes.ServerTeamsBody,
        answer={200: shapes.ServerOut, 204: None},
        if_match=True,
        about="It counts from the next call on. Without an answer to show (204) when it is none of yours any more.",
    )
    def post(self, request: Request, server_id: uuid.UUID) -> HttpResponseBase | None:
        one_at_a_time(f"server:{server_id}")
        self.must_match(digest_of(selectors.server(self.principal, server_id).team_ids))
        services.set_teams(actor=self.principal, server_id=server_id, team_ids=self.body["team_ids"])
        still_seen = selectors.servers(self.principal).filter(pk=server_id).exists()
        return self.shown(server_id) if still_seen else None


class ServerSetCredential(ServerResource):
    @operation(
        "mcp_servers_set_credential",
        "Set what Remit shows an MCP server of itself",
        permission=Permission.SERVER_WRITE,
        body=shapes.CredentialBody,
        answer=shapes.ServerOut,
        about="By a person. Sealed at once and never shown again.",
    )
    def post(self, request: Request, server_id: uuid.UUID) -> HttpResponseBase:
        selectors.server(self.principal, server_id)
        body = {**self.body, "kind": CredentialKind(self.body["kind"])}
        credentials.set_credential(actor=self.principal, server_id=server_id, credential=credentials.Credential(**body))
        return self.shown(server_id)


class ServerRemoveCredential(ServerResource):
    @operation(
        "mcp_servers_remove_credential",
        "Take away an MCP server's credential",
        permission=Permission.SERVER_WRITE,
        answer=shapes.ServerOut,
        about="Connections made from now on show none.",
    )
    def post(self, request: Request, server_id: uuid.UUID) -> HttpResponseBase:
        selectors.server(self.principal, server_id)
        credentials.remove_credential(actor=self.principal, server_id=server_id)
        return self.shown(server_id)


class ServerTestItem(Resource):
    tag = "mcp-servers"

    @operation(
        "mcp_servers_test_get",
        "Read the latest test of an MCP server",
        permission=Permission.SERVER_VIEW,
        answer=shapes.ServerTestOut,
    )
    def get(self, request: Request, server_id: uuid.UUID) -> HttpResponseBase:
        selectors.server(self.principal, server_id)
        found = selectors.newest_test(self.principal, server_id)
        if found is None:
            raise not_found("test")
        return self.item(shapes.ServerTestOut(found).data, version=found.state)


class ServerTestAsk(Resource):
    tag = "mcp-servers"

    @operation(
        "mcp_servers_test",
        "Test an MCP server",
        permission=Permission.SERVER_WRITE,
        body=shapes.ServerTestBody,
        answer=shapes.ServerTestOut,
        status=202,
        about="By a person. A worker connects and lists; with a tool it also makes that call, of one that only reads,"
        " as people and its own definition say. Not while the server is switched off or a stop holds over who uses it.",
    )
    def post(self, request: Request, server_id: uuid.UUID) -> Response:
        selectors.server(self.principal, server_id)
        test = checking.ask_for_test(
            actor=self.principal,
            server_id=server_id,
            tool_id=self.body.get("tool_id"),
            arguments=self.body.get("arguments"),
        )
        return Response(shapes.ServerTestOut(test).data, status=202)


class ToolResource(Resource):
    tag = "tools"

    def shown(self, tool_id: uuid.UUID) -> HttpResponseBase:
        tool = selectors.tool(self.principal, tool_id)
        return self.item(shapes.ToolOut(tool).data, version=version_of(tool))


def version_of(tool: McpTool) -> str:
    """What people decide about a tool."""
    return digest_of(tool.definition_sha256, tool.pending_sha256, tool.read_only, tool.reversible, *tool.effects)


class Tools(ToolResource):
    @operation(
        "tools_list",
        "List tools",
        permission=Permission.SERVER_VIEW,
        query=shapes.ToolQuery,
        answer=shapes.ToolOut,
        listed=True,
    )
    def get(self, request: Request) -> Response:
        rows = selectors.tools(self.principal, server_id=self.query.get("server"), state=self.query.get("state"))
        return self.page(rows, shapes.ToolOut)


class ToolItem(ToolResource):
    @operation("tools_get", "Read a tool", permission=Permission.SERVER_VIEW, answer=shapes.ToolOut)
    def get(self, request: Request, tool_id: uuid.UUID) -> HttpResponseBase:
        return self.shown(tool_id)


class ToolApprove(ToolResource):
    @operation(
        "tools_approve",
        "Approve a tool's definition",
        permission=Permission.SERVER_WRITE,
        body=shapes.ApproveBody,
        answer=shapes.ToolOut,
        about="By a person who has read the definition with this hash.",
    )
    def post(self, request: Request, tool_id: uuid.UUID) -> HttpResponseBase:
        services.approve_definition(actor=self.principal, tool_id=tool_id, sha256=self.body["sha256"])
        return self.shown(tool_id)


class ToolDescribe(ToolResource):
    @operation(
        "tools_describe",
        "Say what a tool does",
        permission=Permission.SERVER_WRITE,
        body=shapes.DescribeBody,
        answer=shapes.ToolOut,
        if_match=True,
    )
    def post(self, request: Request, tool_id: uuid.UUID) -> HttpResponseBase:
        one_at_a_time(f"tool:{tool_id}")
        self.must_match(version_of(selectors.tool(self.principal, tool_id)))
        traits = ToolTraits(
            read_only=self.body["read_only"], reversible=self.body["reversible"], effects=tuple(self.body["effects"])
        )
        services.describe_tool(actor=self.principal, tool_id=tool_id, traits=traits)
        return self.shown(tool_id)


class Templates(Resource):
    tag = "templates"

    @operation(
        "templates_list",
        "List mission templates",
        permission=Permission.MISSION_VIEW,
        answer=shapes.TemplateOut,
        listed=True,
        about="All on one page.",
    )
    def get(self, request: Request) -> Response:
        context = {"currency": currency_of(self.principal)}
        items = shapes.TemplateOut(list(TEMPLATES.values()), many=True, context=context).data
        return self.whole(items)


class TemplateItem(Resource):
    tag = "templates"

    @operation(
        "templates_get", "Read a mission template", permission=Permission.MISSION_VIEW, answer=shapes.TemplateOut
    )
    def get(self, request: Request, code: str) -> HttpResponseBase:
        found = TEMPLATES.get(code)
        if found is None:
            raise not_found("template")
        context = {"currency": currency_of(self.principal)}
        return self.item(shapes.TemplateOut(found, context=context).data, version=found.code)
