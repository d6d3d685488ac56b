"""Reads of organisations, teams and people."""

from __future__ import annotations

from controlplane.tenancy.models import Team
from controlplane.tenancy.types import Permission, Principal


def teams_with(principal: Principal | None, permission: Permission) -> list[Team]:
    """Teams in which the principal holds the permission, by name."""
    return list(Team.objects.restrict(principal, permission).order_by("name"))
