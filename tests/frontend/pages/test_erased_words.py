"""Erasing a person takes out what they wrote beside questions; the chain holds, and nothing else touches the words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.urls import reverse

from agents.models import Mission
from controlplane.audit import erasure
from controlplane.audit.sealing import seal_all
from controlplane.audit.verification import verify_organisation
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal, Role
from governance import services
from governance.approval_models import EscalationMessage
from governance.escalations.conversing import ERASED

SignIn = Callable[..., Client]
PRIVATE = "I am at my sister's wedding, call 0170 555 0101"


@pytest.fixture
def rosalind(make_person: Any, world: Any) -> User:
    user: User = make_person("Rosalind", world.organisation, Role.APPROVER, team=world.team)
    return user


@pytest.fixture
def spoken(world: Any, rosalind: User, bob: User, as_bob: Principal, signed_in: SignIn) -> Any:
    """Rosalind commented and asked, the agent answered, Bob wrote about her."""
    question = world.ask_credit()
    browser = signed_in(rosalind)
    for to, text in (("people", PRIVATE), ("agent", "Did Rosalind's sister order this?")):
        browser.post(reverse("approval-say", args=[question.pk]), {"text": text, "to": to})
    services.answer_question(principal=world.as_run, action_id=question.action_id, text="Nothing says so.")
    services.comment(actor=as_bob, escalation_id=question.pk, text="Let us wait for Rosalind")
    return question


def said(kind: str) -> list[tuple[str, str]]:
    return list(EscalationMessage.objects.filter(kind=kind).order_by("id").values_list("author_name", "text"))


def test_what_a_person_wrote_goes_with_them_and_the_chain_holds(
    world: Any, spoken: Any, rosalind: User, nadia: User, bob: User, signed_in: SignIn
) -> None:
    admin = signed_in(nadia)
    assert "What they wrote beside questions" in admin.get(reverse("person-erase", args=[rosalind.pk])).content.decode()
    html = admin.post(reverse("person-erase", args=[rosalind.pk]), {"sure": "yes"}).content.decode()
    assert "Every mention that Remit looked for is replaced." in html
    pseudonym = erasure.pseudonym_of(rosalind.pk)
    again = admin.get(reverse("person-erase", args=[rosalind.pk]), follow=True).content.decode()
    assert f"{pseudonym} is erased already." in again
    assert said("comment") == [(pseudonym, ERASED), ("Bob", f"Let us wait for {pseudonym}")]
    assert said("question") == [(pseudonym, ERASED)]
    assert [text for _, text in said("answer")] == ["Nothing says so."]
    card = signed_in(bob).get(reverse("approval", args=[spoken.pk])).content.decode()
    assert "wedding" not in card
    assert ERASED in card
    seal_all()
    assert verify_organisation(organisation_id=world.organisation.pk).intact


def test_what_is_not_replaced_is_said(world: Any, rosalind: User, nadia: User, signed_in: SignIn) -> None:
    mission = Mission.objects.get(pk=world.mission.pk)
    Mission.objects.filter(pk=mission.pk).update(
        title="Ask rosalind", settings={"values": {"Rosalind": 1}, "variables": {}}
    )
    path = reverse("person-erase", args=[rosalind.pk])
    html = signed_in(nadia).post(path, {"sure": "yes"}).content.decode()
    assert "<code>agents_mission.settings</code>" in html
    mission.refresh_from_db()
    assert mission.title == "Ask rosalind"
    assert "It does not look for a single name in lower case" in html


def test_an_erasure_that_is_refused_leaves_every_word(
    spoken: Any, rosalind: User, bob: User, signed_in: SignIn
) -> None:
    before = [said(kind) for kind in ("comment", "question", "answer")]
    assert signed_in(bob).post(reverse("person-erase", args=[rosalind.pk]), {"sure": "yes"}).status_code == 403
    assert [said(kind) for kind in ("comment", "question", "answer")] == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE governance_escalationmessage SET text = '[erased with the person who wrote it]'",
        "UPDATE governance_escalationmessage SET text = 'I agree' WHERE author_id = %(rosalind)s",
        "UPDATE governance_escalationmessage SET text = 'I agree' WHERE author_id = %(bob)s",
        "UPDATE governance_escalationmessage SET author_id = %(bob)s WHERE author_id = %(rosalind)s",
        "DELETE FROM governance_escalationmessage",
    ],
)
@pytest.mark.parametrize("erased", [False, True])
def test_the_database_lets_nothing_else_touch_what_was_said(
    spoken: Any, rosalind: User, bob: User, as_nadia: Principal, statement: str, erased: bool
) -> None:
    """Neither for who is not erased, nor with other words under cover of an erasure."""
    if erased:
        erasure.erase_person(actor=as_nadia, user_id=rosalind.pk)
    before = [said(kind) for kind in ("comment", "question", "answer")]
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('remit.erasing', %s, true)", [str(rosalind.pk)])
    with pytest.raises(DatabaseError, match="never changed"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, {"rosalind": rosalind.pk, "bob": bob.pk})
    assert [said(kind) for kind in ("comment", "question", "answer")] == before
