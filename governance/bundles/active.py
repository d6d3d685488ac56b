"""Which bundle is in force. Kept in memory; every commit compares its hash, so that an old one never decides."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from governance import policy
from governance.choices import BundleState
from governance.models import PolicyBundle
from governance.types import Grants


@dataclass(frozen=True)
class LoadedBundle:
    sha256: str
    name: str
    policies: str
    schema: Mapping[str, Any]

    def compiled(self, grants: Grants | None) -> policy.Compiled:
        """Raises policy.PoliciesInvalid."""
        return policy.compiled_for(sha256=self.sha256, policies=self.policies, schema=self.schema, grants=grants)


_LOADED: Final[dict[uuid.UUID, LoadedBundle]] = {}


def active_bundle(organisation_id: uuid.UUID) -> LoadedBundle | None:
    """The organisation's own bundle, else the baseline; None when there is neither: then everything is refused."""
    known = _LOADED.get(organisation_id)
    if known is not None:
        return known
    row = PolicyBundle.objects.in_force(organisation_id)
    if row is None:
        return None
    loaded = LoadedBundle(sha256=row.sha256, name=row.name, policies=row.policies, schema=row.schema)
    _LOADED[organisation_id] = loaded
    return loaded


def bundle_in_force(organisation_id: uuid.UUID) -> LoadedBundle | None:
    """The same, read at this moment. For what no commit compares: a preview would tell of the rules of yesterday."""
    forget(organisation_id)
    return active_bundle(organisation_id)


def forget(organisation_id: uuid.UUID | None = None) -> None:
    """Read the bundle again at the next decision: one organisation's, or everyone's."""
    if organisation_id is None:
        _LOADED.clear()
    else:
        _LOADED.pop(organisation_id, None)


def policy_loaded() -> bool:
    """Readiness: every organisation has rules to be judged by, because the baseline is active."""
    return PolicyBundle.objects.filter(state=BundleState.ACTIVE, organisation__isnull=True).exists()
