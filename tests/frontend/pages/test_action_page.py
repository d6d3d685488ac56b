"""The page of one action: the ladder of its stages, and its trail."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from controlplane.audit.models import Entry
from controlplane.tenancy.models import User
from governance.models import Escalation

from .browsing import SignIn, page


def test_an_action_shows_its_ladder_and_its_trail(busy: Any, dana: User, signed_in: SignIn) -> None:
    escalation = Escalation.objects.order_by("id").first()
    assert escalation is not None
    html = page(signed_in(dana), reverse("action", args=[escalation.action_id]))
    for words in ("Intake", "Guards", "Policy", "Sequence", "Judge", "Budget", "Judged again after approval"):
        assert words in html, words
    assert "must ask a person for books__apply_credit" in html
    assert (
        reverse("audit-entry", args=[Entry.objects.filter(subject_id=escalation.action_id).earliest("id").pk]) in html
    )


def test_a_builder_reads_the_trail_of_an_action_and_opens_no_entry(busy: Any, alice: User, signed_in: SignIn) -> None:
    escalation = Escalation.objects.order_by("id").first()
    assert escalation is not None
    browser = signed_in(alice)
    html = page(browser, reverse("action", args=[escalation.action_id]))
    assert "must ask a person for books__apply_credit" in html
    entry = reverse("audit-entry", args=[Entry.objects.filter(subject_id=escalation.action_id).earliest("id").pk])
    assert entry not in html
    assert browser.get(entry).status_code == 404
