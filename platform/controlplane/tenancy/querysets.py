"""The querysets every read starts from. Forgetting to restrict shows nothing: default managers of tenant data refuse
to iterate."""

from __future__ import annotations

from typing import Any, Self, TypeVar

from django.db import models

from controlplane.tenancy.types import ALL_TEAMS, Permission, Principal, PrincipalKind

M = TypeVar("M", bound=models.Model, covariant=True)


class TenantQuerySet(models.QuerySet[M]):
    """Rows of one organisation. Subclasses name their own paths where they differ from the usual columns."""

    organisation_path = "organisation_id"
    team_path: str | None = "team_id"  # None: rows belong to the organisation as a whole
    mission_path: str | None = None  # set: runs see only rows of their own mission
    agent_path: str | None = None  # set: agents see only rows of their own

    def restrict(self, principal: Principal | None, permission: Permission) -> Self:
        """Only what `principal` may touch with `permission`; nothing without a principal."""
        if principal is None:
            return self.none()
        teams = principal.teams_with(permission)
        if teams is not ALL_TEAMS and not teams:
            return self.none()
        rows: dict[str, Any] = {self.organisation_path: principal.organisation_id}
        if self.team_path is not None and teams is not ALL_TEAMS:
            rows[f"{self.team_path}__in"] = teams
        if principal.kind is PrincipalKind.RUN:
            if self.mission_path is None:
                return self.none()
            rows[self.mission_path] = principal.mission_id
        elif principal.kind is PrincipalKind.AGENT:
            if self.agent_path is None:
                return self.none()
            rows[self.agent_path] = principal.agent_id
        return self.filter(**rows)


class TeamListQuerySet(TenantQuerySet[M]):
    """Rows that each name the teams they are for; NULL is every team of the organisation."""

    team_path = None
    teams_path = "team_ids"

    def restrict(self, principal: Principal | None, permission: Permission) -> Self:
        rows = super().restrict(principal, permission)
        teams = principal.teams_with(permission) if principal is not None else frozenset()
        if teams is ALL_TEAMS:
            return rows
        everyone = models.Q(**{f"{self.teams_path}__isnull": True})
        return rows.filter(everyone | models.Q(**{f"{self.teams_path}__overlap": list(teams)}))
