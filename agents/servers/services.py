"""The registry of MCP servers: registering, listing their tools, quarantine of what changed, approval by people."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection, Sequence

from django.db import IntegrityError, transaction

from agents.choices import ServerState, ToolState, Transport
from agents.models import McpServer, McpTool
from agents.servers.authority import (
    announce_servers,
    changeable_server,
    may_change,
    require_change,
    require_write,
    server_subject,
    team_words,
    teams_for,
    tool_subject,
    usable_server,
    writable_server,
)
from agents.servers.definitions import qualified, schema_problem
from agents.servers.health import next_check
from agents.servers.registration import registration_errors
from agents.servers.selectors import address_of
from agents.servers.sessions import open_session
from agents.servers.types import (
    DEFAULT_LIMITS,
    NO_RUN,
    Limits,
    Listing,
    MountRequest,
    Refreshed,
    RejectedTool,
    RunContext,
    ServerAddress,
    ServerFault,
    ToolDefinition,
    ToolTraits,
)
from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.clock import now
from controlplane.common.errors import conflict, invalid, not_found
from controlplane.live.services import announce
from controlplane.tenancy.types import ALL_TEAMS, Permission, Principal, system_principal

__all__ = ["Refreshed", "approve_definition", "describe_tool", "register_server", "server_subject", "set_teams"]


def register_server(
    *,
    actor: Principal,
    name: str,
    slug: str,
    transport: Transport,
    environment: str = "",
    command: Sequence[str] = (),
    url: str = "",
    mounts: Sequence[MountRequest] = (),
    team_ids: Collection[uuid.UUID] | None = None,
) -> McpServer:
    """A server of the actor's organisation, not reached yet. Whoever reads its tools first approves them.

    `team_ids` says which teams may use it; None: every team in which the actor may write servers. One that was tried
    and never reached gives its short name to a new registration. Raises 422 `server.invalid` naming every field, 409
    `server.slug_taken`.
    """
    require_write(actor)
    if not actor.is_person or actor.user_id is None:
        raise invalid("server.owner", "A server is registered by a person.")
    errors = registration_errors(name, slug, transport, environment, command, url, mounts)
    if errors:
        raise invalid("server.invalid", "The server can't be registered as it is.", *errors)
    own = actor.teams_with(Permission.SERVER_WRITE)
    wanted = own if team_ids is None and own is not ALL_TEAMS else team_ids
    teams = teams_for(actor, wanted, None)
    try:
        with transaction.atomic():
            _make_way(actor, slug)
            row = McpServer.objects.create(
                organisation_id=actor.organisation_id,
                name=name.strip(),
                slug=slug,
                transport=transport,
                environment=environment,
                command=list(command),
                mounts=[
                    {"source": mount.source, "target": mount.target, "writable": mount.writable} for mount in mounts
                ],
                url=url,
                team_ids=None if teams is None else [team.pk for team in teams],
                created_by_id=actor.user_id,
            )
            record(
                event=Event.SERVER_REGISTERED,
                actor=actor,
                subject=server_subject(row),
                payload={
                    "transport": transport.value,
                    "environment": environment,
                    "command": list(command),
                    "url": url,
                    "teams": team_words(teams),
                },
            )
            announce_servers(row)
    except IntegrityError as error:
        if "server_slug_once" not in str(error):
            raise
        raise conflict(
            "server.slug_taken", f"A server is already called “{slug}”.", "Choose another short name."
        ) from error
    return row


def _make_way(actor: Principal, slug: str) -> None:
    """What was mistyped can be typed anew: nothing was ever called under that name. A credential goes with its row."""
    rows = McpServer.objects.restrict(actor, Permission.SERVER_WRITE).select_for_update(of=("self",))
    row = rows.filter(slug=slug, state=ServerState.UNREACHABLE, protocol_version="", tools=None).first()
    if row is not None and may_change(actor, row) and not row.tests.filter(ended_at=None).exists():
        row.delete()


def refresh_tools(
    *, actor: Principal, server_id: uuid.UUID, context: RunContext = NO_RUN, limits: Limits = DEFAULT_LIMITS
) -> Refreshed:
    """Ask the server for its tools in a short session and record what they are. For threads without an event loop.

    `context` says whose folders a stdio server sees; without one they are empty. A server that can't be reached is a
    result (`fault`), not an exception. Raises as `usable_server`.
    """
    address = address_of(usable_server(actor, server_id))
    try:
        listing = asyncio.run(list_tools(address, context, limits))
    except ServerFault as fault:
        note_fault(server=address, fault=fault)
        return Refreshed(fault=fault.message)
    return record_listing(actor=actor, server=address, listing=listing)


async def list_tools(server: ServerAddress, context: RunContext = NO_RUN, limits: Limits = DEFAULT_LIMITS) -> Listing:
    """One listing through a session that lives no longer than it takes. Raises ServerFault."""
    session = await open_session(server, context, limits)
    try:
        return session.listing or Listing(session.protocol_version)
    finally:
        await asyncio.shield(session.close())


def record_listing(
    *, actor: Principal, server: ServerAddress, listing: Listing, milliseconds: int | None = None
) -> Refreshed:
    """Compare a listing with what is pinned. Only the very first listing of a server is taken as approved.

    `milliseconds`: how long connecting and listing took, where it was measured.
    """
    with transaction.atomic():
        row = McpServer.objects.select_for_update(of=("self",)).filter(pk=server.id).first()
        if row is None:
            raise not_found("server")
        first, was = row.protocol_version == "", row.state
        known = {tool.name: tool for tool in McpTool.objects.select_for_update().filter(server=row)}
        added, quarantined = [], []
        for offered in listing.tools:
            tool = known.pop(offered.name, None)
            if tool is None:
                _discover(actor, row, offered, approved=first)
                added.append(offered.name)
            elif _note_change(actor, tool, offered):
                quarantined.append(offered.name)
        removed = [tool.name for tool in known.values() if _remove(actor, tool)]
        row.state = row.state if row.state == ServerState.DISABLED else ServerState.OK
        row.error = _rejections(listing.rejected)
        row.protocol_version = listing.protocol_version
        row.checked_at = now()
        row.failures = 0
        row.latency_milliseconds = row.latency_milliseconds if milliseconds is None else milliseconds
        row.next_check_at = next_check(row)
        row.save(
            update_fields=[
                *("state", "error", "protocol_version", "checked_at"),
                *("failures", "latency_milliseconds", "next_check_at"),
            ]
        )
        if first or added or quarantined or removed or row.state != was:
            announce_servers(row)
    return Refreshed(added, quarantined, removed, listing.rejected)


def note_fault(*, server: ServerAddress, fault: ServerFault) -> None:
    """The server could not be reached or misbehaved while listing. Its tools stay as they are pinned, and the next
    look at it comes later each time."""
    with transaction.atomic():
        rows = McpServer.objects.select_for_update(of=("self",)).exclude(state=ServerState.DISABLED)
        row = rows.filter(pk=server.id).first()
        if row is None:
            return
        row.state, row.error = ServerState.UNREACHABLE, f"{fault.code}: {fault.message}"[:300]
        row.checked_at, row.failures = now(), row.failures + 1
        row.next_check_at = next_check(row)
        row.save(update_fields=["state", "error", "checked_at", "failures", "next_check_at"])
        announce(f"organisation:{row.organisation_id}", "servers")


def approve_definition(*, actor: Principal, tool_id: uuid.UUID, sha256: str) -> McpTool:
    """Put the definition with that hash in force: the one the person has read, or nothing.

    Raises 409 `tool.definition_moved` when the server offers something else by now, 422 `tool.schema_unusable`.
    """
    require_write(actor)
    if not actor.is_person or actor.user_id is None:
        raise invalid("tool.approver", "A definition is approved by a person.")
    with transaction.atomic():
        rows = McpTool.objects.restrict(actor, Permission.SERVER_WRITE).select_for_update(of=("self",))
        tool = rows.select_related("server").filter(pk=tool_id).first()
        if tool is None:
            raise not_found("tool")
        require_change(actor, tool.server)
        offered = tool.pending_definition if tool.pending_definition is not None else tool.definition
        offered_sha256 = tool.pending_sha256 or tool.definition_sha256
        if tool.state != ToolState.QUARANTINED or offered_sha256 != sha256:
            raise conflict(
                "tool.definition_moved",
                "The definition you read is not the one the server offers now. Nothing was approved.",
                "Reload the page and read the definition again.",
            )
        problem = schema_problem(offered)
        if problem:
            raise invalid("tool.schema_unusable", f"This definition can't be approved. {problem}")
        tool.definition, tool.definition_sha256 = offered, offered_sha256
        tool.pending_definition, tool.pending_sha256 = None, ""
        tool.state = ToolState.ACTIVE
        tool.approved_by_id, tool.approved_at = actor.user_id, now()
        tool.save()
        record(event=Event.TOOL_APPROVED, actor=actor, subject=tool_subject(tool), payload={"hash": sha256})
        announce_servers(tool.server)
    return tool


def describe_tool(*, actor: Principal, tool_id: uuid.UUID, traits: ToolTraits) -> McpTool:
    """Say what a tool does: whether it only reads, can be undone, and which effects sequence rules should see."""
    require_write(actor)
    with transaction.atomic():
        rows = McpTool.objects.restrict(actor, Permission.SERVER_WRITE).select_for_update(of=("self",))
        tool = rows.select_related("server").filter(pk=tool_id).first()
        if tool is None:
            raise not_found("tool")
        require_change(actor, tool.server)
        tool.read_only, tool.reversible = traits.read_only, traits.reversible
        tool.effects = sorted({effect[:60] for effect in traits.effects})
        tool.save(update_fields=["read_only", "reversible", "effects"])
        facts = {"read_only": tool.read_only, "reversible": tool.reversible, "effects": tool.effects}
        words = ", ".join(
            [word for word, holds in (("only reads", tool.read_only), ("can be undone", tool.reversible)) if holds]
            + list(tool.effects)
        )
        record(
            event=Event.TOOL_DESCRIBED,
            actor=actor,
            subject=tool_subject(tool),
            payload={**facts, "traits": words or "nothing in particular"},
        )
        announce_servers(tool.server)
    return tool


def switch_server(*, actor: Principal, server_id: uuid.UUID, on: bool) -> McpServer:
    """Take a server out of use, or back: switched off, none of its tools can be called whatever is granted."""
    require_write(actor)
    with transaction.atomic():
        row = changeable_server(actor, server_id)
        wanted = (ServerState.OK if row.protocol_version else ServerState.NEW) if on else ServerState.DISABLED
        if (row.state == ServerState.DISABLED) is not on:
            return row
        row.state = wanted
        row.next_check_at = next_check(row) if on else None
        row.save(update_fields=["state", "next_check_at"])
        record(
            event=Event.SERVER_SWITCHED,
            actor=actor,
            subject=server_subject(row),
            payload={"position": "on" if on else "off"},
        )
        announce_servers(row)
    return row


# Listing against pins ------------------------------------------------------------------------------------------------


def _discover(actor: Principal, row: McpServer, offered: ToolDefinition, *, approved: bool) -> None:
    """A tool never seen before. It is in force only with the first listing, approved by whoever asked for that."""
    usable = not schema_problem(offered.definition)
    in_force = approved and usable
    tool = McpTool.objects.create(
        server=row,
        name=offered.name,
        qualified_name=qualified(row.slug, offered.name),
        definition=offered.definition,
        definition_sha256=offered.sha256,
        state=ToolState.ACTIVE if in_force else ToolState.QUARANTINED,
        approved_by_id=(actor.user_id or row.created_by_id) if in_force else None,
        approved_at=now() if in_force else None,
        changed_at=now(),
    )
    record(event=Event.TOOL_DISCOVERED, actor=actor, subject=tool_subject(tool), payload={"hash": offered.sha256})
    if not in_force:
        _record_quarantine(actor, tool, offered.sha256)


def _note_change(actor: Principal, tool: McpTool, offered: ToolDefinition) -> bool:
    """Whether the tool went into quarantine, or what waits there was replaced by yet another definition.

    A definition that went back to the pinned one stays quarantined until a person says so: it has been something else.
    """
    if tool.state == ToolState.ACTIVE and offered.sha256 == tool.definition_sha256:
        return False
    if tool.state == ToolState.QUARANTINED and offered.sha256 == (tool.pending_sha256 or tool.definition_sha256):
        return False
    tool.pending_definition, tool.pending_sha256 = dict(offered.definition), offered.sha256
    tool.state = ToolState.QUARANTINED
    tool.changed_at = now()
    tool.save(update_fields=["pending_definition", "pending_sha256", "state", "changed_at"])
    _record_quarantine(actor, tool, offered.sha256)
    return True


def _remove(actor: Principal, tool: McpTool) -> bool:
    if tool.state == ToolState.REMOVED:
        return False
    tool.state = ToolState.REMOVED
    tool.changed_at = now()
    tool.save(update_fields=["state", "changed_at"])
    record(event=Event.TOOL_REMOVED, actor=actor, subject=tool_subject(tool), payload={"hash": tool.definition_sha256})
    return True


def _record_quarantine(actor: Principal, tool: McpTool, sha256: str) -> None:
    record(
        event=Event.TOOL_QUARANTINED,
        actor=actor,
        subject=tool_subject(tool),
        payload={"pinned": tool.definition_sha256, "offered": sha256},
    )


def _rejections(rejected: Sequence[RejectedTool]) -> str:
    if not rejected:
        return ""
    first = rejected[0]
    more = f" and {len(rejected) - 1} more" if len(rejected) > 1 else ""
    return f"Tools left out: “{first.name}”{more}. {first.reason}"[:300]


def set_teams(*, actor: Principal, server_id: uuid.UUID, team_ids: Collection[uuid.UUID] | None) -> McpServer:
    """Which teams may use a server and see it; None: every team. Missions of other teams are refused from the next
    call on, whatever they grant. Raises 403 for teams the actor does not write servers in."""
    require_write(actor)
    with transaction.atomic():
        row = writable_server(actor, server_id)
        teams = teams_for(actor, team_ids, row)
        chosen = None if teams is None else sorted(team.pk for team in teams)
        if chosen == (None if row.team_ids is None else sorted(row.team_ids)):
            return row
        row.team_ids = chosen
        row.save(update_fields=["team_ids"])
        record(
            event=Event.SERVER_TEAMS_SET, actor=actor, subject=server_subject(row), payload={"teams": team_words(teams)}
        )
        announce_servers(row)
    return row


def listing_actor(server: ServerAddress) -> Principal:
    """Remit itself, for listings that a session took rather than a person."""
    return system_principal(organisation_id=server.organisation_id)
