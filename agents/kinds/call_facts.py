"""What the gate must know of a tool call, read in one statement, and read again where it is committed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import connection

from agents.choices import ENDED_RUN_STATES
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.common.ids import first_id
from controlplane.tenancy.types import Principal
from governance.types import Proposal

RATE_WINDOW: Final = timedelta(seconds=10)

# One statement for everything the gate must know of a call: it is the hot path of the whole product.
_SNAPSHOT = """
SELECT m.id, m.team_id, m.state, m.state_reason, m.owner_id, m.account_id, m.version, m.agent_id, m.title,
       v.id, v.grants, v.importance, v.deadline, v.currency,
       a.name, a.runtime, a.state, t.slug,
       r.state,
       tool.qualified_name, tool.definition_sha256, tool.definition, tool.state, tool.read_only, tool.reversible,
       tool.effects, server.slug, server.state,
       (SELECT count(*) FROM governance_action g WHERE g.run_id = r.id AND g.id > %(since)s
        AND g.id IS DISTINCT FROM %(again)s),
       CASE WHEN jsonb_path_exists(v.grants, '$[*] ? (@.tool == $tool && @.max_calls != null)',
                                   jsonb_build_object('tool', %(tool)s::text))
       THEN (SELECT count(*) FROM governance_action g WHERE g.run_id = r.id AND g.tool = %(tool)s
             AND g.id IS DISTINCT FROM %(again)s
             AND g.state IN ('permitted', 'executing', 'succeeded', 'failed', 'unknown'))
       ELSE 0 END,
       (SELECT stop.name || ' was stopped: ' || stop.reason FROM agents_stop stop
        WHERE stop.scope IN ('agent', 'team', 'organisation')
          AND stop.scope_id IN (m.agent_id, m.team_id, m.organisation_id) AND stop.lifted_at IS NULL LIMIT 1),
       (server.team_ids IS NULL OR m.team_id = ANY(server.team_ids)),
       EXISTS (SELECT 1 FROM tenancy_token k WHERE k.id = %(token)s AND k.revoked_at IS NOT NULL)
FROM agents_mission m
JOIN agents_missionversion v ON v.mission_id = m.id AND v.number = m.version
JOIN agents_agent a ON a.id = m.agent_id
JOIN tenancy_team t ON t.id = m.team_id
LEFT JOIN agents_run r ON r.mission_id = m.id AND r.id = %(run)s
LEFT JOIN (agents_mcptool tool JOIN agents_mcpserver server ON server.id = tool.server_id)
       ON tool.qualified_name = %(tool)s AND server.organisation_id = m.organisation_id
WHERE m.id = %(mission)s AND m.organisation_id = %(organisation)s
"""

# The same facts at the end, with the mission kept as it is until the decision is written.
_STILL = """
SELECT 1
FROM agents_mission m
JOIN agents_agent a ON a.id = m.agent_id
LEFT JOIN agents_run r ON r.mission_id = m.id AND r.id = %(run)s
LEFT JOIN (agents_mcptool tool JOIN agents_mcpserver server ON server.id = tool.server_id)
       ON tool.qualified_name = %(tool)s AND server.organisation_id = m.organisation_id
WHERE m.id = %(mission)s AND m.state = %(state)s AND m.version = %(version)s AND a.state = %(agent)s
  AND (r.id IS NULL OR r.state <> ALL(%(ended)s)) AND tool.state IS NOT DISTINCT FROM %(tool_state)s
  AND tool.definition_sha256 IS NOT DISTINCT FROM %(definition)s AND server.state IS NOT DISTINCT FROM %(server)s
  AND (server.team_ids IS NULL OR m.team_id = ANY(server.team_ids)) = %(for_team)s
  AND NOT EXISTS (SELECT 1 FROM tenancy_token k WHERE k.id = %(token)s AND k.revoked_at IS NOT NULL)
FOR SHARE OF m
"""


@dataclass(frozen=True)
class Snapshot:
    """The row of `_SNAPSHOT`, in its order."""

    mission_id: uuid.UUID
    team_id: uuid.UUID
    mission_state: str
    state_reason: str
    owner_id: uuid.UUID
    account_id: uuid.UUID | None
    mission_version: int
    agent_id: uuid.UUID
    title: str
    version_id: uuid.UUID
    grants: str
    importance: str
    deadline: datetime
    currency: str
    agent_name: str
    runtime: str
    agent_state: str
    team: str
    run_state: str | None
    tool: str | None
    definition_sha256: str | None
    definition: str | None
    tool_state: str | None
    read_only: bool | None
    reversible: bool | None
    effects: Sequence[str] | None
    server: str | None
    server_state: str | None
    recent: int
    calls: int
    stopped: str | None
    for_team: bool = True  # whether the mission's team is among those the server is for
    revoked: bool = False  # the token it was asked with, since it was recognised


def read(proposer: Principal, mission_id: uuid.UUID, run_id: uuid.UUID | None, proposal: Proposal) -> Snapshot:
    since = first_id(now() - RATE_WINDOW)
    with connection.cursor() as cursor:
        cursor.execute(
            _SNAPSHOT,
            {
                "since": since,
                "run": run_id,
                "tool": proposal.tool,
                "again": proposal.action_id,
                "mission": mission_id,
                "organisation": proposer.organisation_id,
                "token": proposer.token_id,
            },
        )
        row = cursor.fetchone()
    if row is None:
        raise RemitError("mission.not_found", "This token's mission does not exist any more.", 404)
    snapshot = Snapshot(*row)
    if snapshot.revoked:
        raise RemitError("token.revoked", "This token was revoked while its request was under way.", 401)
    return snapshot


def still(snapshot: Snapshot, *, run_id: uuid.UUID | None, tool: str, token_id: uuid.UUID | None) -> bool:
    """Inside a transaction: whether all of it is as it was read. The mission stays so until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            _STILL,
            {
                "run": run_id,
                "tool": tool,
                "mission": snapshot.mission_id,
                "state": snapshot.mission_state,
                "version": snapshot.mission_version,
                "agent": snapshot.agent_state,
                "ended": list(ENDED_RUN_STATES),
                "tool_state": snapshot.tool_state,
                "definition": snapshot.definition_sha256,
                "server": snapshot.server_state,
                "for_team": snapshot.for_team,
                "token": token_id,
            },
        )
        return cursor.fetchone() is not None
