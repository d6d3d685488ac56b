"""“What would the gate say?” tells of the rules in force now, also when another process has just put them there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse

from controlplane.common.clock import now
from controlplane.tenancy.models import User
from governance.bundles import active_bundle
from governance.bundles.lifecycle import baseline_source
from governance.bundles.validation import BundleSource, bundle_sha256
from governance.models import PolicyBundle

from .browsing import SignIn, page, send
from .questions import edited
from .remit_page import Page

CALL = '{"invoice": "INV-0113", "amount": "40.00", "reason": "Delivered late"}'


@pytest.fixture
def from_elsewhere(world: Any) -> Callable[[str], None]:
    """A rule beside those of the baseline, as a command in another process leaves it: this one has read the old."""

    def put_in_force(condition: str) -> None:
        old = active_bundle(world.organisation.pk)
        assert old is not None
        rule = f"""
@id("house-rule")
@code("house.rule")
@message("The house rule is against it.")
@remedy("Ask an administrator.")
forbid (principal, action == Action::"tool.call", resource) when {{ {condition} }};
"""
        base = baseline_source()
        source = BundleSource(base.policies + rule, base.schema, base.golden_cases)
        PolicyBundle.objects.create(
            organisation=world.organisation,
            name="House",
            sha256=bundle_sha256(source),
            policies=source.policies,
            schema=source.schema,
            golden_cases=source.golden_cases,
            state="active",
            activated_at=now(),
        )
        assert active_bundle(world.organisation.pk) is old

    return put_in_force


CHANGED = "The rules have changed since this was judged."


def test_an_open_question_says_that_the_rules_changed_and_can_be_approved_where_they_ask_the_same(
    world: Any, bob: User, signed_in: SignIn, from_elsewhere: Callable[[str], None]
) -> None:
    escalation, browser = world.ask_credit(), signed_in(bob)
    address = reverse("approval", args=[escalation.pk])
    assert CHANGED not in page(browser, address)
    from_elsewhere('resource == Tool::"books__outbox"')
    shown = page(browser, address)
    assert f"{CHANGED} An approval counts only where they still ask people." in shown
    send(browser, "approval-decide", escalation.pk, answer="approve", version="1")
    escalation.refresh_from_db()
    assert escalation.state == "approved"
    assert CHANGED not in page(browser, address)


def test_an_approval_that_a_new_rule_refuses_is_told_by_that_rule_wherever_it_is_listed(
    world: Any, alice: User, bob: User, signed_in: SignIn, from_elsewhere: Callable[[str], None]
) -> None:
    escalation, browser = world.ask_credit(), signed_in(bob)
    from_elsewhere('resource == Tool::"books__apply_credit"')
    said = "It is refused by now: The house rule is against it."
    send(browser, "approval-decide", escalation.pk, answer="approve", version="1")
    assert f"But nothing was done. {said}" in page(browser, reverse("approvals"))
    escalation.refresh_from_db()
    assert (escalation.state, escalation.action.state) == ("superseded", "denied")
    assert said in page(browser, f"{reverse('approvals')}?tab=decided")
    assert said in page(signed_in(alice), reverse("mission", args=[world.mission.pk]))


def test_samples_of_a_new_mission_and_calls_of_a_reworded_one_are_tried_by_them(
    world: Any, alice: User, signed_in: SignIn, from_elsewhere: Callable[[str], None]
) -> None:
    browser, address = signed_in(alice), reverse("mission-new")
    typed = {"template": "receivables", "try": "1", "title": "Chase", "importance": "normal"}
    assert "The house rule" not in browser.post(address, typed).content.decode()
    from_elsewhere('context.importance == "low"')
    assert "The house rule" not in browser.post(address, typed).content.decode()
    assert "The house rule is against it." in browser.post(address, {**typed, "importance": "low"}).content.decode()
    opened = Page(browser, world.mission).open()
    opened.press("try", try__tool="books__apply_credit", try__arguments=CALL)
    assert "It would run at once" in opened.words
    opened.press("try", importance="low")
    assert "The house rule is against it." in opened.words


def test_an_edited_call_is_shown_the_verdict_of_them(
    world: Any, bob: User, signed_in: SignIn, from_elsewhere: Callable[[str], None]
) -> None:
    asked, browser = world.ask_credit("240.00"), signed_in(bob)
    page(browser, reverse("approval-edit", args=[asked.pk]))
    from_elsewhere('resource == Tool::"books__apply_credit"')
    html = send(browser, "approval-edit", asked.pk, status=200, **edited("150.00", "preview"))
    assert "The house rule is against it." in html
    assert "Approve as edited" not in html
