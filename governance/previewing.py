"""`preview`: what the rules would say of an action that nobody proposed. Nothing is written, held or counted."""

from __future__ import annotations

import uuid

from governance import gate
from governance.bundles import active_bundle
from governance.registry import kind_of
from governance.types import Finding, Prepared


def preview(*, kind: str, prepared: Prepared, organisation_id: uuid.UUID) -> Finding:
    """The finding of guards and policy. Budget and history can still refuse the real thing."""
    ladder = gate.Ladder()
    gate.examine(ladder, kind=kind_of(kind), prepared=prepared, bundle=active_bundle(organisation_id))
    return ladder.finding
