"""Whether a template can be started here and now, and what the samples still wait for."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db.models import Exists, OuterRef

from agents.catalogue.types import Template
from agents.models import McpServer, McpTool
from controlplane.common import installing
from controlplane.common.installing import Installing
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import ALL_TEAMS, Permission, Principal


@dataclass(frozen=True)
class Readiness:
    """`missing`: servers by name. `unread`: those that are there and whose tools are not known. `not_for_team`: those
    that are there and that the team may not use. `installing`: set while what is missing is on its way."""

    missing: tuple[str, ...]
    unread: tuple[str, ...]
    not_for_team: tuple[str, ...]
    installing: Installing | None

    @property
    def ready(self) -> bool:
        return not self.missing and not self.unread and not self.not_for_team


def samples_installing(actor: Principal) -> Installing | None:
    """What is being installed for the viewer's organisation; None when nothing is."""
    found = installing.read(Path(settings.CONFIG.state_dir))
    if found is None:
        return None
    mine = Organisation.objects.filter(pk=actor.organisation_id, slug=found.organisation).exists()
    return found if mine else None


def readiness_of(
    actor: Principal, chosen: Template, under_way: Installing | None, team_id: uuid.UUID | None = None
) -> Readiness:
    """Without a team: whether one could start it in which the actor may start missions. A server counts once its tools
    are known; while samples are being installed it is registered a moment earlier, and on its way until then."""
    rows = McpServer.objects.filter(organisation_id=actor.organisation_id)
    listed = rows.annotate(listed=Exists(McpTool.objects.filter(server=OuterRef("pk"))))
    known = {slug: (teams, read) for slug, teams, read in listed.values_list("slug", "team_ids", "listed")}
    busy = under_way is not None and not under_way.failure
    own = actor.teams_with(Permission.MISSION_WRITE)
    reach = {team_id} if team_id is not None else None if own is ALL_TEAMS else set(own)
    missing, unread, closed = [], [], []
    for need in chosen.servers:
        teams, read = known.get(need.slug, (None, False))
        if need.slug not in known or (busy and not read):
            missing.append(need.name)
        elif not read:
            unread.append(need.name)
        if reach is not None and teams is not None and reach.isdisjoint(teams):
            closed.append(need.name)
    return Readiness(tuple(missing), tuple(unread), tuple(closed), under_way if missing else None)
