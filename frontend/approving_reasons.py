"""What speaks for a call and what against it, from what the gate, the remit, the tool and earlier answers say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from frontend.approving import Card


@dataclass(frozen=True)
class Reasons:
    """Sentences. Neither side is an opinion: each says a fact somebody can look up on the card."""

    speaks_for: Sequence[str]
    against: Sequence[str]


def reasons(card: Card, over: Sequence[str]) -> Reasons:
    """`over` names the arguments beyond what the agent may do alone."""
    arguments = card.escalation.action.arguments
    yes = [f"The remit foresees it with a person: {clause}." for clause in card.clauses]
    no = [f"{name} {arguments.get(name, '')} is beyond what the agent may do alone." for name in over]
    tool = card.tool
    if tool is None:
        no.append("The tool is no longer registered.")
    elif tool.read_only:
        yes.append("It only reads; nothing changes.")
    elif tool.reversible:
        yes.append("It can be undone.")
    else:
        no.append("It can't be undone, as far as is known.")
    if card.past["approved"]:
        yes.append(_as_before(card.past["approved"], len(card.before), "approved"))
    if card.past["refused"]:
        no.append(_as_before(card.past["refused"], len(card.before), "refused"))
    if not card.before:
        no.append("Nobody has decided one like it yet.")
    return Reasons(yes, no)


def _as_before(count: int, of: int, answered: str) -> str:
    if of == 1:
        return f"The one like it before was {answered}."
    return f"{count} of the last {of} like it {'was' if count == 1 else 'were'} {answered}."
