"""Reads of costs. Pages join small tables of sums; the journal is read only for the lines of one mission."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import BooleanField, Q, QuerySet, Sum
from django.db.models.expressions import RawSQL

from budgets.costs.folding import CHARGES
from budgets.costs.models import CostActivity, CostDay, CostMission, CostState
from budgets.costs.types import (
    OUTSIDE,
    AccountRow,
    Check,
    Effort,
    GoalRow,
    MissionCost,
    MissionPage,
    MissionRow,
    Report,
    Span,
    StandingDay,
)
from budgets.models import Account, JournalEntry
from budgets.selectors import line_of
from budgets.types import ChargeKind, Standing
from budgets.zones import DAY_OF_HOLD
from controlplane.common.cursors import foreign_cursor
from controlplane.common.errors import not_found
from controlplane.common.ids import parse_id
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission, Principal

MAX_PAGE: Final = 200
# So few lines are counted on the spot; more, and the page says how far the counting is.
FEW_LINES: Final = 5_000
_HELD_BETWEEN: Final = f"""EXISTS (
    SELECT FROM budgets_hold AS h JOIN tenancy_organisation AS o ON o.id = h.organisation_id
    WHERE h.id = budgets_journal.hold_id AND {DAY_OF_HOLD} BETWEEN %s AND %s
)"""
_TRIES: Final = 5
_CHUNK: Final = 1_000
_MONEY: Final = re.compile(r"-?[0-9]{1,24}(\.[0-9]{1,12})?")
_NOBODY: Final = "'00000000-0000-0000-0000-000000000000'::uuid"
SORTS: Final = {"money": "money", "mission": "title", "attempts": "attempts", "denied": "denied"}

# One row per mission that was worked on or decided in the span; the row of nobody is what is outside missions.
_MISSIONS: Final = f"""
WITH charged AS (SELECT coalesce(mission_id, {_NOBODY}) AS id, money FROM ({{money}}) AS m (mission_id, money)),
tried AS (SELECT * FROM ({{activity}}) AS t (id, attempts, retries, calls, denied, human_seconds)),
decided AS (SELECT * FROM ({{decided}}) AS d (id)),
mission AS (
    SELECT id, coalesce(c.goal, '{OUTSIDE}') AS goal, coalesce(c.goal_name, '') AS goal_name, c.title, c.standing,
        c.decided_on, decided.id IS NOT NULL AS counts, coalesce(charged.money, 0) AS money,
        coalesce(tried.attempts, 0) AS attempts, coalesce(tried.retries, 0) AS retries,
        coalesce(tried.calls, 0) AS calls, coalesce(tried.denied, 0) AS denied,
        coalesce(tried.human_seconds, 0) AS human_seconds
    FROM charged FULL JOIN tried USING (id) FULL JOIN decided USING (id) LEFT JOIN budgets_costmission AS c USING (id)
)
"""  # noqa: S608 the holes are filled by the ORM
_GOALS: Final = """
SELECT goal, max(goal_name), count(*) FILTER (WHERE standing IS NOT NULL),
    count(*) FILTER (WHERE counts AND standing = 'accepted'),
    count(*) FILTER (WHERE counts AND standing = 'rejected'),
    count(*) FILTER (WHERE counts AND standing = 'waste'),
    coalesce(sum(money) FILTER (WHERE standing = 'accepted'), 0),
    coalesce(sum(money) FILTER (WHERE standing = 'rejected'), 0),
    coalesce(sum(money) FILTER (WHERE standing = 'waste'), 0),
    coalesce(sum(money) FILTER (WHERE standing = 'open'), 0),
    coalesce(sum(money) FILTER (WHERE standing IS NULL), 0),
    sum(attempts)::bigint, sum(retries)::bigint, sum(calls)::bigint, sum(denied)::bigint, sum(human_seconds)::bigint
FROM mission GROUP BY goal ORDER BY sum(money) DESC, goal
"""
_ONE_GOAL: Final = """
SELECT id, title, standing, decided_on, money, attempts, retries, calls, denied, human_seconds,
    count(*) OVER (), sum(money) OVER ()
FROM mission WHERE goal = %s AND standing IS NOT NULL ORDER BY {order}, id LIMIT %s OFFSET %s
"""
_DEAREST: Final = """
SELECT id, title, standing, decided_on, money, attempts, retries, calls, denied, human_seconds
FROM mission WHERE goal = %s AND standing IS NOT NULL
    AND (%s::numeric IS NULL OR money < %s OR money = %s AND id > %s) ORDER BY money DESC, id LIMIT %s
"""
# One statement, hence one moment.
_CHECK: Final = f"""
SELECT s.folded_id, s.folded_at, s.checked_at, s.wrong::text,
    (SELECT coalesce(sum(d.money), 0) FROM budgets_dailyspend AS d
        WHERE d.day BETWEEN %s AND %s AND d.account_id IN ({{accounts}})),
    pg_sequence_last_value(pg_get_serial_sequence('budgets_journal', 'id')::regclass) - s.folded_id,
    (SELECT coalesce(sum(j.money), 0)
        FROM budgets_journal AS j
        JOIN budgets_hold AS h ON h.id = j.hold_id
        JOIN tenancy_organisation AS o ON o.id = j.organisation_id
        WHERE %s AND j.id > %s AND j.kind IN {CHARGES} AND j.organisation_id = %s
            AND {DAY_OF_HOLD} BETWEEN %s AND %s AND j.account_id IN ({{accounts}}))
FROM budgets_coststate AS s WHERE s.id = 1
"""  # noqa: S608 the holes are filled by the ORM


def report(principal: Principal, span: Span) -> Report:
    """Every kind of goal with its sums, and whether they add up. What is folded in between makes it read again."""
    folded_id = _folded_id()
    for _ in range(_TRIES):
        goals = _goals(principal, span)
        rows = sum((goal.total for goal in goals), Decimal(0))
        now_folded_id, check = _check(principal, span, rows, folded_id)
        if now_folded_id == folded_id:
            break
        folded_id = now_folded_id
    return Report(goals, check)


def goal_rows(principal: Principal, span: Span) -> list[GoalRow]:
    """The dearest first."""
    return _goals(principal, span)


def by_day(principal: Principal, span: Span) -> list[StandingDay]:
    """What was spent on each day for goals of each standing, oldest first."""
    rows = _days(principal, span).values("day", "mission__standing").annotate(charged=Sum("money")).order_by("day")
    return [
        StandingDay(
            row["day"], Standing(row["mission__standing"]) if row["mission__standing"] else None, row["charged"]
        )
        for row in rows
    ]


def missions_of_goal(
    principal: Principal, span: Span, goal: str, *, sort: str = "-money", limit: int = 50, offset: int = 0
) -> MissionPage:
    """The missions of one kind of goal, and how many there are. `sort`: a key of SORTS, with - for falling."""
    query, parameters = _missions(principal, span)
    if not query:
        return MissionPage((), 0, Decimal(0))
    with connection.cursor() as cursor:
        cursor.execute(query + _one_goal(sort), [*parameters, goal, limit, offset])
        found = cursor.fetchall()
    rows = [_mission_row(row) for row in found]
    return MissionPage(rows, found[0][10] if found else 0, found[0][11] if found else Decimal(0))


def dearest_of_goal(
    principal: Principal, span: Span, goal: str, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[MissionRow], str | None]:
    """The missions of one kind of goal, the dearest first, and the cursor of those that come after: a mission that is
    added meanwhile moves none of the others to another page. Raises 422 `cursor.invalid`."""
    money, last_id = _place(cursor) if cursor is not None else (None, None)
    query, parameters = _missions(principal, span)
    if not query:
        return [], None
    with connection.cursor() as statement:
        statement.execute(query + _DEAREST, [*parameters, goal, money, money, money, last_id, limit + 1])
        found = [_mission_row(row) for row in statement.fetchall()]
    after = found[limit - 1] if len(found) > limit else None
    return found[:limit], f"{after.money:f}~{after.mission_id}" if after else None


def every_mission_of_goal(principal: Principal, span: Span, goal: str, *, sort: str = "-money") -> Iterator[MissionRow]:
    """As `missions_of_goal`, all of them, of one moment and not all in memory."""
    query, parameters = _missions(principal, span)
    if not query:
        return
    with connection.chunked_cursor() as cursor:
        cursor.execute(query + _one_goal(sort), [*parameters, goal, None, 0])
        while found := cursor.fetchmany(_CHUNK):
            yield from map(_mission_row, found)


def outside_missions(principal: Principal, span: Span) -> list[AccountRow]:
    """Which budgets were charged without a mission that anybody knows, the dearest first."""
    rows = _days(principal, span).filter(mission__standing__isnull=True)
    sums = rows.values("account_id", "account__name").annotate(charged=Sum("money")).order_by("-charged", "account_id")
    return [AccountRow(row["account_id"], row["account__name"], row["charged"]) for row in sums]


def mission_cost(
    principal: Principal, mission_id: uuid.UUID, span: Span, *, cursor: str | None = None, limit: int = 50
) -> MissionCost:
    """One mission with its charges in the span, newest first. Raises 404 `mission.not_found`, 422 `cursor.invalid`."""
    known = CostMission.objects.restrict(principal, Permission.COST_VIEW).filter(pk=mission_id).first()
    if known is None:
        raise not_found("mission")
    days = _days(principal, span).filter(mission_id=mission_id)
    lines = _lines(principal, mission_id, span)
    folded_id = _folded_id()
    for _ in range(_TRIES):
        kinds = dict(days.values_list("kind").annotate(charged=Sum("money")).order_by("-charged"))
        sums = lines.aggregate(
            folded=Sum("money", filter=Q(pk__lte=folded_id)), later=Sum("money", filter=Q(pk__gt=folded_id))
        )
        before, folded_id = folded_id, _folded_id()
        if before == folded_id:
            break
    effort = CostActivity.objects.filter(mission=known, day__range=(span.first, span.last)).aggregate(
        *(Sum(name) for name in ("attempts", "retries", "calls", "denied", "human_seconds"))
    )
    size = max(1, min(limit, MAX_PAGE))
    found = list(_after(lines, cursor).order_by("-id")[: size + 1])
    currency = tenancy.currency_of(principal)
    return MissionCost(
        row=MissionRow(
            known.pk,
            known.title,
            Standing(known.standing),
            known.decided_on,
            sum(kinds.values(), Decimal(0)),
            Effort(*(value or 0 for value in effort.values())),
        ),
        goal=known.goal,
        goal_name=known.goal_name,
        kinds={ChargeKind(kind): money for kind, money in kinds.items()},
        lines=[line_of(row, currency) for row in found[:size]],
        next=str(found[size - 1].pk) if len(found) > size else None,
        lines_total=sums["folded"] or Decimal(0),
        pending=sums["later"] or Decimal(0),
    )


def goal_name(principal: Principal, goal: str) -> str:
    """Of a kind of goal that the principal may see. Raises 404."""
    if goal == OUTSIDE:
        return "Outside missions"
    if "\0" in goal:  # PostgreSQL keeps no such text, so no goal is called that
        raise not_found("goal")
    rows = CostMission.objects.restrict(principal, Permission.COST_VIEW).filter(goal=goal)
    name = rows.order_by("-refreshed_at").values_list("goal_name", flat=True).first()
    if name is None:
        raise not_found("goal")
    return name


def _days(principal: Principal, span: Span) -> QuerySet[CostDay]:
    return CostDay.objects.restrict(principal, Permission.COST_VIEW).filter(day__range=(span.first, span.last))


def _missions(principal: Principal, span: Span) -> tuple[str, list[Any]]:
    """The common table expressions up to `mission`, with their parameters; empty for those who may see nothing."""
    activity = CostActivity.objects.restrict(principal, Permission.COST_VIEW).filter(day__range=(span.first, span.last))
    decided = CostMission.objects.restrict(principal, Permission.COST_VIEW).filter(
        decided_on__range=(span.first, span.last)
    )
    sums = [Sum(name) for name in ("attempts", "retries", "calls", "denied", "human_seconds")]
    parts: dict[str, QuerySet[Any, Any]] = {
        "money": _days(principal, span).values("mission_id").annotate(Sum("money")),
        "activity": activity.values("mission_id").annotate(*sums),
        "decided": decided.values("pk"),
    }
    parameters: list[Any] = []
    filled = {}
    for name, rows in parts.items():
        try:
            filled[name], more = rows.order_by().query.sql_with_params()
        except EmptyResultSet:
            return "", []
        parameters += more
    return _MISSIONS.format(**filled), parameters


def _place(cursor: str) -> tuple[Decimal, uuid.UUID]:
    money, _, last_id = cursor.partition("~")
    found = parse_id(last_id)
    if found is None or not _MONEY.fullmatch(money):
        raise foreign_cursor()
    return Decimal(money), found


def _one_goal(sort: str) -> str:
    column = SORTS.get(sort.removeprefix("-"), "money")
    return _ONE_GOAL.format(order=f"{column} {'DESC' if sort.startswith('-') else 'ASC'}")


def _mission_row(row: Sequence[Any]) -> MissionRow:
    effort = Effort(*(int(number) for number in row[5:10]))
    return MissionRow(row[0], row[1], Standing(row[2]), row[3], row[4], effort)


def _goals(principal: Principal, span: Span) -> list[GoalRow]:
    query, parameters = _missions(principal, span)
    if not query:
        return []
    with connection.cursor() as cursor:
        cursor.execute(query + _GOALS, parameters)
        rows = cursor.fetchall()
    return [
        GoalRow(
            goal=row[0],
            name=row[1] or ("Outside missions" if row[0] == OUTSIDE else row[0]),
            missions=row[2],
            decided={
                Standing.ACCEPTED: row[3],
                Standing.REJECTED: row[4],
                Standing.WASTE: row[5],
                Standing.OPEN: 0,
            },
            money={
                Standing.ACCEPTED: row[6],
                Standing.REJECTED: row[7],
                Standing.WASTE: row[8],
                Standing.OPEN: row[9],
            },
            outside=row[10],
            effort=Effort(*row[11:16]),
        )
        for row in rows
    ]


def _folded_id() -> int:
    return CostState.objects.filter(pk=1).values_list("folded_id", flat=True).first() or 0


def _check(principal: Principal, span: Span, rows: Decimal, folded_id: int) -> tuple[int, Check]:
    accounts = Account.objects.restrict(principal, Permission.COST_VIEW).values("pk")
    try:
        visible, more = accounts.query.sql_with_params()
    except EmptyResultSet:
        return folded_id, Check(rows, Decimal(0), Decimal(0), 0, False, None, None)
    few = _behind(folded_id) <= FEW_LINES
    parameters = [span.first, span.last, *more, few, folded_id, principal.organisation_id, span.first, span.last, *more]
    with connection.cursor() as cursor:
        cursor.execute(_CHECK.format(accounts=visible), parameters)
        row = cursor.fetchone()
    if row is None:
        return folded_id, Check(rows, Decimal(0), Decimal(0), 0, True, None, None)
    now_folded_id, folded_at, checked_at, wrong, ledger, behind, pending = row
    return now_folded_id, Check(
        rows=rows,
        ledger=ledger,
        pending=pending,
        behind=max(behind or 0, 0),
        counting=not few,
        folded_at=folded_at,
        checked_at=checked_at,
        wrong_days=_wrong_days(principal, span, json.loads(wrong)),
    )


def _behind(folded_id: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sequence_last_value(pg_get_serial_sequence('budgets_journal', 'id')::regclass)")
        last = cursor.fetchone()
    return (last[0] or 0) - folded_id if last else 0


def _wrong_days(principal: Principal, span: Span, wrong: Sequence[dict[str, Any]]) -> list[str]:
    teams = principal.teams_with(Permission.COST_VIEW)
    visible = None if teams is None else {str(team) for team in teams}
    return sorted(
        {
            each["day"]
            for each in wrong
            if each["organisation_id"] == str(principal.organisation_id)
            and str(span.first) <= each["day"] <= str(span.last)
            and (visible is None or each["team_id"] in visible)
        }
    )


def _lines(principal: Principal, mission_id: uuid.UUID, span: Span) -> QuerySet[JournalEntry]:
    """Charges of the mission whose hold was made in the span. Its accounts are looked up in the sums, so that the
    journal is read by its index."""
    accounts = list(
        _days(principal, span).filter(mission_id=mission_id).values_list("account_id", flat=True).distinct()
    )
    of_these_days = RawSQL(_HELD_BETWEEN, [span.first, span.last], output_field=BooleanField())  # noqa: S611 ours
    return JournalEntry.objects.filter(
        of_these_days, account_id__in=accounts, mission_id=mission_id, kind__in=("settle", "correct")
    )


def _after(lines: QuerySet[JournalEntry], cursor: str | None) -> QuerySet[JournalEntry]:
    if cursor is None:
        return lines
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise foreign_cursor()
    return lines.filter(pk__lt=int(cursor))
