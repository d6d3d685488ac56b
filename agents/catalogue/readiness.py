"""Whether a template can be started here and now, and what the samples still wait for."""

from __future__ import annotations

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
    """`missing`: servers by name. `installing`: set while they are on their way."""

    missing: tuple[str, ...]
    installing: Installing | None

    @property
    def ready(self) -> bool:
        return not self.missing


def samples_installing(actor: Principal) -> Installing | None:
    """What is being installed for the viewer's organisation; None when nothing is."""
    found = installing.read(Path(settings.CONFIG.state_dir))
    if found is None:
        return None
    mine = Organisation.objects.filter(pk=actor.organisation_id, slug=found.organisation).exists()
    return found if mine else None


def readiness_of(actor: Principal, chosen: Template, under_way: Installing | None) -> Readiness:
    """While samples are being installed a server counts once its tools are known: it is registered a moment earlier."""
    rows = McpServer.objects.filter(organisation_id=actor.organisation_id)
    busy = under_way is not None and not under_way.failure
    known = set((rows.filter(tools__isnull=False) if busy else rows).values_list("slug", flat=True))
    missing = tuple(need.name for need in chosen.servers if need.slug not in known)
    return Readiness(missing, under_way if missing else None)
