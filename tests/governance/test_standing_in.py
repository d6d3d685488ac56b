"""Delegates answer in the place of others: one vote for both, and none about one's own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from controlplane.audit.models import Entry
from controlplane.audit.searching import holds_text
from controlplane.audit.sentences import sentence
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import members
from controlplane.tenancy.models import Membership, Team, User
from controlplane.tenancy.types import Principal, Role
from governance import services
from governance.approval_models import Delegation
from governance.choices import EscalationState
from governance.models import Vote

from .gate import Gate
from .questions import MakeGroup, refused, waits_for

pytestmark = pytest.mark.django_db


def stand_in(actor: Principal, for_whom: User, who: User, **fields: Any) -> Delegation:
    values = {"starts_at": now() - timedelta(minutes=1), "ends_at": now() + timedelta(days=1), "reason": "away"}
    return services.delegate(actor=actor, from_user_id=for_whom.pk, to_user_id=who.pk, **{**values, **fields})


def test_a_delegate_answers_in_the_place_of_whom_they_stand_in_for(
    gate: Gate, route: Any, make_group: MakeGroup, as_nadia: Principal, as_bob: Principal, bob: User, dana: User
) -> None:
    route(group_id=make_group("Directors", dana).pk)
    judgement = gate.propose(60)
    assert refused(gate, judgement, as_bob).code == "escalation.not_asked"
    stand_in(as_nadia, dana, bob)
    assert waits_for([as_bob], judgement) == ["Bob"]
    assert gate.decide(judgement, as_bob).state == EscalationState.APPROVED
    assert Vote.objects.get().for_user == dana
    told = Entry.objects.get(event="escalation.approved")
    assert sentence(told) == f"Bob approved {told.subject_name} in the place of Dana"


def test_the_trail_says_in_whose_place_somebody_refused_and_is_searched_by_it(
    gate: Gate, route: Any, make_group: MakeGroup, as_nadia: Principal, as_bob: Principal, bob: User, dana: User
) -> None:
    route(group_id=make_group("Directors", dana).pk)
    stand_in(as_nadia, dana, bob)
    gate.decide(gate.propose(60), as_bob, approve=False)
    told = Entry.objects.get(event="escalation.denied")
    assert sentence(told) == f"Bob refused {told.subject_name} in the place of Dana: looks right"
    assert Entry.objects.filter(holds_text("refused place Dana"), event="escalation.denied").exists()


def test_a_delegate_and_whom_they_stand_in_for_are_one_vote(
    gate: Gate,
    route: Any,
    make_group: MakeGroup,
    as_nadia: Principal,
    as_bob: Principal,
    bob: User,
    dana: User,
    as_dana: Principal,
    approvers: list[User],
    acting: Any,
) -> None:
    route(needed=2, group_id=make_group("Directors", dana, approvers[0]).pk)
    stand_in(as_nadia, dana, bob)
    judgement = gate.propose(60)
    gate.decide(judgement, as_dana)
    assert refused(gate, judgement, as_bob).code == "escalation.seat_taken"
    other = gate.propose(61)
    gate.decide(other, as_bob)
    assert gate.decide(other, as_dana).state == EscalationState.OPEN  # her own vote takes her say back
    assert gate.decide(other, acting(approvers[0])).state == EscalationState.APPROVED


def test_the_owners_delegate_can_not_vote_not_even_when_it_ended_meanwhile(
    gate: Gate, as_nadia: Principal, nadia: User, as_bob: Principal, bob: User, as_dana: Principal
) -> None:
    gate.scene.excluded = [nadia.pk]
    standing = stand_in(as_nadia, nadia, bob)
    judgement = gate.propose(60)
    assert waits_for([as_bob, as_dana], judgement) == ["Dana"]
    assert refused(gate, judgement, as_bob).code == "escalation.four_eyes"
    services.end_delegation(actor=as_nadia, delegation_id=standing.pk)
    assert refused(gate, judgement, as_bob).code == "escalation.four_eyes"
    assert waits_for([as_bob], judgement) == []
    later = gate.propose(61)
    assert waits_for([as_bob], later) == ["Bob"]


def test_the_requesters_delegate_can_not_vote(
    gate: Gate, as_nadia: Principal, nadia: User, as_bob: Principal, bob: User, as_dana: Principal
) -> None:
    stand_in(as_nadia, nadia, bob)
    judgement = services.propose(
        proposer=as_nadia, proposal=gate.proposal(kind="test.sign_off", tool="", arguments={"money": 6})
    )
    assert waits_for([as_nadia, as_bob, as_dana], judgement) == ["Dana"]
    assert refused(gate, judgement, as_bob).code == "escalation.four_eyes"


def test_standing_in_gives_no_role(as_dana: Principal, dana: User, alice: User, as_alice: Principal) -> None:
    with pytest.raises(RemitError) as caught:
        stand_in(as_dana, dana, alice)
    assert caught.value.errors[0].pointer == "/to_user_id"
    with pytest.raises(RemitError, match=r"permission\.denied"):
        stand_in(as_alice, dana, alice)
    assert not Delegation.objects.exists()


@pytest.mark.parametrize("days", [-1, 0, 91])
def test_standing_in_has_an_end_that_can_be_kept(as_dana: Principal, dana: User, bob: User, days: int) -> None:
    with pytest.raises(RemitError, match=r"delegation\.invalid"):
        stand_in(as_dana, dana, bob, starts_at=now(), ends_at=now() + timedelta(days=days))
    assert not Delegation.objects.exists()


@pytest.mark.parametrize("loss", ["deactivated", "role", "another team"])
def test_nobody_uses_the_say_of_a_person_who_has_none_themselves(
    gate: Gate,
    route: Any,
    make_group: MakeGroup,
    as_nadia: Principal,
    dana: User,
    bob: User,
    as_bob: Principal,
    approvers: list[User],
    acting: Any,
    loss: str,
) -> None:
    olga, piet, _ = approvers
    route(needed=2, group_id=make_group("Directors", dana, olga, piet).pk)
    stand_in(as_nadia, dana, bob)
    voted, unasked = gate.propose(60), gate.propose(61)
    gate.decide(voted, as_bob)
    match loss:
        case "deactivated":
            members.deactivate(principal=as_nadia, user_id=dana.pk)
        case "role":
            Membership.objects.filter(user=dana).update(role=Role.AUDITOR)
        case _:
            elsewhere = Team.objects.create(organisation=dana.memberships.get().organisation, name="Far", slug="far")
            Membership.objects.filter(user=dana).update(team=elsewhere)
    assert refused(gate, unasked, as_bob).code == "escalation.not_asked"
    assert waits_for([as_bob, acting(olga)], unasked) == ["Olga"]
    assert gate.decide(voted, acting(olga)).state == EscalationState.OPEN  # his answer in her place counts no more
    assert gate.decide(voted, acting(piet)).state == EscalationState.APPROVED


def test_a_question_whose_say_is_used_waits_for_no_stand_in(
    gate: Gate,
    route: Any,
    make_group: MakeGroup,
    as_nadia: Principal,
    dana: User,
    as_dana: Principal,
    bob: User,
    as_bob: Principal,
    approvers: list[User],
    acting: Any,
) -> None:
    olga, piet, _ = approvers
    as_olga, as_piet = acting(olga), acting(piet)
    route(needed=3, group_id=make_group("Directors", dana, olga, piet).pk)
    stand_in(as_nadia, dana, bob)
    judgement = gate.propose(60)
    everybody = [as_dana, as_bob, as_olga, as_piet]
    assert waits_for(everybody, judgement) == ["Dana", "Bob", "Olga", "Piet"]
    gate.decide(judgement, as_dana)
    assert refused(gate, judgement, as_bob).code == "escalation.seat_taken"
    assert waits_for(everybody, judgement) == ["Olga", "Piet"]
    stand_in(as_nadia, olga, bob)
    assert waits_for(everybody, judgement) == ["Bob", "Olga", "Piet"]
    gate.decide(judgement, as_bob)
    assert waits_for(everybody, judgement) == ["Olga", "Piet"]


def test_a_question_waits_for_no_second_stand_in_once_the_first_answered(
    gate: Gate,
    route: Any,
    make_group: MakeGroup,
    as_nadia: Principal,
    dana: User,
    as_dana: Principal,
    bob: User,
    as_bob: Principal,
    approvers: list[User],
    acting: Any,
) -> None:
    olga, piet, _ = approvers
    route(needed=2, group_id=make_group("Directors", dana, olga).pk)
    stand_in(as_nadia, dana, bob)
    stand_in(as_nadia, dana, piet)
    judgement = gate.propose(60)
    gate.decide(judgement, as_bob)
    assert refused(gate, judgement, acting(piet)).code == "escalation.seat_taken"
    assert waits_for([acting(piet), as_dana], judgement) == ["Dana"]


def test_what_a_stand_in_answered_counts_no_more_when_that_ended_and_the_next_one_is_asked(
    gate: Gate,
    route: Any,
    make_group: MakeGroup,
    as_nadia: Principal,
    dana: User,
    as_dana: Principal,
    bob: User,
    as_bob: Principal,
    approvers: list[User],
    acting: Any,
) -> None:
    olga, piet, _ = approvers
    route(needed=2, group_id=make_group("Directors", dana, olga).pk)
    first = stand_in(as_nadia, dana, bob)
    stand_in(as_nadia, dana, piet)
    judgement = gate.propose(60)
    gate.decide(judgement, as_bob)
    services.end_delegation(actor=as_dana, delegation_id=first.pk)
    assert waits_for([as_dana, as_bob, acting(olga), acting(piet)], judgement) == ["Dana", "Olga", "Piet"]
    assert gate.decide(judgement, acting(olga)).state == EscalationState.OPEN
    assert gate.decide(judgement, acting(piet)).state == EscalationState.APPROVED


def test_standing_in_for_who_stands_in_for_the_owner_gives_no_say(
    gate: Gate,
    route: Any,
    make_group: MakeGroup,
    as_nadia: Principal,
    nadia: User,
    dana: User,
    bob: User,
    as_bob: Principal,
    as_dana: Principal,
    approvers: list[User],
    acting: Any,
) -> None:
    gate.scene.excluded = [nadia.pk]
    route(group_id=make_group("Directors", dana, approvers[0]).pk)
    stand_in(as_nadia, nadia, dana)
    stand_in(as_nadia, dana, bob)
    judgement = gate.propose(60)
    assert refused(gate, judgement, as_bob).code == "escalation.not_asked"
    assert waits_for([as_dana, as_bob, acting(approvers[0])], judgement) == ["Olga"]
