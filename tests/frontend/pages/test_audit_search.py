"""Looking for words in the trail: what a sentence shows is found by its words, on the page and over the interface."""

from __future__ import annotations

import string
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction
from django.urls import reverse

from agents import services as agents
from agents.choices import StopScope
from budgets import services as budgets
from budgets.changes import NO_LIMIT
from budgets.models import Account
from budgets.types import Limits, WindowKind
from controlplane.audit import erasure, reasons, sentences, services
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.audit.services import Subject
from controlplane.common.ids import new_id
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal, Role, system_principal

from .browsing import SignIn


def found(browser: Any, words: str) -> list[str]:
    answer = browser.get(reverse("audit"), {"q": words})
    assert answer.status_code == 200
    return [line.sentence for line in answer.context["lines"]]


def write(organisation: Any, event: Event, *, actor: Principal | None = None, **payload: Any) -> Entry:
    with transaction.atomic():
        return services.record(
            event=event,
            actor=actor or system_principal(organisation_id=organisation.pk),
            subject=Subject("mission", new_id(), "Invoices"),
            payload=payload,
        )


def test_words_that_people_gave_as_their_reason_are_found(
    busy: Any, dana: User, as_nadia: Any, signed_in: SignIn
) -> None:
    agents.stop(
        actor=busy.owner, scope=StopScope.TEAM, scope_id=busy.team.pk, reason="Zeppelin <b>drill</b> 100% \\ done"
    )
    account = Account.objects.get(level="organisation")
    limits = Limits(money=Decimal(7))
    told = {"actor": as_nadia, "account_id": account.pk, "window": WindowKind.WEEK, "seen": NO_LIMIT}
    budgets.change_limit(**told, limits=limits, reason="Quarter of frugality")
    browser = signed_in(dana)
    assert any("stopped the team" in said for said in found(browser, "zeppelin"))
    assert any("stopped the team" in said for said in found(browser, "alice: Zeppelin <b>drill 100% \\"))
    assert found(browser, "frugality") == [f"Nadia set the limit of {account.name}"]
    assert any("Bob refused" in said for said in found(browser, "ticket agreement"))
    assert found(browser, "100_") == []
    assert found(browser, "zeppelin frugality") == []


@pytest.mark.parametrize("event", list(Event), ids=lambda event: event.value)
def test_every_word_of_a_sentence_finds_its_entry(northwind: Any, dana: User, signed_in: SignIn, event: Event) -> None:
    fields = {name for _, name, *_ in string.Formatter().parse(str(event.label)) if name}
    entry = write(northwind, event, **{name: f"what {name} says" for name in fields - {"actor", "subject"}})
    assert sentences.sentence(entry) in found(signed_in(dana), sentences.sentence(entry))


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        *((event, {"stop": "Hall 7", "reason": "Fire"}) for event in sentences.BY_A_STOP),
        (Event.ACTION_ALLOWED, {"glass_broken": True}),
        (Event.ACTION_DENIED, {"reason_code": "escalation.denied"}),
        (Event.ACTION_DENIED, {"reason_code": "rate.exceeded"}),
    ],
)
def test_so_does_that_of_a_case(
    northwind: Any, dana: User, signed_in: SignIn, event: Event, payload: dict[str, Any]
) -> None:
    entry = write(northwind, event, **payload)
    write(northwind, event)
    said = sentences.sentence(entry)
    assert len({word for word in said.split() if len(word) > 2}) > 2
    assert found(signed_in(dana), " ".join(said.split()[:8])) == [said]
    assert found(signed_in(dana), " ".join(said.split()[-6:])) == [said]


def test_what_a_sentence_does_not_show_and_its_empty_places_are_not_found(
    northwind: Any, dana: User, signed_in: SignIn
) -> None:
    write(northwind, Event.MISSION_PAUSED, reason="Lunch", hidden="zeppelin", version="17zeppelin")
    browser = signed_in(dana)
    assert found(browser, "zeppelin") == []
    assert found(browser, "{reason}") == found(browser, "{actor}") == []
    assert reasons.IN_WORDS["rate.exceeded"] == "too many calls in a short time"
    assert found(browser, "calls in a short time") == []


def test_words_of_an_erased_person_are_found_no_more(
    northwind: Any, make_person: Any, as_nadia: Any, dana: User, signed_in: SignIn
) -> None:
    gone = make_person("Rosalind", northwind, Role.BUILDER)
    User.objects.filter(pk=gone.pk).update(name="Rosalind Quellwasser")
    write(northwind, Event.MISSION_PAUSED, reason="As Rosalind Quellwasser said")
    browser = signed_in(dana)
    assert len(found(browser, "quellwasser")) == 1
    erasure.erase_person(actor=as_nadia, user_id=gone.pk)
    assert found(browser, "quellwasser") == []
