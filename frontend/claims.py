"""What an agent claims of its mission's outcome, in the parts that the page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Claim:
    """`outcome`: in the agent's own word. `facts`: evidence that has a shape of its own."""

    summary: str
    outcome: str
    sentences: Sequence[str]
    facts: Sequence[Mapping[str, Any]]


def claim_of(claim: Mapping[str, Any] | None) -> Claim | None:
    """From what is stored, see `agents.services.claim_outcome`."""
    if not claim:
        return None
    outcome, sentences, facts = "", [], []
    for entry in claim.get("evidence", ()):
        match entry:
            case {"outcome": str(word), **rest} if not rest:
                outcome = word
            case {"text": str(text), **rest} if not rest:
                sentences.append(text)
            case _:
                facts.append(entry)
    return Claim(claim.get("summary", ""), outcome, sentences, facts)
