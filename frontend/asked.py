"""What was asked of people about a mission, as its page tells it: who asked, whom it waits for, who answered what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agents.models import Mission
from agents.waiting import left_in_words
from controlplane.tenancy.types import Principal
from governance import selectors as governance
from governance.choices import ActionState, EscalationState
from governance.models import Action, Escalation, Vote

_MOST_NAMES = 4


@dataclass(frozen=True)
class Asked:
    """`question` is None where nobody had to be asked. `waits_for` says who may answer it now and how many of them it
    needs; empty where too few are left to settle it."""

    action: Action
    question: Escalation | None
    votes: Sequence[Vote]
    waits_for: str = ""

    @property
    def is_open(self) -> bool:
        return self.question is not None and self.question.state == EscalationState.OPEN


def asked(principal: Principal, mission: Mission, kinds: Iterable[str], *, limit: int = 20) -> list[Asked]:
    """Newest first. Queries are constant."""
    found = governance.asked_of_people(principal=principal, mission_id=mission.pk, kinds=kinds, limit=limit)
    questions = {action.pk: next(reversed(list(action.escalations.all())), None) for action in found}
    open_ones = [
        question
        for action in found
        if (question := questions[action.pk]) is not None and action.state == ActionState.WAITING
    ]
    waits_for = {
        key: left_in_words(left, most=_MOST_NAMES)
        for key, left in governance.left_to_answer(open_ones).items()
        if left.people
    }
    result = []
    for action in found:
        question = questions[action.pk]
        votes = list(question.votes.all()) if question else []
        result.append(Asked(action, question, votes, waits_for.get(question.pk, "") if question else ""))
    return result
