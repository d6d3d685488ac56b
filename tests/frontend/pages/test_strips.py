"""The strips above every page: there and away at once for what people do, and what may be put away by whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.choices import StopScope
from controlplane.audit.sealing import seal_all
from controlplane.clusters.models import Cluster
from controlplane.common.clock import now
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal, Role
from frontend import strips
from governance import services
from governance.choices import ReviewVerdict

from .browsing import SignIn, page

JUDGE = "No judge model is connected."


@pytest.fixture
def watching(world: Any, alice: User, bob: User, signed_in: SignIn) -> Callable[[str], Iterator[bool]]:
    """Whether the pages of the two, who have just looked at one, say so now."""
    browsers = [signed_in(person) for person in (alice, bob)]
    for browser in browsers:
        browser.get(reverse("home"))

    def seen(words: str) -> Iterator[bool]:
        return (words in browser.get(reverse("home")).content.decode() for browser in browsers)

    return seen


def test_a_broken_glass_is_on_everybodys_next_page_and_gone_from_it_once_reviewed(
    world: Any, watching: Any, as_nadia: Principal, as_bob: Principal
) -> None:
    reason = "The payment run closes in five minutes."
    broken = services.break_glass(actor=as_nadia, escalation_id=world.ask_credit().pk, version=1, reason=reason)
    assert all(watching("Nadia broke the glass."))
    services.review_break_glass(
        reviewer=as_bob, break_glass_id=broken.pk, verdict=ReviewVerdict.JUSTIFIED, note="It was."
    )
    assert not any(watching("broke the glass"))


def test_who_sees_the_action_and_no_approvals_is_warned_of_broken_glass_and_led_to_the_action(
    world: Any, as_nadia: Principal, finn: User, charlie: User, signed_in: SignIn
) -> None:
    reason = "The payment run closes in five minutes."
    broken = services.break_glass(actor=as_nadia, escalation_id=world.ask_credit().pk, version=1, reason=reason)
    strip = page(signed_in(finn), reverse("budgets")).split("Nadia broke the glass.")[1].split("</div>")[0]
    assert reverse("action", args=[broken.action_id]) in strip
    assert reverse("broken-glass") not in strip
    assert signed_in(finn).get(reverse("action", args=[broken.action_id])).status_code == 200
    assert "broke the glass" not in page(signed_in(charlie), reverse("budgets"))


def test_a_stop_is_on_everybodys_next_page(world: Any, watching: Any) -> None:
    agents.stop(actor=world.owner, scope=StopScope.TEAM, scope_id=world.team.pk, reason="Look first")
    assert all(watching("The team Receivables is stopped."))


def put_away(browser: Client, strip: str = "judge-off", **more: Any) -> Any:
    return browser.post(reverse("strip-put-away"), {"strip": strip, "next": reverse("missions")}, **more)


def test_that_no_judge_is_connected_may_be_put_away_until_the_next_sign_in_and_only_for_oneself(
    world: Any, nadia: User, make_person: Any, signed_in: SignIn
) -> None:
    other = make_person("Olga", world.organisation, Role.ADMIN)
    browser = signed_in(nadia)
    assert JUDGE in browser.get(reverse("home")).content.decode()
    response = put_away(browser)
    assert (response.status_code, response["Location"]) == (302, reverse("missions"))
    for name in ("home", "missions", "policies"):
        assert JUDGE not in browser.get(reverse(name)).content.decode()
    for elsewhere in (signed_in(other), signed_in(nadia)):
        assert JUDGE in elsewhere.get(reverse("home")).content.decode()


def test_with_script_only_the_strip_goes(world: Any, nadia: User, signed_in: SignIn) -> None:
    headers = {"HX-Request": "true", "HX-Target": "strip-judge-off"}
    response = put_away(signed_in(nadia), headers=headers)
    assert (response.status_code, response.content) == (200, b"")


def test_what_is_broken_can_not_be_put_away(
    world: Any, nadia: User, bob: User, as_nadia: Principal, signed_in: SignIn
) -> None:
    reason = "The payment run closes in five minutes."
    services.break_glass(actor=as_nadia, escalation_id=world.ask_credit().pk, version=1, reason=reason)
    browser = signed_in(bob)
    for name in ("glass-broken", "", "judge-resting"):
        assert put_away(browser, name).status_code == 404
    html = browser.get(reverse("home")).content.decode()
    assert "broke the glass" in html
    assert "Put away" not in html


def test_putting_away_leads_to_no_other_site_and_is_for_people_who_are_signed_in(
    world: Any, nadia: User, signed_in: SignIn
) -> None:
    body = {"strip": "judge-off", "next": "https://elsewhere.example/"}
    assert signed_in(nadia).post(reverse("strip-put-away"), body)["Location"] == reverse("home")
    assert signed_in(None).post(reverse("strip-put-away"), body)["Location"].startswith("/accounts/login/")
    assert signed_in(nadia).get(reverse("strip-put-away")).status_code == 405


def test_a_node_that_nobody_has_asked_since_the_start_is_not_called_silent(
    world: Any, nadia: User, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster.objects.first() or Cluster.objects.create(name="local", driver="local")
    monkeypatch.setattr(strips, "_STARTED", now() - timedelta(minutes=1))
    for error in ("", "The local node cannot be reached: Connection refused."):
        Cluster.objects.filter(pk=cluster.pk).update(seen_at=now() - timedelta(hours=1), error=error)
        cache.clear()
        assert ("does not answer." in page(signed_in(nadia), reverse("home"))) is bool(error)


def test_a_silent_node_and_a_late_sealer_are_said_on_every_page(
    world: Any, nadia: User, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster.objects.first() or Cluster.objects.create(name="local", driver="local")
    Cluster.objects.filter(pk=cluster.pk).update(seen_at=now() - timedelta(seconds=20))
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE audit_entry DISABLE TRIGGER USER")
        cursor.execute("UPDATE audit_entry SET at = at - interval '30 seconds'")
        cursor.execute("ALTER TABLE audit_entry ENABLE TRIGGER USER")
    cache.clear()
    monkeypatch.setattr(strips, "_STARTED", now())
    assert "does not answer." not in page(signed_in(nadia), reverse("home"))  # Remit, and the node, just started
    cache.clear()
    monkeypatch.setattr(strips, "_STARTED", now() - timedelta(minutes=1))
    html = page(signed_in(nadia), reverse("home"))
    assert "does not answer." in html
    assert "The audit trail is 3" in html
    assert "No judge model is connected." in html
    seal_all()
    Cluster.objects.filter(pk=cluster.pk).update(seen_at=now())
    cache.clear()
    html = page(signed_in(nadia), reverse("home"))
    assert "does not answer." not in html
    assert "The audit trail is" not in html
