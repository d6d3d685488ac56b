"""How approvers hear of questions: the bell, the notices behind it, and links in mails."""

from __future__ import annotations

from typing import Any

from django.test import Client
from django.urls import reverse

from controlplane.tenancy.models import Membership, Organisation, User
from controlplane.tenancy.types import Principal, Role
from governance import selectors, services
from governance.escalations.notifying import link_to

from .browsing import SignIn, page, send
from .questions import facts


def test_the_bell_counts_and_opening_by_post_marks_as_read(
    world: Any, bob: User, as_bob: Principal, signed_in: SignIn
) -> None:
    escalation = world.ask_credit()
    services.tell_about(escalation.pk)
    browser = signed_in(bob)
    assert "Notices: 1 unread" in page(browser, reverse("home"))
    assert "Apply credit" in page(browser, reverse("notices-bell"))
    assert "Apply credit" in page(browser, reverse("notices"))
    assert selectors.count_unread(as_bob) == 1
    (notice,) = selectors.notices_of(as_bob)
    send(browser, "notices-read", notice=str(notice.pk), question=str(escalation.pk))
    assert selectors.count_unread(as_bob) == 0
    assert "unread" not in page(browser, reverse("home"))


def test_a_notice_whose_question_was_settled_by_others_waits_for_nobody(
    world: Any, as_dana: Any, bob: User, dana: User, signed_in: SignIn
) -> None:
    question = world.ask_credit()
    services.tell_about(question.pk)
    for path in ("notices", "notices-bell"):
        assert "Waits for you" in page(signed_in(bob), reverse(path))
    services.decide(approver=as_dana, escalation_id=question.pk, version=1, approve=True, reason="")
    for path in ("notices", "notices-bell"):
        html = page(signed_in(bob), reverse(path))
        assert "Approved" in html
        assert "Waits for you" not in html
        assert "unread" not in html


def test_the_part_that_is_the_bell_counts_for_its_viewer_alone(
    world: Any, alice: User, bob: User, dana: User, signed_in: SignIn
) -> None:
    services.tell_about(world.ask_credit().pk)
    for person in (bob, dana):
        html = page(signed_in(person), reverse("notices-count"))
        assert "Notices: 1 unread" in html
        assert f"person:{person.pk}" in html
    send(signed_in(bob), "notices-read")
    assert "unread" not in page(signed_in(bob), reverse("notices-count"))
    assert "Notices: 1 unread" in page(signed_in(dana), reverse("notices-count"))
    assert "unread" not in page(signed_in(alice), reverse("notices-count"))


def test_a_link_from_a_mail_opens_the_page_and_decides_nothing_whoever_fetches_it(
    world: Any, bob: User, dana: User, signed_in: SignIn, client: Client
) -> None:
    escalation = world.ask_credit()
    path = "/" + link_to(escalation.pk, bob.pk).partition("://")[2].partition("/")[2]
    before = facts()
    for browser in (client, signed_in(bob), signed_in(dana)):
        for method in (browser.get, browser.head):
            assert method(path).status_code == 302
        assert browser.post(path).status_code in (302, 405)
    assert signed_in(bob).get(path).headers["Location"] == reverse("approval", args=[escalation.pk])
    assert "sign-in" in client.get(path).headers["Location"] or "login" in client.get(path).headers["Location"]
    page(signed_in(bob), path + "x", status=404)
    assert facts() == before


def test_a_link_from_a_mail_opens_in_the_organisation_that_asks(
    world: Any, bob: User, dana: User, signed_in: SignIn, elsewhere: Organisation
) -> None:
    escalation = world.ask_credit()
    for user in (bob, dana):  # by name it comes first, and is where they begin
        Membership.objects.create(organisation=elsewhere, user=user, role=Role.APPROVER.value)
    path = "/" + link_to(escalation.pk, bob.pk).partition("://")[2].partition("/")[2]
    browser = signed_in(bob)
    page(browser, reverse("approval", args=[escalation.pk]), status=404)
    page(browser, browser.get(path).headers["Location"])
    somebody_else = signed_in(dana)
    page(somebody_else, somebody_else.get(path).headers["Location"], status=404)  # nobody's link moves another
    Membership.objects.filter(organisation=world.organisation, user=bob).delete()
    left = signed_in(bob)
    page(left, left.get(path).headers["Location"], status=404)
