"""“What would the gate say?”: a template's sample actions judged by the rules in force, without proposing anything."""

from __future__ import annotations

from dataclasses import dataclass

from agents.catalogue.types import Sample, Template
from agents.kinds.tool_call import prepare_preview
from agents.models import McpTool
from controlplane.tenancy.types import Permission, Principal
from governance import services as governance
from governance.choices import Verdict


@dataclass(frozen=True)
class Answer:
    sample: Sample
    verdict: Verdict
    message: str


def try_samples(*, actor: Principal, chosen: Template) -> list[Answer]:
    """One answer a sample, in the template's order. Two queries."""
    names = [sample.tool for sample in chosen.samples]
    rows = McpTool.objects.restrict(actor, Permission.SERVER_VIEW).select_related("server")
    tools = {tool.qualified_name: tool for tool in rows.filter(qualified_name__in=names)}
    answers = []
    for sample in chosen.samples:
        prepared = prepare_preview(
            team_id=actor.organisation_id,
            team="preview",
            tool=sample.tool,
            arguments=sample.arguments,
            grants=chosen.grants,
            definition=tools.get(sample.tool),
        )
        finding = governance.preview(kind="tool.call", prepared=prepared, organisation_id=actor.organisation_id)
        answers.append(Answer(sample, finding.verdict, finding.message))
    return answers
