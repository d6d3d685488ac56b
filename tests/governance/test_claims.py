"""Claims on a question: they keep others from approving until they end, never from refusing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal
from governance import services
from governance.choices import EscalationState
from governance.models import Escalation

from .gate import Gate
from .questions import refused

pytestmark = pytest.mark.django_db


def test_a_claim_keeps_others_from_approving_until_it_ends(gate: Gate, as_bob: Principal, as_dana: Principal) -> None:
    judgement = gate.propose(60)
    services.claim(actor=as_bob, escalation_id=gate.escalation(judgement).pk)
    error = refused(gate, judgement, as_dana)
    assert (error.code, error.message) == ("escalation.claimed", "Bob is at work on this.")
    with pytest.raises(RemitError, match=r"escalation\.claimed"):
        services.claim(actor=as_dana, escalation_id=gate.escalation(judgement).pk)
    Escalation.objects.update(claimed_until=now() - timedelta(seconds=1))
    assert gate.decide(judgement, as_dana).state == EscalationState.APPROVED


def test_a_claim_is_renewed_taken_over_and_given_back(gate: Gate, as_bob: Principal, as_dana: Principal) -> None:
    key = gate.escalation(gate.propose(60)).pk
    first = services.claim(actor=as_bob, escalation_id=key)
    again = services.claim(actor=as_bob, escalation_id=key)
    assert again.claimed_until > first.claimed_until  # type: ignore[operator]
    taken = services.claim(actor=as_dana, escalation_id=key, take_over=True)
    assert (taken.claimed_by_id, taken.version) == (as_dana.id, 1)
    assert services.release(actor=as_bob, escalation_id=key).claimed_by_id == as_dana.id
    assert services.release(actor=as_dana, escalation_id=key).claimed_by_id is None
    assert list(Entry.objects.filter(event="escalation.taken_over").values_list("payload", flat=True)) == [
        {"claimant": "Bob"}
    ]


def test_a_claim_never_keeps_anybody_from_refusing(gate: Gate, as_bob: Principal, as_dana: Principal) -> None:
    judgement = gate.propose(60)
    services.claim(actor=as_bob, escalation_id=gate.escalation(judgement).pk)
    assert gate.decide(judgement, as_dana, approve=False, reason="No ticket").state == EscalationState.DENIED


def test_only_who_may_decide_claims(gate: Gate, as_alice: Principal, as_finn: Principal, as_dana: Principal) -> None:
    gate.scene.excluded = [as_dana.id]
    key = gate.escalation(gate.propose(60)).pk
    for person in (as_alice, as_finn, as_dana):
        with pytest.raises(RemitError):
            services.claim(actor=person, escalation_id=key)
    assert Escalation.objects.get(pk=key).claimed_by_id is None
