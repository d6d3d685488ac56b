"""What was asked of people about a mission, as its page tells it: who asked, whom it waits for, who answered what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agents.models import Mission
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Permission, Principal
from governance import selectors as governance
from governance.choices import ActionState, EscalationState
from governance.models import Action, Escalation, Vote


@dataclass(frozen=True)
class Asked:
    """`question` is None where nobody had to be asked. `waits_for` are the people who may answer it now."""

    action: Action
    question: Escalation | None
    votes: Sequence[Vote]
    waits_for: Sequence[User] = ()

    @property
    def is_open(self) -> bool:
        return self.question is not None and self.question.state == EscalationState.OPEN


def asked(principal: Principal, mission: Mission, kinds: Iterable[str], *, limit: int = 20) -> list[Asked]:
    """Newest first. Three queries, and one more for each question that is open."""
    found = governance.asked_of_people(principal=principal, mission_id=mission.pk, kinds=kinds, limit=limit)
    return [_asked(principal, action) for action in found]


def _asked(principal: Principal, action: Action) -> Asked:
    question = next(reversed(list(action.escalations.all())), None)
    votes = list(question.votes.all()) if question else []
    if question is None or action.state != ActionState.WAITING:
        return Asked(action, question, votes)
    without = {*question.excluded_user_ids, action.proposer_id, *(vote.user_id for vote in votes)}
    people = tenancy.people_with(principal, Permission.ESCALATION_DECIDE, team_id=question.team_id, without=without)
    return Asked(action, question, votes, people)
