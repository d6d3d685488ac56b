"""What costs are told of missions: goal, outcome, attempts, refused calls, and people's time."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import date
from typing import Any, Final
from zoneinfo import ZoneInfo

from django.db import connection
from django.db.models import CharField, F, Value
from django.db.models.functions import Concat

from agents.catalogue import TEMPLATES
from agents.choices import ENDED_MISSION_STATES, Outcome
from agents.models import Mission
from budgets.types import ActivityDay, MissionFacts, Standing
from governance.selectors import first_asked

# A person's answer counts from the question, or from their answer before it, but never longer than this: nobody
# measures people here, and a question that lay overnight was not worked on overnight.
LONGEST_ANSWER_SECONDS: Final = 300
_ACTIVITY: Final = f"""
SELECT mission_id, day, sum(attempts), sum(retries), sum(calls), sum(denied), round(sum(seconds))
FROM (
    SELECT r.mission_id, (r.created_at AT TIME ZONE o.time_zone)::date AS day, 1 AS attempts,
        (r.attempt > 1)::integer AS retries, 0 AS calls, 0 AS denied, 0 AS seconds
    FROM agents_run AS r
    JOIN agents_mission AS m ON m.id = r.mission_id JOIN tenancy_organisation AS o ON o.id = m.organisation_id
    WHERE r.mission_id = ANY(%(missions)s)
    UNION ALL
    SELECT a.mission_id, (a.created_at AT TIME ZONE o.time_zone)::date, 0, 0, 1, (a.state = 'denied')::integer, 0
    FROM governance_action AS a JOIN tenancy_organisation AS o ON o.id = a.organisation_id
    WHERE a.mission_id = ANY(%(missions)s) AND a.kind = 'tool.call'
    UNION ALL
    SELECT e.mission_id, (v.created_at AT TIME ZONE o.time_zone)::date, 0, 0, 0, 0,
        least({LONGEST_ANSWER_SECONDS}, greatest(0, extract(epoch FROM v.created_at - greatest({first_asked("e")}, (
            SELECT max(b.created_at) FROM governance_vote AS b
            WHERE b.user_id = v.user_id AND b.created_at < v.created_at
        )))))
    FROM governance_escalation AS e
    JOIN governance_vote AS v ON v.escalation_id = e.id JOIN tenancy_organisation AS o ON o.id = e.organisation_id
    WHERE e.mission_id = ANY(%(missions)s)
) AS happened
GROUP BY mission_id, day
"""  # noqa: S608 only a constant


class Book:
    """`budgets.types.MissionBook` over the missions of every organisation; the readers of the sums are judged there."""

    def stamps(self) -> Mapping[uuid.UUID, str]:
        rows = Mission.objects.filter(started_at__isnull=False)
        stamp = Concat(F("state"), Value("/"), F("outcome"), Value("/"), F("team_id"), output_field=CharField())
        return dict(rows.annotate(stamp=stamp).values_list("pk", "stamp"))

    def facts(self, mission_ids: Collection[uuid.UUID]) -> Iterable[MissionFacts]:
        days = _activity(mission_ids)
        rows = Mission.objects.filter(pk__in=list(mission_ids)).select_related("agent", "organisation")
        for mission in rows:
            code, name = _goal(mission)
            yield MissionFacts(
                mission_id=mission.pk,
                organisation_id=mission.organisation_id,
                team_id=mission.team_id,
                agent_id=mission.agent_id,
                goal=code,
                goal_name=name,
                title=mission.title,
                standing=standing_of(mission),
                decided_on=_decided_on(mission),
                stamp=f"{mission.state}/{mission.outcome}/{mission.team_id}",
                days=days.get(mission.pk, ()),
            )


def standing_of(mission: Mission) -> Standing:
    """Accepted and rejected are people's words; over without either is waste; the rest is open."""
    if mission.outcome == Outcome.ACCEPTED:
        return Standing.ACCEPTED
    if mission.outcome == Outcome.REJECTED:
        return Standing.REJECTED
    return Standing.WASTE if mission.state in ENDED_MISSION_STATES else Standing.OPEN


def _goal(mission: Mission) -> tuple[str, str]:
    template = TEMPLATES.get(mission.template)
    if template is not None:
        return template.code, template.name
    return f"agent-{mission.agent_id}", mission.agent.name


def _decided_on(mission: Mission) -> date | None:
    if mission.ended_at is None:
        return None
    return mission.ended_at.astimezone(ZoneInfo(mission.organisation.time_zone)).date()


def _activity(mission_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, list[ActivityDay]]:
    found: dict[uuid.UUID, list[ActivityDay]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_ACTIVITY, {"missions": list(mission_ids)})
        rows: list[Any] = cursor.fetchall()
    for mission_id, day, *counts in rows:
        found[mission_id].append(ActivityDay(day, *(int(count) for count in counts)))
    return found
