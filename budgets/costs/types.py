"""What is read of costs: spans of local days, and the sums of goals and missions in them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from budgets.types import ChargeKind, LedgerLine, Standing

OUTSIDE = "outside"  # the goal of what was not spent for any mission


@dataclass(frozen=True)
class Span:
    """Local days of the organisation, both included."""

    first: date
    last: date

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    def before(self) -> Span:
        """As many days, ending the day before it begins."""
        return Span(self.first - timedelta(days=self.days), self.first - timedelta(days=1))


@dataclass(frozen=True)
class Effort:
    """What was tried. `human_seconds`: people's answers to questions, each at most five minutes."""

    attempts: int = 0
    retries: int = 0
    calls: int = 0
    denied: int = 0
    human_seconds: int = 0

    @property
    def human_minutes(self) -> Decimal:
        return Decimal(self.human_seconds) / 60


@dataclass(frozen=True)
class GoalRow:
    """One kind of goal in a span. Money by the day of the work, goals by the day they were decided on."""

    goal: str
    name: str
    missions: int
    decided: Mapping[Standing, int]
    money: Mapping[Standing, Decimal]
    outside: Decimal
    effort: Effort

    @property
    def accepted(self) -> int:
        return self.decided[Standing.ACCEPTED]

    @property
    def total(self) -> Decimal:
        return sum(self.money.values(), self.outside)

    @property
    def judged(self) -> Decimal:
        """Without what is still open: nobody knows yet what came of that."""
        return self.total - self.money[Standing.OPEN] - self.outside

    @property
    def cost_each(self) -> Decimal | None:
        """Of one accepted goal, with what was rejected and wasted on the way. None without any."""
        return self.judged / self.accepted if self.accepted else None

    @property
    def waste_share(self) -> Decimal | None:
        """Of what is judged, in per cent."""
        return self.money[Standing.WASTE] / self.judged * 100 if self.judged else None

    @property
    def minutes_each(self) -> Decimal | None:
        return self.effort.human_minutes / self.accepted if self.accepted else None


def totals(rows: Iterable[GoalRow]) -> GoalRow:
    """The rows as one."""
    rows = list(rows)

    def effort(name: str) -> int:
        return sum(getattr(row.effort, name) for row in rows)

    return GoalRow(
        goal="",
        name="Total",
        missions=sum(row.missions for row in rows),
        decided={standing: sum(row.decided[standing] for row in rows) for standing in Standing},
        money={standing: sum((row.money[standing] for row in rows), Decimal(0)) for standing in Standing},
        outside=sum((row.outside for row in rows), Decimal(0)),
        effort=Effort(*(effort(name) for name in ("attempts", "retries", "calls", "denied", "human_seconds"))),
    )


@dataclass(frozen=True)
class MissionRow:
    mission_id: uuid.UUID
    title: str
    standing: Standing
    decided_on: date | None
    money: Decimal
    effort: Effort


@dataclass(frozen=True)
class AccountRow:
    """What one budget was charged outside any mission."""

    account_id: uuid.UUID
    name: str
    money: Decimal


@dataclass(frozen=True)
class Check:
    """Three sums of the same days, each kept by somebody else: the rows shown, the ledger's own daily sums (written
    with every charge), and the journal's lines that are not folded yet."""

    rows: Decimal
    ledger: Decimal
    pending: Decimal
    behind: int  # lines of the journal not looked at yet; more than a few: `pending` was not counted
    counting: bool
    folded_at: datetime | None
    checked_at: datetime | None
    wrong_days: Sequence[str] = ()  # of these days, as the last whole check found them

    @property
    def difference(self) -> Decimal:
        return self.rows + self.pending - self.ledger

    @property
    def differs(self) -> bool:
        return not self.counting and (self.difference != 0 or bool(self.wrong_days))


@dataclass(frozen=True)
class Report:
    goals: Sequence[GoalRow]
    check: Check

    @property
    def total(self) -> GoalRow:
        return totals(self.goals)


@dataclass(frozen=True)
class StandingDay:
    """`standing` None: outside missions."""

    day: date
    standing: Standing | None
    money: Decimal


@dataclass(frozen=True)
class MissionPage:
    """`count`: of all, `rows` only some of them. `money`: of all."""

    rows: Sequence[MissionRow]
    count: int
    money: Decimal


@dataclass(frozen=True)
class MissionCost:
    """One mission in a span: sums per kind, the lines behind them, and their own sum for comparison."""

    row: MissionRow
    goal: str
    goal_name: str
    kinds: Mapping[ChargeKind, Decimal]
    lines: Sequence[LedgerLine] = ()
    next: str | None = None
    lines_total: Decimal = Decimal(0)
    pending: Decimal = Decimal(0)  # charged and not folded yet

    @property
    def differs(self) -> bool:
        return self.lines_total != self.row.money
