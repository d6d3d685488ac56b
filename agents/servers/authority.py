"""Who may change a server, and for which teams; what every change of one ends with."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence

from agents import stops
from agents.choices import ServerState
from agents.models import McpServer, McpTool, Stop
from controlplane.audit.services import Subject
from controlplane.common.errors import FieldError, RemitError, conflict, forbidden, invalid, not_found
from controlplane.live.services import announce
from controlplane.tenancy.models import Team
from controlplane.tenancy.types import ALL_TEAMS, Permission, Principal


def require_write(actor: Principal) -> None:
    if not actor.has_anywhere(Permission.SERVER_WRITE):
        raise forbidden(Permission.SERVER_WRITE.value)


def writable_server(actor: Principal, server_id: uuid.UUID) -> McpServer:
    """Locked, inside the caller's transaction. Raises 404 for what the actor does not see."""
    rows = McpServer.objects.restrict(actor, Permission.SERVER_WRITE).select_for_update(of=("self",))
    row = rows.filter(pk=server_id).first()
    if row is None:
        raise not_found("server")
    return row


def changeable_server(actor: Principal, server_id: uuid.UUID) -> McpServer:
    """The same, for a change that counts for every team the server is for. Raises 403 too."""
    row = writable_server(actor, server_id)
    require_change(actor, row)
    return row


def usable_server(actor: Principal, server_id: uuid.UUID) -> McpServer:
    """A server that the actor may connect to now: no gate judges that, so what would refuse every call refuses it here.
    Raises 404, 409 `server.off`, `stop.in_force`."""
    rows = McpServer.objects.restrict(actor, Permission.SERVER_WRITE).select_related("credential")
    row = rows.filter(pk=server_id).first()
    if row is None:
        raise not_found("server")
    if not row.protocol_version:
        require_change(actor, row)  # what a first listing holds is in force for all of them
    if row.state == ServerState.DISABLED:
        raise conflict("server.off", f"The server “{row.name}” is switched off.", "Switch it on first.")
    own = actor.teams_with(Permission.SERVER_WRITE)
    teams = row.team_ids or (() if own is ALL_TEAMS else own)
    reached = Stop.objects.in_force().filter(organisation_id=row.organisation_id)
    stop = reached.filter(scope_id__in=[row.organisation_id, *teams]).first()
    if stop is not None:
        raise stops.refusal(stop)
    return row


def may_change(actor: Principal, row: McpServer) -> bool:
    """Whether they write servers in every team it is for: a change of it counts for all of these."""
    own = actor.teams_with(Permission.SERVER_WRITE)
    return own is ALL_TEAMS or (row.team_ids is not None and own.issuperset(row.team_ids))


def require_change(actor: Principal, row: McpServer) -> None:
    if not may_change(actor, row):
        raise RemitError(
            "permission.denied",
            f"“{row.name}” is also for teams in which you don't have the permission “{Permission.SERVER_WRITE.value}”.",
            403,
            remedies=("Ask an administrator of the organisation.",),
        )


def teams_for(actor: Principal, wanted: Collection[uuid.UUID] | None, before: McpServer | None) -> list[Team] | None:
    """The teams a server shall be for; None: every team. Raises 422 for none at all or a stranger's, 403 for teams
    whose access would change by somebody who may not write servers there."""
    own = actor.teams_with(Permission.SERVER_WRITE)
    held = None if before is None or before.team_ids is None else set(before.team_ids)
    if wanted is None:
        if own is not ALL_TEAMS and not (before is not None and held is None):
            raise forbidden(Permission.SERVER_WRITE.value)
        return None
    ids = set(wanted)
    teams = list(Team.objects.filter(organisation_id=actor.organisation_id, pk__in=ids).order_by("name"))
    if not ids or len(teams) != len(ids):
        raise invalid("server.teams", "Nothing was changed.", FieldError("/teams", "at least one team of yours"))
    if own is not ALL_TEAMS:
        everyone_loses = before is not None and held is None
        changed = ids if held is None else ids ^ held
        if everyone_loses or not changed <= own:
            raise forbidden(Permission.SERVER_WRITE.value)
    return teams


def team_words(teams: Sequence[Team] | None) -> str:
    return "every team" if teams is None else ", ".join(team.name for team in teams)


def server_subject(row: McpServer) -> Subject:
    return Subject("server", row.pk, row.name)


def tool_subject(tool: McpTool) -> Subject:
    return Subject("tool", tool.pk, tool.qualified_name)


def announce_servers(row: McpServer) -> None:
    announce(f"organisation:{row.organisation_id}", "servers")
