"""`preview`: what the rules would say of actions that nobody proposed. Nothing is written, held or counted."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from governance import gate
from governance.bundles import bundle_in_force
from governance.registry import kind_of
from governance.types import Finding, Prepared


def preview(*, kind: str, prepared: Prepared, organisation_id: uuid.UUID) -> Finding:
    """The finding of guards and policy. Budget and history can still refuse the real thing."""
    return preview_all(kind=kind, prepared=[prepared], organisation_id=organisation_id)[0]


def preview_all(*, kind: str, prepared: Iterable[Prepared], organisation_id: uuid.UUID) -> list[Finding]:
    """`preview` of several by the same rules. One query."""
    bundle = bundle_in_force(organisation_id)
    found = []
    for one in prepared:
        ladder = gate.Ladder()
        gate.examine(ladder, kind=kind_of(kind), prepared=one, bundle=bundle)
        found.append(ladder.finding)
    return found
