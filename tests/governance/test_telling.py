"""What nobody was woken for is told all the same: the rows say who has to hear of what."""

from __future__ import annotations

import pytest
from django.core import mail

from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services
from governance.approval_models import Notice
from governance.tasks import tell_all

from .conftest import TOOL, Gate

pytestmark = pytest.mark.django_db  # its transactions never commit, so no task is sent


def test_broken_glass_whose_message_was_lost_is_told_by_the_sweep(
    gate: Gate, as_nadia: Principal, dana: User, bob: User
) -> None:
    question = gate.escalation(gate.propose(60))
    tell_all()
    mail.outbox.clear()
    services.break_glass(
        actor=as_nadia, escalation_id=question.pk, version=1, reason="The payment run closes in five minutes."
    )
    tell_all()
    told = Notice.objects.filter(kind="break_glass")
    assert set(told.values_list("user__name", flat=True)) == {"Bob", "Dana"}
    assert {sent.subject for sent in mail.outbox} == {f"Break-glass to review: Call {TOOL}"}
    assert services.untold() == []
    tell_all()
    assert (told.count(), len(mail.outbox)) == (2, 2)


def test_an_answer_of_the_agent_whose_message_was_lost_is_told_by_the_sweep(
    gate: Gate, as_dana: Principal, dana: User, bob: User
) -> None:
    judgement = gate.propose(60)
    tell_all()
    services.ask_agent(actor=as_dana, escalation_id=gate.escalation(judgement).pk, text="Why so much?")
    services.answer_question(principal=gate.run, action_id=judgement.action_id, text="It was promised.")
    tell_all()
    told = Notice.objects.filter(kind="answered")
    assert list(told.values_list("user__name", flat=True)) == ["Dana"]
    assert services.untold() == []
    tell_all()
    assert told.count() == 1
