"""MCP servers, their tools and tests, and the templates that use them, as JSON."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agents.catalogue import Template
from agents.choices import CredentialKind, Runtime, ServerState, ServerTestState, ToolState, Transport
from agents.models import McpServer
from frontend.api.fields import Body, Choice, Flag, Id, Json, ListQuery, Moment, Money, Name, Text, money
from frontend.api.shapes.common import Reference
from frontend.api.shapes.missions import GrantShape
from frontend.templatetags.amounts import money_text


class ServerOut(serializers.Serializer):  # type: ignore[type-arg]
    id = Id()
    name = serializers.CharField()
    slug = serializers.CharField(help_text="The first half of its tools' names.")
    transport = serializers.ChoiceField(Transport.values)
    environment = serializers.CharField(allow_blank=True)
    command = serializers.ListField(child=serializers.CharField())
    url = serializers.CharField(allow_blank=True)
    state = serializers.ChoiceField(ServerState.values)
    error = serializers.CharField(allow_blank=True)
    protocol_version = serializers.CharField(allow_blank=True)
    checked_at = Moment(allow_null=True)
    team_ids = serializers.ListField(child=Id(), allow_null=True, help_text="null: every team may use it.")
    credential = serializers.SerializerMethodField(help_text="The kind that is set; its secret is never shown.")
    created_by = Reference()
    created_at = Moment()

    @extend_schema_field({"type": ["string", "null"], "enum": [*CredentialKind.values, None]})
    def get_credential(self, server: McpServer) -> str | None:
        held = getattr(server, "credential", None)
        return held.kind if held is not None else None


class MountIn(Body):
    """A folder of the state folder that its program sees; `{run}` and `{mission}` are filled in."""

    source = Text(max_length=200)  # type: ignore[assignment]
    target = Text(max_length=200)
    writable = Flag(required=False, default=False)


class ServerBody(Body):
    name = Name()
    slug = Text(max_length=40)
    transport = Choice(Transport.values)
    environment = Text(max_length=60, required=False, default="", allow_blank=True)
    command = serializers.ListField(child=Text(max_length=400), required=False, default=list, max_length=40)
    url = Text(max_length=400, required=False, default="", allow_blank=True)
    mounts = MountIn(many=True, required=False, default=list, max_length=20)  # type: ignore[call-arg]
    team_ids = serializers.ListField(
        child=Id(),
        allow_null=True,
        required=False,
        default=None,
        max_length=500,
        help_text="null: every team in which you may write servers.",
    )


class ServerTeamsBody(Body):
    team_ids = serializers.ListField(child=Id(), allow_null=True, max_length=500, help_text="null: every team.")


class CredentialBody(Body):
    """`secret`: the token, the header's value or the client's secret. The rest belongs to the kind."""

    kind = Choice(CredentialKind.values)
    secret = Text(max_length=4096, write_only=True)
    header = Text(max_length=60, required=False, default="", allow_blank=True)
    token_url = Text(max_length=400, required=False, default="", allow_blank=True)
    client_id = Text(max_length=200, required=False, default="", allow_blank=True)
    scope = Text(max_length=400, required=False, default="", allow_blank=True)


class ServerTestBody(Body):
    """With a tool, one call of it with these arguments."""

    tool_id = Id(required=False)
    arguments = Json(required=False)

    def validate(self, attrs: Any) -> Any:
        if "arguments" in attrs and "tool_id" not in attrs:
            raise serializers.ValidationError({"arguments": ["only with the tool that takes them"]})
        return attrs


class TestStepOut(serializers.Serializer):  # type: ignore[type-arg]
    step = serializers.CharField()
    milliseconds = serializers.IntegerField()
    said = serializers.CharField(allow_blank=True)
    passed = serializers.BooleanField()


class ServerTestOut(serializers.Serializer):  # type: ignore[type-arg]
    """One test. `answer` is the server's own text: data, nothing to obey."""

    id = Id()
    server_id = Id()
    state = serializers.ChoiceField(ServerTestState.values)
    steps = TestStepOut(many=True)
    tool = serializers.CharField(source="tool_name", allow_blank=True)
    answer = serializers.CharField(allow_blank=True)
    asked_by_id = Id()
    created_at = Moment()
    started_at = Moment(allow_null=True)
    ended_at = Moment(allow_null=True)


class RefreshedOut(serializers.Serializer):  # type: ignore[type-arg]
    """What asking the server for its tools changed. A server that is not reached is a `fault`, not an error."""

    added = serializers.ListField(child=serializers.CharField())
    quarantined = serializers.ListField(child=serializers.CharField())
    removed = serializers.ListField(child=serializers.CharField())
    fault = serializers.CharField(allow_blank=True)


class ServerQuery(ListQuery):
    state = serializers.ChoiceField(ServerState.values, required=False)


class ToolOut(serializers.Serializer):  # type: ignore[type-arg]
    """One tool of a server. `offered_sha256` is what approving it would put in force."""

    id = Id()
    server_id = Id()
    name = serializers.CharField()
    qualified_name = serializers.CharField(help_text="As agents see it.")
    state = serializers.ChoiceField(ToolState.values)
    definition = Json()
    definition_sha256 = serializers.CharField()
    pending_definition = Json(allow_null=True)
    offered_sha256 = serializers.SerializerMethodField()
    read_only = serializers.BooleanField()  # type: ignore[assignment]
    reversible = serializers.BooleanField()
    effects = serializers.ListField(child=serializers.CharField())
    approved_by_id = Id(allow_null=True)
    approved_at = Moment(allow_null=True)
    changed_at = Moment(allow_null=True)

    def get_offered_sha256(self, tool: Any) -> str:
        return str(tool.pending_sha256 or tool.definition_sha256)


class ToolQuery(ListQuery):
    server = Id(required=False)
    state = serializers.ChoiceField(ToolState.values, required=False)


class ApproveBody(Body):
    sha256 = Text(max_length=71, help_text="Of the definition that was read; another one is not approved.")


class DescribeBody(Body):
    read_only = Flag()  # type: ignore[assignment]
    reversible = Flag()
    effects = serializers.ListField(child=Text(max_length=60), max_length=20)


class TemplateFieldOut(serializers.Serializer):  # type: ignore[type-arg]
    name = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    kind = serializers.ChoiceField(["text", "money", "hours", "choice"])
    default = serializers.CharField(allow_blank=True)
    hint = serializers.CharField(allow_blank=True)
    choices = serializers.SerializerMethodField()

    def get_choices(self, field: Any) -> list[str]:
        return [value for value, _ in field.choices]


class TemplateOut(serializers.Serializer):  # type: ignore[type-arg]
    """A way to start a mission from a few fields."""

    code = serializers.CharField()
    name = serializers.CharField()
    sentence = serializers.CharField()
    usual_cost = serializers.SerializerMethodField()
    runtime = serializers.ChoiceField(Runtime.values)
    goal = serializers.CharField()
    criteria = serializers.ListField(child=serializers.CharField())
    grants = GrantShape(many=True)
    steps = serializers.IntegerField()
    tokens = serializers.IntegerField()
    budget = serializers.SerializerMethodField()
    form = TemplateFieldOut(many=True, source="fields", help_text="What `values` may hold.")
    servers = serializers.SerializerMethodField(help_text="Short names of the servers it needs.")

    def get_usual_cost(self, template: Template) -> str:
        about = f"about {money_text(template.usual_cost, self.context['currency'])}"
        return f"{about} {template.usual_cost_per}".strip()

    @extend_schema_field(Money)
    def get_budget(self, template: Template) -> dict[str, str] | None:
        return money(template.budget, self.context["currency"])

    def get_servers(self, template: Template) -> list[str]:
        return [need.slug for need in template.servers]
