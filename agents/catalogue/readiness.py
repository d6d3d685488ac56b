"""Whether a template can be started here and now, and what the samples still wait for."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from agents.catalogue.types import Template
from agents.models import McpServer
from controlplane.common import installing
from controlplane.common.installing import Installing
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import Principal


@dataclass(frozen=True)
class Readiness:
    """`missing`: servers by name. `not_for_team`: those that are there and that the team may not use. `installing`: set
    while what is missing is on its way."""

    missing: tuple[str, ...]
    not_for_team: tuple[str, ...]
    installing: Installing | None

    @property
    def ready(self) -> bool:
        return not self.missing and not self.not_for_team


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
    """Without a team: whether any team could start it. While samples are being installed a server counts once its tools
    are known: it is registered a moment earlier."""
    rows = McpServer.objects.filter(organisation_id=actor.organisation_id)
    busy = under_way is not None and not under_way.failure
    known = dict((rows.filter(tools__isnull=False) if busy else rows).values_list("slug", "team_ids"))
    missing = tuple(need.name for need in chosen.servers if need.slug not in known)
    closed = tuple(
        need.name
        for need in chosen.servers
        if team_id is not None and (teams := known.get(need.slug)) is not None and team_id not in teams
    )
    return Readiness(missing, closed, under_way if missing else None)
