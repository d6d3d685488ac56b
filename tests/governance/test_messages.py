"""What is said beside a question: comments, what the agent is asked, and its answer."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal
from governance import services
from governance.approval_models import EscalationMessage

from .gate import Gate

pytestmark = pytest.mark.django_db


def test_comments_and_questions_stop_when_the_question_is_closed(
    gate: Gate, as_dana: Principal, as_finn: Principal
) -> None:
    judgement = gate.propose(60)
    key = gate.escalation(judgement).pk
    services.comment(actor=as_dana, escalation_id=key, text="Looks large.")
    question = services.ask_agent(actor=as_dana, escalation_id=key, text="Why 60?")
    answered = services.answer_question(principal=gate.run, action_id=judgement.action_id, text="Nine days late.")
    assert answered.answers_id == question.pk
    with pytest.raises(RemitError, match=r"question\.none"):
        services.answer_question(principal=gate.run, action_id=judgement.action_id, text="Again.")
    with pytest.raises(RemitError, match=r"escalation\.not_found"):
        services.comment(actor=as_finn, escalation_id=key, text="Me too.")
    gate.decide(judgement, as_dana)
    with pytest.raises(RemitError, match=r"escalation\.closed"):
        services.comment(actor=as_dana, escalation_id=key, text="Too late.")
    assert EscalationMessage.objects.count() == 3
    with pytest.raises(IntegrityError), transaction.atomic():
        EscalationMessage.objects.update(text="Never said.")


@pytest.mark.parametrize("text", ["", "   ", "x" * 2001, "a\0b"])
def test_what_is_no_message_is_not_kept(gate: Gate, as_dana: Principal, text: str) -> None:
    key = gate.escalation(gate.propose(60)).pk
    with pytest.raises(RemitError):
        services.comment(actor=as_dana, escalation_id=key, text=text)
    assert not EscalationMessage.objects.exists()
