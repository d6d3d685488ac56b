"""“What would the gate say?”: calls judged by the rules in force and grants that need not be anybody's yet. Nothing is
proposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.catalogue.types import Sample, Template
from agents.choices import Importance
from agents.grants import Grant
from agents.kinds.tool_call import prepare_preview
from agents.models import McpTool, Mission
from controlplane.tenancy.models import Team
from controlplane.tenancy.types import Permission, Principal
from governance import services as governance
from governance.choices import Verdict
from governance.types import Finding


@dataclass(frozen=True)
class Answer:
    sample: Sample
    verdict: Verdict
    message: str


def try_samples(*, actor: Principal, chosen: Template, team: Team, importance: Importance) -> list[Answer]:
    """One answer a sample, in the template's order, as a first mission of the team would get it. Two queries."""
    names = [sample.tool for sample in chosen.samples]
    # Whichever teams a server is for: that it is not for this one is an answer of the gate.
    rows = McpTool.objects.filter(server__organisation_id=actor.organisation_id, qualified_name__in=names)
    tools = {tool.qualified_name: tool for tool in rows.select_related("server")}
    prepared = [
        prepare_preview(
            team_id=team.pk,
            team=team.slug,
            tool=sample.tool,
            arguments=sample.arguments,
            grants=chosen.grants,
            definition=tools.get(sample.tool),
            runtime=chosen.runtime,
            importance=importance,
        )
        for sample in chosen.samples
    ]
    found = governance.preview_all(kind="tool.call", prepared=prepared, organisation_id=actor.organisation_id)
    return [
        Answer(sample, finding.verdict, finding.message) for sample, finding in zip(chosen.samples, found, strict=True)
    ]


def try_call(
    *,
    actor: Principal,
    mission: Mission,
    tool: str,
    arguments: Mapping[str, Any],
    grants: Sequence[Grant],
    importance: Importance,
) -> Finding:
    """What this call would be told as the first of a run of the mission, were these its grants and its importance. Two
    queries."""
    rows = McpTool.objects.restrict(actor, Permission.SERVER_VIEW).select_related("server")
    prepared = prepare_preview(
        team_id=mission.team_id,
        team=mission.team.slug,
        tool=tool,
        arguments=arguments,
        grants=grants,
        definition=rows.filter(qualified_name=tool).first(),
        runtime=mission.agent.runtime,
        importance=importance,
    )
    return governance.preview(kind="tool.call", prepared=prepared, organisation_id=mission.organisation_id)
