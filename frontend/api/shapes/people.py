"""Members, invitations, teams and tokens as JSON."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from controlplane.tenancy.directory import Person
from controlplane.tenancy.models import Team, TokenKind
from controlplane.tenancy.types import Permission, Role
from frontend.api.fields import Body, Choice, Id, ListQuery, Moment, Name, Text, Whole
from frontend.api.shapes.common import Reference

_ROLES = [role.value for role in Role]
_PERMISSIONS = [permission.value for permission in Permission]


class HeldRole(serializers.Serializer):  # type: ignore[type-arg]
    """A role and where it counts; without a team in the whole organisation."""

    role = serializers.ChoiceField(_ROLES)
    team = Reference(allow_null=True)


class MemberOut(serializers.Serializer):  # type: ignore[type-arg]
    """A person of the organisation. `last_seen` and `second_factor` are shown to those who manage members."""

    id = Id(source="user.pk")
    name = serializers.CharField(source="user.name")
    email = serializers.CharField(source="user.email")
    roles = serializers.SerializerMethodField()
    deactivated_at = Moment(source="suspended_at", allow_null=True)
    last_seen = serializers.SerializerMethodField()
    second_factor = serializers.SerializerMethodField()

    @extend_schema_field(HeldRole(many=True))
    def get_roles(self, person: Person) -> list[dict[str, Any]]:
        return roles_out((seat.team, role) for seat in person.seats for role in seat.roles)

    @extend_schema_field({"type": ["string", "null"], "format": "date-time"})
    def get_last_seen(self, person: Person) -> str | None:
        moment = person.last_seen if self.context["manages"] else None
        return Moment().to_representation(moment) if moment else None

    @extend_schema_field({"type": ["boolean", "null"]})
    def get_second_factor(self, person: Person) -> bool | None:
        return person.second_factor if self.context["manages"] else None


def roles_out(held: Iterable[tuple[Team | None, Role]]) -> list[dict[str, Any]]:
    return [
        {"role": role.value, "team": {"id": str(team.pk), "name": team.name} if team else None} for team, role in held
    ]


class MemberQuery(ListQuery):
    state = serializers.ChoiceField(["active", "deactivated"], required=False)
    q = serializers.CharField(
        required=False, default="", allow_blank=True, max_length=100, help_text="In name or address."
    )


class RoleIn(Body):
    role = Choice(_ROLES)
    team_id = Id(required=False, allow_null=True, default=None)


class RolesBody(Body):
    """All roles the person has from now on in the places you may change."""

    roles = RoleIn(many=True)


class InvitationBody(Body):
    email = Text(max_length=254)
    roles = RoleIn(many=True)


class InvitationOut(serializers.Serializer):  # type: ignore[type-arg]
    id = Id()
    email = serializers.CharField()
    roles = HeldRole(many=True)
    invited_by = Reference()
    created_at = Moment()
    expires_at = Moment()


class NewInvitationOut(serializers.Serializer):  # type: ignore[type-arg]
    id = Id()
    email = serializers.CharField()
    expires_at = Moment()
    link = serializers.CharField(help_text="Works once. Shown this once.")
    mailed = serializers.BooleanField(help_text="A mail server took it.")


class EndedOut(serializers.Serializer):  # type: ignore[type-arg]
    """What deactivating ended."""

    sessions = serializers.IntegerField()
    tokens = serializers.IntegerField()
    invitations = serializers.IntegerField()


class TeamOut(serializers.Serializer):  # type: ignore[type-arg]
    id = Id()
    name = serializers.CharField()
    slug = serializers.CharField()
    created_at = Moment()


class TeamBody(Body):
    name = Name()


class TokenOut(serializers.Serializer):  # type: ignore[type-arg]
    """A credential without its secret. `hint` is its last four characters."""

    id = Id()
    kind = serializers.ChoiceField(TokenKind.values)
    name = serializers.CharField()
    hint = serializers.CharField()
    user_id = Id(allow_null=True)
    agent_id = Id(allow_null=True)
    team_id = Id(allow_null=True)
    scopes = serializers.ListField(child=serializers.CharField(), allow_null=True, help_text="null: all its owner may.")
    created_at = Moment()
    expires_at = Moment()
    revoked_at = Moment(allow_null=True)
    last_used_at = Moment(allow_null=True)


class NewTokenOut(TokenOut):
    token = serializers.CharField(help_text="Shown this once.")


class TokenQuery(ListQuery):
    agent = Id(required=False, help_text="The credentials of this agent, rather than people's and services'.")


class TokenBody(Body):
    """`pat` acts as you, `svc` reads for a service, `agt` is one agent's (with `agent_id`, without `scopes`)."""

    kind = Choice([TokenKind.PERSON.value, TokenKind.SERVICE.value, TokenKind.AGENT.value])
    name = Name()
    expires_at = Moment()
    scopes = serializers.ListField(child=Choice(_PERMISSIONS), required=False, min_length=1, max_length=60)
    agent_id = Id(required=False)

    def validate(self, attrs: Any) -> Any:
        if (attrs["kind"] == TokenKind.AGENT) != ("agent_id" in attrs):
            raise serializers.ValidationError({"agent_id": ["for a token of kind agt, and for no other"]})
        if attrs["kind"] == TokenKind.AGENT and "scopes" in attrs:
            raise serializers.ValidationError({"scopes": ["an agent's mission says what it may"]})
        return attrs


class RotateBody(Body):
    overlap_seconds = Whole(min_value=0, max_value=7 * 24 * 3600, help_text="How long the old one goes on.")


def roles_in(data: Any) -> set[tuple[uuid.UUID | None, Role]]:
    return {(item["team_id"], Role(item["role"])) for item in data}
