"""Who did what, as the audit page says it: nobody is told to have asked, approved or withdrawn what another did."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.choices import StopScope
from controlplane.common.clock import now
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.models import Escalation
from governance.types import Proposal

Said = Callable[[], list[str]]


@pytest.fixture
def said(nadia: User, signed_in: Callable[..., Client]) -> Said:
    """Every sentence of the log, the newest first."""
    browser = signed_in(nadia)

    def read() -> list[str]:
        lines = browser.get(reverse("audit")).context["lines"]
        return [one.sentence for line in lines for one in getattr(line, "lines", [line])]

    return read


def ask_for_more(world: Any, person: Principal) -> Any:
    account = world.account_of("mission", world.mission.pk)
    arguments = {"money": "1.00", "account_id": str(account)}
    judgement = governance.propose(proposer=person, proposal=Proposal(kind="budget.topup", arguments=arguments))
    assert judgement.escalation is not None
    return judgement.escalation.id


def test_whoever_refuses_is_not_the_one_who_was_refused(
    world: Any, as_alice: Principal, as_dana: Principal, said: Said
) -> None:
    more = ask_for_more(world, as_alice)
    governance.decide(approver=as_dana, escalation_id=more, version=1, approve=False, reason="Not this month")
    sentences = said()
    assert "$1.00 more for “Chase overdue invoices” was refused, as Dana said no" in sentences
    assert not any("Dana was refused" in sentence for sentence in sentences)


def test_a_question_nobody_answered_was_refused_to_nobody_in_particular(
    world: Any, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ask_credit()
    monkeypatch.setattr("governance.sweeping.now", lambda: now() + timedelta(days=9))
    governance.sweep()
    assert "books__apply_credit was refused: nobody decided in time" in said()


def test_whoever_breaks_the_glass_approves_nothing(world: Any, as_nadia: Principal, said: Said) -> None:
    asked = world.ask_credit()
    governance.break_glass(actor=as_nadia, escalation_id=asked.pk, version=1, reason="The payment run closes now.")
    sentences = said()
    assert "books__apply_credit was allowed, as Nadia broke the glass for it" in sentences
    assert not any("approved" in sentence for sentence in sentences)


def test_nothing_is_said_twice_where_nobody_gave_a_reason(world: Any, as_alice: Principal, said: Said) -> None:
    agents.pause_mission(actor=as_alice, mission_id=world.mission.pk)
    agents.resume_mission(actor=as_alice, mission_id=world.mission.pk)
    agents.stop_mission(actor=as_alice, mission_id=world.mission.pk)
    sentences = said()
    assert "Alice paused Chase overdue invoices" in sentences
    assert "Alice stopped Chase overdue invoices" in sentences
    assert "Alice stopped “Chase overdue invoices”" in sentences
    assert "The stop of “Chase overdue invoices” froze the budget Chase overdue invoices" in sentences
    world.mission.refresh_from_db()
    assert world.mission.state_reason == "Stopped by Alice"


def test_what_a_stop_withdrew_nobody_took_back(world: Any, as_alice: Principal, said: Said) -> None:
    asked = world.ask_credit()
    agents.stop(actor=as_alice, scope=StopScope.TEAM, scope_id=world.team.pk, reason="Drill")
    sentences = said()
    for told in (
        "Alice stopped the team Receivables: Drill",
        "The stop of the team Receivables paused Chase overdue invoices",
        "The stop of the team Receivables froze the budget Receivables",
        "The stop of the team Receivables withdrew the request books__apply_credit",
        "The stop of the team Receivables withdrew books__apply_credit",
    ):
        assert told in sentences, told
    assert not any("Alice withdrew" in sentence for sentence in sentences)
    assert Escalation.objects.get(pk=asked.pk).reason == "Stopped with the team Receivables: Drill"
