"""What was asked of people about a mission, as its page tells it: who asked, whom it waits for, who answered what."""

from __future__ import annotations

import uuid
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
    """Newest first. Three queries, and one more for each set of people that open questions wait for."""
    found = governance.asked_of_people(principal=principal, mission_id=mission.pk, kinds=kinds, limit=limit)
    people: dict[tuple[uuid.UUID, frozenset[uuid.UUID]], list[User]] = {}
    result = []
    for action in found:
        question = next(reversed(list(action.escalations.all())), None)
        votes = list(question.votes.all()) if question else []
        waits_for: Sequence[User] = ()
        if question is not None and action.state == ActionState.WAITING:
            without = {*question.excluded_user_ids, action.proposer_id, *(vote.user_id for vote in votes)}
            key = (question.team_id, frozenset(without))
            if key not in people:
                people[key] = tenancy.people_with(
                    principal, Permission.ESCALATION_DECIDE, team_id=question.team_id, without=without
                )
            waits_for = people[key]
        result.append(Asked(action, question, votes, waits_for))
    return result
