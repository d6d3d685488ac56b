"""What the gate must know of a tool call, read in one statement, and read again where it is committed."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Q

from agents.choices import ENDED_MISSION_STATES, ENDED_RUN_STATES, ServerState
from agents.grants import Grant, parse_grants
from agents.models import McpServer, MissionVersion
from agents.servers.definitions import SEPARATOR
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.common.ids import first_id
from controlplane.common.statements import planned
from controlplane.tenancy.models import Team
from controlplane.tenancy.types import Principal
from governance.types import Proposal, Statement

RATE_WINDOW: Final = timedelta(seconds=10)

# One statement for everything the gate must know of a call: it is the hot path of the whole product.
_SNAPSHOT = """
SELECT m.id, m.team_id, m.state, m.state_reason, m.owner_id, m.account_id, m.version, m.agent_id, m.title,
       v.id, v.importance, v.deadline, v.currency,
       a.name, a.runtime, a.state, t.slug,
       r.state,
       tool.qualified_name, tool.definition_sha256, tool.definition, tool.state, tool.read_only, tool.reversible,
       tool.effects, server.slug, server.state,
       (SELECT count(*) FROM governance_action g WHERE g.run_id = r.id AND g.id > %(since)s
        AND g.id IS DISTINCT FROM %(again)s),
       (SELECT stop.name || ' was stopped: ' || stop.reason FROM agents_stop stop
        WHERE stop.scope IN ('agent', 'team', 'organisation')
          AND stop.scope_id IN (m.agent_id, m.team_id, m.organisation_id) AND stop.lifted_at IS NULL LIMIT 1),
       (server.team_ids IS NULL OR m.team_id = ANY(server.team_ids)), m.xmin::text,
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

# The same facts at the end, with the mission kept as it is until the decision is written. Who waited for the mission
# sees its new row and all else as before the wait: so any change of that row counts (`xmin`), and stops change it.
_STILL = """
SELECT 1
FROM agents_mission m
JOIN agents_agent a ON a.id = m.agent_id
LEFT JOIN agents_run r ON r.mission_id = m.id AND r.id = %s
LEFT JOIN (agents_mcptool tool JOIN agents_mcpserver server ON server.id = tool.server_id)
       ON tool.qualified_name = %s AND server.organisation_id = m.organisation_id
WHERE m.id = %s AND m.xmin::text = %s AND m.state = %s AND m.version = %s AND a.state = %s
  AND (r.id IS NULL OR r.state <> ALL(%s)) AND tool.state IS NOT DISTINCT FROM %s
  AND tool.definition_sha256 IS NOT DISTINCT FROM %s AND server.state IS NOT DISTINCT FROM %s
  AND (server.team_ids IS NULL OR m.team_id = ANY(server.team_ids)) = %s
  AND NOT EXISTS (SELECT 1 FROM tenancy_token k WHERE k.id = %s AND k.revoked_at IS NOT NULL)
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
    stopped: str | None
    for_team: bool = True  # whether the mission's team is among those the server is for
    mission_row: str = ""  # the transaction that last changed it
    revoked: bool = False  # the token it was asked with, since it was recognised

    @property
    def is_over(self) -> bool:
        """Refused by a better name than its token's, which ended with it."""
        ended = self.mission_state in ENDED_MISSION_STATES or self.run_state in ENDED_RUN_STATES
        return ended or self.stopped is not None


def read(proposer: Principal, mission_id: uuid.UUID, run_id: uuid.UUID | None, proposal: Proposal) -> Snapshot:
    since = first_id(now() - RATE_WINDOW)
    rows = planned(
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
    if not rows:
        raise RemitError("mission.not_found", "This token's mission does not exist any more.", 404)
    snapshot = Snapshot(*rows[0])
    if snapshot.revoked and not snapshot.is_over:
        raise RemitError("token.revoked", "This token was revoked while its request was under way.", 401)
    return snapshot


@functools.lru_cache(maxsize=512)
def grants_of(version_id: uuid.UUID) -> tuple[Grant, ...]:
    """A version is one wording and never changes, and there may be a hundred grants: they are read once."""
    return tuple(parse_grants(MissionVersion.objects.values_list("grants", flat=True).get(pk=version_id)))


def why_unknown(team_id: uuid.UUID, tool: str) -> tuple[str, ...]:
    """Reason code, sentence and remedies for a granted tool that is not known: what is wrong with its server, where the
    team may use it. Off the way of calls that go through."""
    slug = tool.partition(SEPARATOR)[0]
    organisation = Team.objects.filter(pk=team_id).values("organisation_id")
    rows = McpServer.objects.filter(organisation_id__in=organisation, slug=slug)
    server = rows.filter(Q(team_ids__isnull=True) | Q(team_ids__contains=[team_id])).first()
    if server is None:
        return "tool.unknown", f"No registered server offers {tool}.", "Ask an administrator to register the server."
    if server.state == ServerState.DISABLED:
        return "server.off", f"The server of {tool} is switched off.", "Ask who runs it; go on with other work."
    if not server.protocol_version:
        return (
            "server.unread",
            f"The server of {tool} is registered, and its tools could not be read yet.",
            f"Ask an administrator to press “Read its tools” on the page of the server “{server.name}”.",
            "Go on with other work, and try again later.",
        )
    return (
        "tool.unknown",
        f"The server “{server.name}” is registered, and does not offer {tool}.",
        "Use one of the tools that tools/list shows.",
        "Ask the mission's owner to correct the remit.",
    )


def still(snapshot: Snapshot, *, run_id: uuid.UUID | None, tool: str, token_id: uuid.UUID | None) -> Statement:
    """All of it is as it was read; the mission stays so until the transaction ends."""
    return Statement(
        _STILL,
        [
            *(run_id, tool),
            *(snapshot.mission_id, snapshot.mission_row),
            *(snapshot.mission_state, snapshot.mission_version, snapshot.agent_state),
            *(list(ENDED_RUN_STATES), snapshot.tool_state),
            *(snapshot.definition_sha256, snapshot.server_state),
            *(snapshot.for_team, token_id),
        ],
    )
