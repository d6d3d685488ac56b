"""Reads of servers and tools. Everything a person sees starts from a permission queryset."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from django.db.models import Count, Exists, OuterRef, Prefetch, Q, QuerySet, Subquery

from agents.choices import (
    ENDED_MISSION_STATES,
    ENDED_RUN_STATES,
    CredentialKind,
    ServerState,
    ToolState,
    Transport,
)
from agents.models import McpServer, McpTool, Mission, MissionVersion, Run, ServerTest
from agents.servers.authority import may_change as may_change
from agents.servers.authority import require_change as require_change
from agents.servers.definitions import SEPARATOR
from agents.servers.types import MountRequest, PinnedTool, SealedCredential, ServerAddress
from controlplane.common.closeness import by_closeness
from controlplane.common.envelope import Envelope
from controlplane.common.errors import not_found
from controlplane.tenancy.models import Team
from controlplane.tenancy.types import Permission, Principal


@dataclass(frozen=True)
class Usage:
    """A mission under way that grants tools of one server: each tool's own name and how its remit in force grants it,
    "" for freely."""

    mission: Mission
    granted: Sequence[tuple[str, str]]


def servers(principal: Principal | None) -> QuerySet[McpServer]:
    rows = McpServer.objects.restrict(principal, Permission.SERVER_VIEW).select_related("created_by", "credential")
    return rows.prefetch_related(Prefetch("tools", McpTool.objects.order_by("name"))).order_by("name")


def server_list(principal: Principal | None) -> QuerySet[McpServer]:
    """With how many tools are `approved` and `quarantined`, without their definitions. One query."""
    rows = McpServer.objects.restrict(principal, Permission.SERVER_VIEW)
    approved = Count("tools", filter=Q(tools__state=ToolState.ACTIVE))
    quarantined = Count("tools", filter=Q(tools__state=ToolState.QUARANTINED))
    return rows.annotate(approved=approved, quarantined=quarantined).order_by("name")


def find_servers(
    principal: Principal | None, *, text: str, key: uuid.UUID | None = None, limit: int = 5
) -> list[McpServer]:
    rows = McpServer.objects.restrict(principal, Permission.SERVER_VIEW)
    wanted = Q(pk=key) if key else Q(name__icontains=text) | Q(slug__icontains=text)
    return list(rows.filter(wanted).order_by(by_closeness(text), "name")[:limit])


def server(principal: Principal | None, server_id: uuid.UUID) -> McpServer:
    found = servers(principal).filter(pk=server_id).first()
    if found is None:
        raise not_found("server")
    return found


def tool(principal: Principal | None, tool_id: uuid.UUID) -> McpTool:
    rows = McpTool.objects.restrict(principal, Permission.SERVER_VIEW)
    found = rows.select_related("server", "approved_by").filter(pk=tool_id).first()
    if found is None:
        raise not_found("tool")
    return found


def tools(
    principal: Principal | None, *, server_id: uuid.UUID | None = None, state: str | None = None
) -> QuerySet[McpTool]:
    rows = McpTool.objects.restrict(principal, Permission.SERVER_VIEW)
    wanted = {"server_id": server_id, "state": state}
    return rows.filter(**{name: value for name, value in wanted.items() if value}).order_by("-id")


def tool_names(principal: Principal | None, *, team_id: uuid.UUID | None = None) -> list[str]:
    """The full names of the tools that can be granted (to a mission of that team), for people to choose from. One
    query."""
    rows = _grantable(principal, team_id)
    return list(rows.order_by("qualified_name").values_list("qualified_name", flat=True)[:1000])


def unknown_tools(principal: Principal | None, names: Collection[str], *, team_id: uuid.UUID) -> list[str]:
    """Those of the names that no tool has which can be granted to a mission of that team. One query."""
    found = _grantable(principal, team_id).filter(qualified_name__in=names)
    return sorted(set(names) - set(found.values_list("qualified_name", flat=True)))


def _grantable(principal: Principal | None, team_id: uuid.UUID | None) -> QuerySet[McpTool]:
    rows = McpTool.objects.restrict(principal, Permission.SERVER_VIEW).exclude(state=ToolState.REMOVED)
    if team_id is None:
        return rows
    return rows.filter(Q(server__team_ids__isnull=True) | Q(server__team_ids__contains=[team_id]))


def missions_using(principal: Principal | None, names: Collection[str], *, limit: int = 50) -> list[Usage]:
    """Missions not yet over whose remit in force grants one of these tools, the newest first. Two queries."""
    if not names:
        return []
    granted = Q()
    for name in names:
        granted |= Q(grants__contains=[{"tool": name}])
    versions = MissionVersion.objects.filter(granted, mission=OuterRef("pk"), number=OuterRef("version"))
    rows = Mission.objects.restrict(principal, Permission.MISSION_VIEW).exclude(state__in=ENDED_MISSION_STATES)
    rows = rows.filter(Exists(versions)).annotate(grants_in_force=Subquery(versions.values("grants")[:1]))
    wanted = set(names)
    return [
        Usage(mission, _granted(vars(mission)["grants_in_force"], wanted))
        for mission in rows.select_related("agent", "owner", "team").prefetch_related("runs").order_by("-id")[:limit]
    ]


def _granted(grants: Iterable[dict[str, object]], wanted: Collection[str]) -> list[tuple[str, str]]:
    effects: dict[str, set[object]] = {}
    for grant in grants:
        if grant.get("tool") in wanted:
            effects.setdefault(str(grant["tool"]), set()).add(grant.get("effect"))
    return [(name.partition(SEPARATOR)[2], _how(effects[name])) for name in sorted(effects)]


def _how(effects: Collection[object]) -> str:
    if "escalate" not in effects:
        return ""
    return "with a person" if len(effects) == 1 else "partly with a person"


def team_names(principal: Principal, row: McpServer) -> list[str] | None:
    """The teams a server is for, as far as the reader is in them, with how many more; None: every team."""
    if row.team_ids is None:
        return None
    known = Team.objects.restrict(principal, Permission.SERVER_VIEW).filter(pk__in=row.team_ids).order_by("name")
    names = list(known.values_list("name", flat=True))
    more = len(row.team_ids) - len(names)
    return [*names, f"{more} more"] if more else names


def newest_test(principal: Principal, server_id: uuid.UUID) -> ServerTest | None:
    """Of a server that the reader was already found to see."""
    rows = ServerTest.objects.restrict(principal, Permission.SERVER_VIEW).filter(server_id=server_id)
    return rows.select_related("asked_by").order_by("-created_at").first()


def tools_in_force(
    *, organisation_id: uuid.UUID, names: Collection[str], team_id: uuid.UUID | None = None
) -> list[McpTool]:
    """The named tools of one organisation by name, with their servers; quarantined ones too, for callers to tell.
    With a team: only those of servers that its missions may use."""
    rows = McpTool.objects.filter(server__organisation_id=organisation_id, qualified_name__in=names)
    if team_id is not None:
        rows = rows.filter(Q(server__team_ids__isnull=True) | Q(server__team_ids__contains=[team_id]))
    return list(rows.exclude(server__state=ServerState.DISABLED).select_related("server").order_by("qualified_name"))


def may_be_tried(row: McpTool) -> bool:
    """Whether a test may call it, past the gate: approved, and both people and its own definition say it only reads.

    What one of them says is not enough: whoever asks for the test may be who said so, and servers are not believed.
    """
    annotations = row.definition.get("annotations")
    hint = isinstance(annotations, dict) and annotations.get("readOnlyHint") is True
    return row.state == ToolState.ACTIVE and row.read_only and hint


def address_of(row: McpServer) -> ServerAddress:
    """Join `credential` where many are read."""
    held = getattr(row, "credential", None)  # absent: Django raises what counts as an AttributeError
    return ServerAddress(
        id=row.pk,
        organisation_id=row.organisation_id,
        slug=row.slug,
        transport=Transport(row.transport),
        environment=row.environment,
        command=tuple(row.command),
        mounts=tuple(mount_requests(row.mounts)),
        url=row.url,
        protocol_version=row.protocol_version,
        credential=sealed(
            held.kind,
            held.header,
            held.token_url,
            held.client_id,
            held.scope,
            held.ciphertext,
            held.wrapped_key,
            held.key_id,
        )
        if held
        else None,
    )


def sealed(
    kind: str,
    header: str,
    token_url: str,
    client_id: str,
    scope: str,
    ciphertext: bytes | memoryview,
    wrapped_key: bytes | memoryview,
    key_id: str,
) -> SealedCredential:
    """From its columns."""
    envelope = Envelope(bytes(ciphertext), bytes(wrapped_key), key_id)
    return SealedCredential(CredentialKind(kind), envelope, header, token_url, client_id, scope)


def pinned(row: McpTool) -> PinnedTool:
    return PinnedTool(
        id=row.pk,
        server=address_of(row.server),
        name=row.name,
        qualified_name=row.qualified_name,
        definition_sha256=row.definition_sha256,
        read_only=row.read_only,
    )


def needs_a_mission(row: McpServer) -> bool:
    """A program whose folders are a mission's own: without one there is nothing it could show."""
    return row.transport == Transport.STDIO and any("{" in str(mount.get("source", "")) for mount in row.mounts)


def mount_requests(raw: Iterable[dict[str, object]]) -> list[MountRequest]:
    return [MountRequest(str(item["source"]), str(item["target"]), bool(item.get("writable", False))) for item in raw]


def ended_runs(run_ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Which of these runs are over or gone."""
    live = set(Run.objects.filter(pk__in=run_ids).exclude(state__in=ENDED_RUN_STATES).values_list("pk", flat=True))
    return [run_id for run_id in run_ids if run_id not in live]
