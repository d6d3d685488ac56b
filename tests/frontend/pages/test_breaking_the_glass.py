"""Breaking the glass: who may, who reviews it, and what everybody is shown until then."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from agents.models import Mission
from controlplane.tenancy.models import Membership, User
from governance import services as governance
from governance.approval_models import BreakGlass
from governance.choices import ActionState
from governance.models import Action

from .browsing import SignIn, page, send
from .questions import facts


def test_broken_glass_is_seen_by_all_until_another_person_reviewed_it(
    world: Any, nadia: User, bob: User, signed_in: SignIn
) -> None:
    escalation = world.ask_credit()
    admin = signed_in(nadia)
    assert "Break-glass" in page(admin, reverse("approval", args=[escalation.pk]))
    before = facts()
    send(admin, "approval-break-glass", escalation.pk, status=422, version="1", reason="urgent")
    assert facts() == before
    send(admin, "approval-break-glass", escalation.pk, version="1", reason="The payment run closes in five minutes.")
    broken = BreakGlass.objects.get()
    assert Action.objects.get(pk=escalation.action_id).state == ActionState.PERMITTED
    approver = signed_in(bob)
    strip = page(approver, reverse("missions")).split("Nadia broke the glass.")[1].split("</div>")[0]
    assert "It waits for your review." in strip
    assert f'<a href="{reverse("broken-glass")}#glass-{broken.pk}">Review it</a>' in strip
    send(admin, "broken-glass-review", broken.pk, status=403, verdict="justified", note="Fine.")
    send(approver, "broken-glass-review", broken.pk, status=422, verdict="maybe", note="Hm.")
    send(approver, "broken-glass-review", broken.pk, verdict="justified", note="It was an emergency.")
    broken.refresh_from_db()
    assert (broken.reviewed_by, broken.verdict) == (bob, "justified")
    assert "It was an emergency." in page(approver, reverse("broken-glass"))


def test_until_when_it_is_usable_is_said_only_while_it_is(
    world: Any, nadia: User, bob: User, signed_in: SignIn
) -> None:
    escalation, admin = world.ask_credit(), signed_in(nadia)
    send(admin, "approval-break-glass", escalation.pk, version="1", reason="The payment run closes now.")
    assert "Usable until" in page(admin, reverse("broken-glass"))
    used = {"holder": world.as_run, "action_id": escalation.action_id, "audience": "api"}
    assert governance.redeem(**used, permit_token=None).state == ActionState.EXECUTING
    assert "Usable until" not in page(admin, reverse("broken-glass"))
    governance.record_outcome(**used, outcome="success", summary="done")
    html = page(admin, reverse("broken-glass"))
    assert "What came of it" in html
    assert "Usable until" not in html


def test_who_answers_for_a_mission_is_not_asked_to_review_its_broken_glass(
    world: Any, nadia: User, bob: User, signed_in: SignIn
) -> None:
    Mission.objects.update(owner=bob)
    escalation = world.ask_credit()
    send(signed_in(nadia), "approval-break-glass", escalation.pk, version="1", reason="The payment run closes now.")
    approver = signed_in(bob)
    shown = page(approver, reverse("broken-glass"))
    assert "so somebody else reviews it. Nobody may review it as things are" in shown
    assert "Record the review" not in shown
    assert "Nobody may review it as things are." in page(approver, reverse("home"))
    send(approver, "broken-glass-review", BreakGlass.objects.get().pk, status=403, verdict="justified", note="Fine.")
    assert BreakGlass.objects.get().reviewed_at is None


def test_whoever_may_not_review_is_told_who_may_and_offered_nothing_that_only_refuses(
    world: Any, alice: User, nadia: User, bob: User, dana: User, signed_in: SignIn
) -> None:
    admin, owner = signed_in(nadia), signed_in(alice)
    escalation = world.ask_credit()
    send(admin, "approval-break-glass", escalation.pk, version="1", reason="The payment run closes now.")
    for browser in (admin, owner):
        html = page(browser, reverse("broken-glass"))
        strip = html.split("Nadia broke the glass.")[1].split("</div>")[0]
        assert "It waits for the review of Bob or Dana." in strip
        assert ">Look at it</a>" in strip
        assert "It waits for the review of Bob or Dana." in html.split("<main")[1]
        assert "Record the review" not in html
    approver = signed_in(bob)
    body = {"verdict": "not_justified", "note": "Dana was there."}
    send(approver, "broken-glass-review", BreakGlass.objects.get().pk, **body)
    assert "It had not been used, and is withdrawn." in page(approver, reverse("broken-glass"))
    assert Action.objects.get(pk=escalation.action_id).state == ActionState.WITHDRAWN


def test_the_question_before_breaking_says_that_nobody_else_could_review_it(
    world: Any, nadia: User, bob: User, dana: User, signed_in: SignIn
) -> None:
    path = reverse("approval", args=[world.ask_credit().pk])
    browser = signed_in(nadia)
    assert 'id="glass-dialog"' in page(browser, path)
    assert "Nobody else could review it." not in page(browser, path)
    Mission.objects.update(owner=bob)
    Membership.objects.filter(user=dana).delete()
    path = reverse("approval", args=[world.ask_credit("250.00").pk])
    assert "Nobody else could review it." in page(browser, path).split('id="glass-dialog"')[1]


def test_approvers_do_not_break_the_glass(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit()
    browser = signed_in(bob)
    assert "glass-dialog" not in page(browser, reverse("approval", args=[escalation.pk]))
    before = facts()
    send(browser, "approval-break-glass", escalation.pk, status=403, version="1", reason="A very good reason, this.")
    assert facts() == before
