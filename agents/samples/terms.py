"""The shape of a sample mission's terms, as plain data. Which servers it needs is the catalogue's business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

# A sandbox gets this folder read-only; `python <PROGRAMS> <name>` runs a sample by name.
PROGRAMS = Path(__file__).resolve().parent

# What one argument has to satisfy: any of equals, one_of, min, max, max_total, starts_with, like, max_length; all that
# are given. Decimal bounds are text ("100.00"), never floats.
Bound = str | int | Sequence[str]
Constraint = Mapping[str, Bound]


class Effect(StrEnum):
    ALLOW = "allow"
    ESCALATE = "escalate"


@dataclass(frozen=True)
class Grant:
    """One permit of the mission. `max_calls` counts calls of one run; None leaves it to the budget.

    `sentence` is how people read it.
    """

    tool: str
    effect: Effect = Effect.ALLOW
    constraints: Mapping[str, Constraint] = field(default_factory=dict)
    max_calls: int | None = None
    sentence: str = ""


@dataclass(frozen=True)
class Criterion:
    """One line of the acceptance checklist. The agent knows it by `key`, the mission by its text."""

    key: str
    text: str


@dataclass(frozen=True)
class Budget:
    """`amount` is decimal text in `currency`; `steps` are governed calls."""

    amount: str
    currency: str
    tokens: int
    steps: int


@dataclass(frozen=True)
class Limits:
    """What stops a run that is not getting anywhere."""

    wall_clock_seconds: int
    same_call_same_result: int
    calls_per_minute: int
