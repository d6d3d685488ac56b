"""The values that cross the ledger's edge. Amounts are exact decimals; money is in the organisation's currency."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol

from controlplane.common.choices import StatusChoices


@dataclass(frozen=True)
class Amounts:
    """One vector over what every budget counts: money, model tokens, steps. A hold takes all of it or nothing."""

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


class RateKind(enum.StrEnum):
    """What a price is per."""

    TOOL_CALL = "tool_call"
    VCPU_SECOND = "vcpu_second"
    GIB_SECOND = "gib_second"
    MODEL_TOKEN = "model_token"  # noqa: S105

    @property
    def label(self) -> str:
        return self.value.replace("_", " ")


class ChargeKind(StatusChoices):
    """What was paid for."""

    CALL = "call", "neutral", "send", "Tool calls"
    SANDBOX = "sandbox", "neutral", "sandbox", "Sandbox seconds"
    OTHER = "other", "neutral", "receipt", "Other"


class Standing(StatusChoices):
    """What came of the goal that money was spent for."""

    ACCEPTED = "accepted", "allow", "allow", "Accepted"
    REJECTED = "rejected", "deny", "deny", "Rejected"
    WASTE = "waste", "neutral", "off", "Waste"  # ended without an outcome: failed, stopped, expired
    OPEN = "open", "wait", "wait", "Open"


class ChangeState(StatusChoices):
    """A limit that needs a second person."""

    OPEN = "open", "wait", "wait", "Waits for a second person"
    CONFIRMED = "confirmed", "allow", "allow", "Confirmed"
    REFUSED = "refused", "deny", "deny", "Refused"
    WITHDRAWN = "withdrawn", "neutral", "off", "Withdrawn"
    SUPERSEDED = "superseded", "neutral", "off", "Replaced by a later one"


class HoldState(StatusChoices):
    HELD = "held", "wait", "wait", "Held"
    DISPATCHED = "dispatched", "wait", "start", "In use"
    SETTLED = "settled", "allow", "allow", "Settled"
    VOIDED = "voided", "neutral", "off", "Released"
    EXPIRED = "expired", "neutral", "off", "Released, never used"


@dataclass(frozen=True)
class Balance:
    """One account in its current window. `limits`: as they were decided, also where more is held and spent already.
    `left` is None without a limit. `overrun`: charged beyond the limit."""

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
    burn_per_day: Decimal = Decimal(0)  # of the last week, or of the budget's whole life where that is shorter
    children: Sequence[Balance] = field(default=())
    also: Sequence[Balance] = field(default=())  # the account's other windows, where it has several
    frozen_by_person: bool = False  # else, where `frozen`: an overrun froze this window
    frozen_reason: str = ""
    closed: bool = False  # what it was for is over
    opened_at: datetime | None = None
    window_id: int | None = None  # None: nothing was held or spent in it yet, or it has no limit of this kind

    @property
    def lowered(self) -> bool:
        """The limit in money was set below what is held and spent: nothing more is held, and it sinks to the limit."""
        return self.limits.money is not None and self.held.money + self.spent.money > self.limits.money


@dataclass(frozen=True)
class LedgerLine:
    """One line of the journal as people read it."""

    id: int
    at: datetime
    kind: str  # reserve, dispatch, settle, correct, void, expire, extend, overrun, allocation, freeze, unfreeze, guard
    amounts: Amounts
    hold_id: uuid.UUID | None
    mission_id: uuid.UUID | None
    action_id: uuid.UUID | None
    description: str
    currency: str
    account_id: uuid.UUID

    @property
    def is_sandbox_time(self) -> bool:
        """Of a hold that no action made: the seconds of a run's sandbox."""
        return self.mission_id is not None and self.hold_id is not None and self.action_id is None


@dataclass(frozen=True)
class Reserve:
    """One request of a batch. `signature`: what the loop guard compares; empty is never compared."""

    hold_id: uuid.UUID
    account_id: uuid.UUID
    amounts: Amounts
    signature: bytes = b""
    action_id: uuid.UUID | None = None


@dataclass(frozen=True)
class Refusal:
    """Which level did not have room, in which unit, and what is left there."""

    reason_code: str  # budget.exhausted, budget.frozen, guard.no_progress, budget.unknown_account …
    message: str
    remedies: Sequence[str] = ()
    account_id: uuid.UUID | None = None
    level: str = ""
    unit: str = ""
    left: Decimal | None = None


@dataclass(frozen=True)
class Reservation:
    """The ledger's answer. `refusal` None: held. `replayed`: the stored answer to an id seen before."""

    hold_id: uuid.UUID
    state: HoldState | None
    refusal: Refusal | None = None
    replayed: bool = False


@dataclass(frozen=True)
class Settlement:
    """What was charged in the end. `replayed`: it had been settled before, nothing changed."""

    hold_id: uuid.UUID
    charged: Amounts
    replayed: bool
    overrun: Sequence[uuid.UUID] = ()  # accounts that went beyond their limit and are frozen now


@dataclass(frozen=True)
class DayOfSpend:
    day: date
    spent: Amounts


@dataclass(frozen=True)
class SandboxRates:
    """What a sandbox costs per second, in the organisation's currency."""

    vcpu_second: Decimal
    gib_second: Decimal
    rate_ids: Sequence[int] = ()


@dataclass(frozen=True)
class ActivityDay:
    """What was tried for a mission on one local day."""

    day: date
    attempts: int = 0
    retries: int = 0
    calls: int = 0
    denied: int = 0
    human_seconds: int = 0


@dataclass(frozen=True)
class MissionFacts:
    """A mission as costs see it. `stamp` differs whenever `standing`, names or team may."""

    mission_id: uuid.UUID
    organisation_id: uuid.UUID
    team_id: uuid.UUID
    agent_id: uuid.UUID
    goal: str
    goal_name: str
    title: str
    standing: Standing
    decided_on: date | None
    stamp: str
    days: Sequence[ActivityDay] = ()


class MissionBook(Protocol):
    """What the pillar that owns missions tells of them."""

    def stamps(self) -> Mapping[uuid.UUID, str]:
        """Every mission that was ever started."""

    def facts(self, mission_ids: Collection[uuid.UUID]) -> Iterable[MissionFacts]: ...
