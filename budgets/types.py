"""The values that cross the ledger's edge. Amounts are exact decimals; money is in the organisation's currency."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from controlplane.common.choices import StatusChoices


@dataclass(frozen=True)
class Amounts:
    """One vector over the three units every budget counts: money, model tokens, steps. A hold takes all of it or nothing."""

    money: Decimal = Decimal(0)
    tokens: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Limits:
    """None: no limit of its own in that unit; the levels above still count."""

    money: Decimal | None = None
    tokens: int | None = None
    steps: int | None = None


class Level(enum.StrEnum):
    """The usual tree. Depth is not limited; `OTHER` names any further level."""

    ORGANISATION = "organisation"
    TEAM = "team"
    AGENT = "agent"
    MISSION = "mission"
    OTHER = "other"


class WindowKind(StatusChoices):
    TOTAL = "total", "neutral", "off", "In total"
    DAY = "day", "neutral", "clock", "Each day"
    WEEK = "week", "neutral", "clock", "Each week"
    MONTH = "month", "neutral", "clock", "Each month"


class HoldState(StatusChoices):
    HELD = "held", "wait", "wait", "Held"
    DISPATCHED = "dispatched", "wait", "start", "In use"
    SETTLED = "settled", "allow", "allow", "Settled"
    VOIDED = "voided", "neutral", "off", "Released"
    EXPIRED = "expired", "neutral", "off", "Released, never used"


@dataclass(frozen=True)
class Balance:
    """One account in its current window. `left` is None where there is no limit. `overrun`: charged beyond the limit."""

    account_id: uuid.UUID
    name: str
    level: Level
    parent_id: uuid.UUID | None
    team_id: uuid.UUID | None
    window: WindowKind
    limits: Limits
    held: Amounts
    spent: Amounts
    overrun: Amounts
    left: Limits
    frozen: bool
    currency: str
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    subject_type: str = ""
    subject_id: uuid.UUID | None = None
    burn_per_day: Decimal = Decimal(0)
    children: Sequence[Balance] = field(default=())


@dataclass(frozen=True)
class LedgerLine:
    """One line of the journal as people read it."""

    id: int
    at: datetime
    kind: str  # reserve, dispatch, settle, void, expire, overrun, allocation …
    amounts: Amounts
    hold_id: uuid.UUID | None
    mission_id: uuid.UUID | None
    action_id: uuid.UUID | None
    description: str
    currency: str
