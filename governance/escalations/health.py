"""How approving goes: how much is asked, how long answers take, how often they are yes. Per person and per group."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from controlplane.common.errors import forbidden
from controlplane.tenancy.types import Permission, Principal
from governance.escalations.first_asked import first_asked

_PEOPLE = f"""
SELECT u.id, u.name, count(*), count(*) FILTER (WHERE v.approve),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM t.took)),
       percentile_cont(0.9) WITHIN GROUP (ORDER BY extract(epoch FROM t.took)),
       count(*) FILTER (WHERE v.approve AND t.took < interval '10 seconds')
FROM governance_vote v
JOIN governance_escalation e ON e.id = v.escalation_id
JOIN tenancy_user u ON u.id = v.user_id
CROSS JOIN LATERAL (SELECT v.created_at - {first_asked("e")} AS took) t
WHERE e.organisation_id = %(organisation)s AND v.created_at >= %(since)s AND (%(all)s OR e.team_id = ANY(%(teams)s))
GROUP BY u.id, u.name ORDER BY count(*) DESC, u.name LIMIT 100
"""  # noqa: S608 only a constant
# Answered by an edit that needed nobody any more: the editor agreed to another action than they were asked about.
_EDITED = """EXISTS (
    SELECT FROM governance_vote AS v JOIN governance_action AS a ON a.id = e.action_id
    WHERE v.escalation_id = e.id AND v.digest <> a.digest)"""
_GROUPS = f"""
SELECT g.id, coalesce(g.name, ''), count(*),
       count(*) FILTER (WHERE e.state = 'approved' OR t.edited), count(*) FILTER (WHERE e.state = 'denied'),
       count(*) FILTER (WHERE e.state = 'expired'), count(*) FILTER (WHERE e.tier > 1),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM t.took)),
       percentile_cont(0.9) WITHIN GROUP (ORDER BY extract(epoch FROM t.took))
FROM governance_escalation e LEFT JOIN governance_approvergroup g ON g.id = e.group_id
CROSS JOIN LATERAL (SELECT e.closed_at - {first_asked("e")} AS took, e.state = 'superseded' AND {_EDITED} AS edited) t
WHERE e.organisation_id = %(organisation)s AND e.closed_at >= %(since)s
  AND (e.state IN ('approved', 'denied', 'expired') OR t.edited) AND (%(all)s OR e.team_id = ANY(%(teams)s))
GROUP BY g.id, g.name ORDER BY count(*) DESC, 2 LIMIT 100
"""  # noqa: S608 only a constant


@dataclass(frozen=True)
class ApproverHealth:
    """`hasty`: approvals given within ten seconds of the question. Times in seconds."""

    user_id: uuid.UUID
    name: str
    answers: int
    approvals: int
    median: float
    p90: float
    hasty: int

    @property
    def approve_rate(self) -> float:
        return self.approvals / self.answers

    @property
    def approved_percent(self) -> int:
        return round(100 * self.approve_rate)


@dataclass(frozen=True)
class GroupHealth:
    """Of questions that were settled. `group_id` None: those that any approver of the team was asked."""

    group_id: uuid.UUID | None
    name: str
    questions: int
    approved: int
    denied: int
    expired: int
    second_tier: int
    median: float
    p90: float

    @property
    def approve_rate(self) -> float:
        return self.approved / self.questions

    @property
    def expired_share(self) -> float:
        return self.expired / self.questions

    @property
    def approved_percent(self) -> int:
        return round(100 * self.approve_rate)

    @property
    def expired_percent(self) -> int:
        return round(100 * self.expired_share)


@dataclass(frozen=True)
class Health:
    people: Sequence[ApproverHealth]
    groups: Sequence[GroupHealth]


def approver_health(principal: Principal, *, since: datetime) -> Health:
    """Two queries, in the teams whose questions the principal may see. Raises 403."""
    teams = principal.teams_with(Permission.ESCALATION_VIEW)
    if teams is not None and not teams:
        raise forbidden(Permission.ESCALATION_VIEW.value)
    facts: dict[str, Any] = {
        "organisation": principal.organisation_id,
        "since": since,
        "all": teams is None,
        "teams": list(teams or ()),
    }
    with connection.cursor() as cursor:
        cursor.execute(_PEOPLE, facts)
        people = [ApproverHealth(*row) for row in cursor.fetchall()]
        cursor.execute(_GROUPS, facts)
        groups = [GroupHealth(*row) for row in cursor.fetchall()]
    return Health(people, groups)
