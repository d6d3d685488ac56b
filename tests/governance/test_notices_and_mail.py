"""How people are told of a question: once, by notice and by mail, while it waits for them."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail

from controlplane.common.clock import now
from controlplane.tenancy.models import Membership, User
from controlplane.tenancy.types import Principal
from governance import selectors, services
from governance.approval_models import Notice
from governance.escalations.notifying import MOST_MAILS_AN_HOUR, link_to
from governance.models import Escalation
from governance.services import Route

from .gate import Gate
from .questions import smash

pytestmark = pytest.mark.django_db


def test_those_who_may_decide_are_told_once_however_often_it_is_tried(
    gate: Gate, as_dana: Principal, as_bob: Principal, as_alice: Principal, dana: User
) -> None:
    gate.scene.excluded = [as_bob.id]
    key = gate.escalation(gate.propose(60)).pk
    assert services.untold() == [key]
    for _ in range(3):
        services.tell_about(key)
        services.send_mails()
    assert services.untold() == []
    (sent,) = mail.outbox
    assert sent.to == [dana.email]
    link = re.search(r"/approvals/from-mail/(\S+)", sent.body)
    assert link is not None
    assert selectors.read_link(link[1]) == (key, dana.pk)
    assert "decides nothing" in sent.body
    assert [selectors.count_unread(person) for person in (as_dana, as_bob, as_alice)] == [1, 0, 0]
    assert [row.escalation_id for row in selectors.notices_of(as_dana)] == [key]
    services.mark_read(principal=as_dana)
    assert selectors.count_unread(as_dana) == 0


def test_nobody_is_mailed_about_what_is_settled_or_no_longer_theirs(
    gate: Gate, as_dana: Principal, as_bob: Principal, bob: User, dana: User
) -> None:
    judgement = gate.propose(60)
    services.tell_about(gate.escalation(judgement).pk)
    Membership.objects.filter(user=bob).delete()
    services.send_mails()
    assert [sent.to for sent in mail.outbox] == [[dana.email]]
    other = gate.propose(61)
    services.tell_about(gate.escalation(other).pk)
    gate.decide(other, as_dana)
    services.send_mails()
    assert len(mail.outbox) == 1
    assert selectors.count_unread(as_dana) == 1  # the first one still waits


def test_a_mail_server_that_fails_is_tried_again_and_not_forever(
    gate: Gate, dana: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.tell_about(gate.escalation(gate.propose(60)).pk)

    def fail(*_: Any, **__: Any) -> int:
        raise OSError("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", fail)
        assert services.send_mails() == 0
    assert services.send_mails() == 1
    assert mail.outbox[0].to == [dana.email]


def test_a_flood_of_questions_is_not_a_flood_of_mail(gate: Gate, dana: User, as_dana: Principal) -> None:
    for number in range(MOST_MAILS_AN_HOUR + 5):
        services.tell_about(gate.escalation(gate.propose(60, idempotency_key=str(number))).pk)
    services.send_mails()
    assert len(mail.outbox) == MOST_MAILS_AN_HOUR
    assert selectors.count_unread(as_dana) == MOST_MAILS_AN_HOUR + 5


def test_hostile_titles_are_one_plain_line_in_mail(gate: Gate, dana: User) -> None:
    key = gate.escalation(gate.propose(60)).pk
    Escalation.objects.filter(pk=key).update(title="Pay\r\nBcc: all@example.com\x1b[31m \u202etxt <b>now</b>")
    services.tell_about(key)
    services.send_mails()
    (sent,) = mail.outbox
    assert sent.subject == "Waits for you: Pay Bcc: all@example.com [31m txt <b>now</b>"
    assert sent.bcc == []
    assert not {"\x1b", "\u202e"} & set(sent.body)


def test_the_next_tier_and_broken_glass_are_told(
    gate: Gate, as_nadia: Principal, as_dana: Principal, dana: User, bob: User
) -> None:
    desk = services.save_group(actor=as_nadia, name="Desk", member_ids=[bob.pk])
    heads = services.save_group(actor=as_nadia, name="Heads", member_ids=[dana.pk])
    services.save_route(
        actor=as_nadia, route=Route(name="All", group_id=desk.pk, next_group_id=heads.pk, next_seconds=600)
    )
    judgement = gate.propose(60)
    key = gate.escalation(judgement).pk
    services.tell_about(key)
    Escalation.objects.filter(pk=key).update(tier_ends_at=now() - timedelta(seconds=1))
    services.sweep()
    services.tell_about(key)
    told = Notice.objects.values_list("user__name", "kind")
    assert set(told) == {("Bob", "asked"), ("Bob", "next_tier"), ("Dana", "next_tier")}
    smash(gate, judgement, as_nadia)
    services.tell_about(key)
    assert {row[0] for row in told.filter(kind="break_glass")} == {"Bob", "Dana"}


def test_a_link_in_a_mail_names_what_it_was_made_for_and_nothing_else(dana: User) -> None:
    key = uuid.uuid4()
    token = link_to(key, dana.pk).rpartition("/")[2]
    assert selectors.read_link(token) == (key, dana.pk)
    for forged in (token[:-1], token + "x", "a" + token, ""):
        assert selectors.read_link(forged) is None
