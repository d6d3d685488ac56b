"""What crosses the judge's edge: the brief it is given, its answer, and the opinion that becomes a rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from governance.types import Finding


class Said(StrEnum):
    ALIGNED = "aligned"
    MISALIGNED = "misaligned"
    UNSURE = "unsure"


@dataclass(frozen=True)
class Answer:
    """A valid answer. `clause` is a verbatim part of the mission's text, `evidence` JSON pointers into the brief, each
    with the beginning of what stood there."""

    said: Said
    clause: str
    evidence: Mapping[str, str]
    summary: str
    model: str
    tokens: int


class AnswerInvalid(ValueError):
    """Anything that is not exactly an answer; `reason` is a code of ours, the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Opinion:
    """The judge's rung: `finding` None means that it agrees. `details` is what the proof ladder shows of it."""

    finding: Finding | None
    saw: str
    said: str
    microseconds: int
    policies: Sequence[str]
    details: Mapping[str, Any] = field(default_factory=dict)
