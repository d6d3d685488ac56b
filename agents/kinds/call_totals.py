"""What arguments of a tool may come to over a whole mission: read for the judgement, compared again at its commit."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from decimal import Decimal

from agents import grant_rules
from agents.grants import Grant
from governance.choices import Verdict
from governance.services import total_so_far
from governance.types import Finding, Proposal, TotalLimits


def read(mission_id: uuid.UUID, proposal: Proposal, mine: Sequence[Grant]) -> list[TotalLimits]:
    limits: dict[str, set[int]] = {}
    for grant in mine:
        for name, rules in grant.constraints.items():
            limit = grant_rules.fact("total", rules.get("max_total"))
            if limit is not None:
                limits.setdefault(name, set()).add(int(limit))
    return [
        TotalLimits(
            tool=proposal.tool,
            argument=name,
            seen=total_so_far(mission_id, proposal.tool, name, proposal.action_id),
            adds=int(grant_rules.fact("total", proposal.arguments.get(name)) or 0),
            limits=sorted(found),
        )
        for name, found in limits.items()
    ]


def denial(totals: Sequence[TotalLimits]) -> Finding | None:
    """When the sum is what is wrong: each call may be small, and all of them too much."""
    for total in totals:
        most = max(total.limits)
        if total.seen + total.adds > most >= total.adds:
            left = Decimal(max(0, most - total.seen)) / grant_rules.MICRO
            return Finding(
                Verdict.DENY,
                "grant.total_above_limit",
                f"Not sent. {total.argument[:80]} of {total.tool} would come to more in all than the remit allows.",
                (f"Left: {left:f}.", "Ask the mission's owner for more."),
            )
    return None
