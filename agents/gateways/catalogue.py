"""Which tools one caller may see: granted by the mission in force, approved, of a server that is switched on and for
the caller's team."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agents.choices import ServerState, ToolState, Transport
from agents.grants import parse_grants
from agents.models import McpTool, Mission, MissionVersion
from agents.servers.selectors import mount_requests, sealed, tools_in_force
from agents.servers.types import PinnedTool, ServerAddress
from controlplane.common.statements import planned
from controlplane.tenancy.types import Permission, Principal

_PINNED = """
SELECT t.id, t.name, t.definition_sha256, t.read_only,
       s.id, s.slug, s.transport, s.environment, s.command, s.mounts::text, s.url, s.protocol_version,
       c.kind, c.header, c.token_url, c.client_id, c.scope, c.ciphertext, c.wrapped_key, c.key_id
FROM agents_mcptool t JOIN agents_mcpserver s ON s.id = t.server_id
LEFT JOIN agents_servercredential c ON c.server_id = s.id
WHERE s.organisation_id = %s AND t.qualified_name = %s AND t.state = %s AND s.state <> %s
  AND (s.team_ids IS NULL OR %s = ANY(s.team_ids))
"""


def granted_tools(principal: Principal) -> list[dict[str, Any]]:
    """Definitions in the order of their names, as tools/list shows them. Callers without a mission see none."""
    effects = _granted(principal)
    if not effects:
        return []
    rows = tools_in_force(organisation_id=principal.organisation_id, names=effects, team_id=principal.team_id)
    return [_shown(row, effects[row.qualified_name]) for row in rows if row.state == ToolState.ACTIVE]


def pinned_tool(principal: Principal, qualified_name: str) -> PinnedTool | None:
    """The approved tool of that name in the caller's own organisation: one plain query, as every call needs it."""
    rows = planned(
        _PINNED, [principal.organisation_id, qualified_name, ToolState.ACTIVE, ServerState.DISABLED, principal.team_id]
    )
    if not rows:
        return None
    row = rows[0]
    tool_id, name, sha256, read_only, server_id, slug, transport, environment, command, mounts, url, version = row[:12]
    server = ServerAddress(
        id=server_id,
        organisation_id=principal.organisation_id,
        slug=slug,
        transport=Transport(transport),
        environment=environment,
        command=tuple(command),
        mounts=tuple(mount_requests(json.loads(mounts))),
        url=url,
        protocol_version=version,
        credential=sealed(*row[12:]) if row[12] is not None else None,
    )
    return PinnedTool(tool_id, server, name, qualified_name, sha256, read_only)


def _granted(principal: Principal) -> Mapping[str, str]:
    """Tool → the kindest effect it is granted with."""
    if principal.mission_id is None:
        return {}
    mission = Mission.objects.restrict(principal, Permission.MISSION_VIEW).filter(pk=principal.mission_id).first()
    if mission is None:
        return {}
    version = MissionVersion.objects.filter(mission=mission, number=mission.version).first()
    effects: dict[str, str] = {}
    for grant in parse_grants(version.grants) if version else ():
        if effects.get(grant.tool) != "allow":
            effects[grant.tool] = grant.effect
    return effects


def _shown(row: McpTool, effect: str) -> dict[str, Any]:
    shown = {**row.definition, "name": row.qualified_name}
    schema = shown.get("outputSchema")
    if schema is not None and (not isinstance(schema, dict) or schema.get("type") != "object"):
        # Clients of the older generation know output schemas of objects only.
        del shown["outputSchema"]
    shown["_meta"] = {
        "remit/server": row.server.slug,
        "remit/effect": effect,
        "remit/definition": row.definition_sha256,
    }
    return shown
