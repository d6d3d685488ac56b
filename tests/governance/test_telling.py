"""What nobody was woken for is told all the same: the rows say who has to hear of what."""

from __future__ import annotations

import pytest
from django.core import mail

from controlplane.common.errors import RemitError
from controlplane.tenancy import members
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services
from governance.approval_models import BreakGlass, EscalationMessage, Notice
from governance.choices import EscalationState, ReviewVerdict, Verdict
from governance.models import Escalation
from governance.tasks import tell_all
from governance.types import Finding

from .gate import Gate
from .scene import TOOL

pytestmark = pytest.mark.django_db  # its transactions never commit, so no task is sent


def test_broken_glass_whose_message_was_lost_is_told_by_the_sweep(
    gate: Gate, as_nadia: Principal, as_dana: Principal, dana: User, bob: User
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
    services.review_break_glass(
        reviewer=as_dana, break_glass_id=BreakGlass.objects.get().pk, verdict=ReviewVerdict.JUSTIFIED, note="It was."
    )
    assert not told.filter(escalation=question, read_at__isnull=True).exists()  # nobody is asked any more


def test_who_left_before_the_mail_about_broken_glass_went_out_gets_none(
    gate: Gate, as_nadia: Principal, dana: User, bob: User
) -> None:
    question = gate.escalation(gate.propose(60))
    tell_all()
    services.break_glass(
        actor=as_nadia, escalation_id=question.pk, version=1, reason="The payment run closes in five minutes."
    )
    services.tell_about(question.pk)
    members.deactivate(principal=as_nadia, user_id=bob.pk)
    mail.outbox.clear()
    services.send_mails()
    assert [sent.to for sent in mail.outbox if sent.subject.startswith("Break-glass")] == [[dana.email]]


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


def test_an_answer_without_a_name_goes_to_the_question_that_can_still_be_answered(
    gate: Gate, as_dana: Principal
) -> None:
    judgement = gate.propose(60)
    services.ask_agent(actor=as_dana, escalation_id=gate.escalation(judgement).pk, text="Why so much?")
    gate.scene.guards = [Finding(Verdict.ESCALATE, "change.freeze", "A change freeze began.", policy="freeze")]
    gate.decide(judgement, as_dana)
    with pytest.raises(RemitError, match=r"question\.none"):
        services.answer_question(principal=gate.run, action_id=judgement.action_id, text="It was promised.")
    assert not EscalationMessage.objects.filter(kind="answer").exists()
    second = Escalation.objects.get(action_id=judgement.action_id, state=EscalationState.OPEN)
    asked = services.ask_agent(actor=as_dana, escalation_id=second.pk, text="And in the freeze?")
    answered = services.answer_question(principal=gate.run, action_id=judgement.action_id, text="It can wait.")
    assert answered.answers_id == asked.pk
