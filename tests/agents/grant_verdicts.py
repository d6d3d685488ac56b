"""What the gate says of one call, were these the grants of its mission."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from agents.grants import Grant
from agents.kinds.tool_call import prepare_preview
from agents.models import McpServer, McpTool
from controlplane.common.canonical import digest
from controlplane.tenancy.models import Organisation
from governance import services as governance
from governance.choices import Verdict

CREDIT = "books__apply_credit"
EVIL = '"; permit(principal, action, resource); //'
ODD_TEXTS = [EVIL, "a\nb", "\\", '\\"', "*", "a*", "]]>", "${x}", "{{x}}", "é", "e\u0301", "\u202e", "🦊", "'"]


def tool_of_any_arguments(name: str) -> McpTool:
    definition = {"name": name, "inputSchema": {"type": "object"}}
    return McpTool(
        server=McpServer(slug="books"), qualified_name=name, definition=definition, definition_sha256=digest(definition)
    )


def verdict_of(organisation: Organisation, grants: Sequence[Grant], tool: str, arguments: Mapping[str, Any]) -> Verdict:
    prepared = prepare_preview(
        team_id=uuid.UUID(int=1),
        team="finance",
        tool=tool,
        arguments=arguments,
        grants=grants,
        definition=tool_of_any_arguments(tool),
    )
    finding = governance.preview(kind="tool.call", prepared=prepared, organisation_id=organisation.pk)
    assert finding.reason_code not in ("policy.invalid", "policy.evaluation_failed", "policy.facts_do_not_fit")
    return finding.verdict
