"""An approver's whole day by keyboard, and the approval pages in Chromium: they fit, and axe finds nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from controlplane.common.clock import now
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services
from governance.approval_models import BreakGlass
from governance.choices import EscalationState
from governance.models import Action, Escalation

from .test_in_the_browser import Show, problems_of, show

__all__ = ["show"]
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def day(world: Any, as_nadia: Principal, nadia: User, bob: User, dana: User) -> Any:
    """Groups, a route, a delegation, identical questions, one claimed and spoken about, one passed over."""
    desk = services.save_group(actor=as_nadia, name="Finance desk", member_ids=[bob.pk, dana.pk])
    heads = services.save_group(actor=as_nadia, name="Heads", member_ids=[nadia.pk])
    services.save_route(
        actor=as_nadia,
        route=services.Route(
            name="Large credits",
            kind="tool.call",
            group_id=desk.pk,
            needed=2,
            next_group_id=heads.pk,
            next_seconds=3600,
        ),
    )
    services.delegate(
        actor=as_nadia,
        from_user_id=dana.pk,
        to_user_id=nadia.pk,
        starts_at=now(),
        ends_at=now() + timedelta(days=3),
        reason="On leave",
    )
    broken = world.ask_credit("480.00", "Customer threatens to leave")
    services.break_glass(
        actor=as_nadia, escalation_id=broken.pk, version=1, reason="The payment run closes in five minutes."
    )
    asked = world.ask_credit("240.00")
    for number in range(2):
        world.ask_credit("150.00", "Delivered 3 days late", key=f"credit-{number}")
    services.ask_agent(actor=_principal(bob), escalation_id=asked.pk, text="Which delivery was late, and by how much?")
    services.answer_question(
        principal=world.as_run, action_id=asked.action_id, text="Delivery D-77 arrived nine days late, see INV-0131."
    )
    services.claim(actor=_principal(dana), escalation_id=asked.pk)
    for row in Escalation.objects.filter(state=EscalationState.OPEN):
        services.tell_about(row.pk)
    world.asked = asked
    return world


def _principal(user: User) -> Principal:
    from controlplane.tenancy.services import principal_of_user

    principal = principal_of_user(user=user)
    assert principal is not None
    return principal


@pytest.mark.parametrize(("theme", "width"), [("light", 1600), ("dark", 360), ("dark", 1600), ("light", 360)])
def test_the_approval_pages_fit_and_axe_finds_nothing(
    day: Any, bob: User, nadia: User, show: Show, width: int, theme: str
) -> None:
    paths = {
        "approvals": reverse("approvals"),
        "approval": reverse("approval", args=[day.asked.pk]),
        "approval-edit": reverse("approval-edit", args=[day.asked.pk]),
        "broken-glass": reverse("broken-glass"),
        "notices": reverse("notices"),
        "approval-health": reverse("approval-health"),
    }
    page, wrong = show(bob, reverse("home"), width=width, theme=theme), []
    for name, path in paths.items():
        page.goto(path, wait_until="load")
        wrong += problems_of(page, name, theme)
    admin = show(nadia, reverse("settings-approvals"), width=width, theme=theme)
    for fold in admin.locator("details.fold > summary").all():
        fold.click()
    wrong += problems_of(admin, "settings-approvals", theme)
    assert not wrong, "\n".join(wrong)


def test_an_approvers_day_by_keyboard_alone(day: Any, bob: User, nadia: User, show: Show) -> None:
    page = show(bob, reverse("approvals"))
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url("**/approvals/*")
    page.keyboard.press("c")  # take over, or claim
    page.wait_for_selector("text=You are at work on this")
    assert page.evaluate("document.activeElement.id") == "approval-card"
    page.keyboard.press("e")
    page.wait_for_url("**/edit")
    assert page.evaluate("document.activeElement.name") == "arg0"
    page.locator("input[name=arg0]").fill("120.00")
    page.keyboard.press("Tab")
    page.locator("button[value=preview]").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#preview")
    assert page.evaluate("document.activeElement.id") == "preview"
    assert problems_of(page, "approval-edit-preview", "light") == []
    page.locator("button[value=send]").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Sent as edited with your approval")
    made = Action.objects.get(replaces__isnull=False)
    assert made.arguments["amount"] == "120.00"
    second = show(nadia, reverse("approval", args=[made.escalations.get().pk]))
    second.keyboard.press("a")
    second.wait_for_url("**/approvals")
    made.refresh_from_db()
    assert made.state == "permitted"
    assert page.complaints == []


def test_the_question_that_is_shown_stays_marked_while_the_cursor_is_on_another(
    day: Any, bob: User, show: Show
) -> None:
    page = show(bob, reverse("approvals"))
    shown = page.locator("[data-row].shown")
    said = "row => getComputedStyle(row.querySelector('.due'), '::before').content"
    assert shown.evaluate(said) == "none"
    page.keyboard.press("j")
    page.keyboard.press("j")
    cursor = page.locator('[data-row][aria-current="true"]')
    assert cursor.count() == shown.count() == 1
    assert cursor.get_attribute("id") != shown.get_attribute("id")
    assert cursor.evaluate(said) == '"Enter opens it"'
    assert problems_of(page, "approvals-cursor", "light") == []
    chosen = cursor.get_attribute("id")
    page.keyboard.press("Enter")
    page.wait_for_url("**/approvals/*")
    assert shown.get_attribute("id") == chosen


def test_the_bell_opens_what_waits(day: Any, bob: User, show: Show) -> None:
    page = show(bob, reverse("home"))
    page.locator(".bell > summary").click()
    page.wait_for_selector(".bell .sheet form")
    assert problems_of(page, "bell", "light") == []
    page.locator(".bell .sheet form button").first.click()
    page.wait_for_url("**/approvals/*")
    assert page.complaints == []


def test_the_key_of_break_glass_asks_for_a_reason_and_never_acts_without_one(
    day: Any, bob: User, nadia: User, show: Show
) -> None:
    page = show(nadia, reverse("approval", args=[day.asked.pk]))
    before = BreakGlass.objects.count()
    page.keyboard.press("?")
    assert page.locator("#keyboard").get_by_text("Break-glass: asks for the reason first").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    dialog = page.locator("#glass-dialog")
    dialog.get_by_label("What is the emergency").wait_for()
    assert problems_of(page, "break-glass", "light") == []
    page.keyboard.type("bbb")  # letters in the field, no key any more
    dialog.get_by_role("button", name="Break the glass").focus()
    page.keyboard.press("Enter")  # the field refuses what is no reason
    assert dialog.is_visible()
    page.keyboard.press("Escape")
    assert BreakGlass.objects.count() == before
    approver = show(bob, reverse("approval", args=[day.asked.pk]))
    approver.keyboard.press("b")
    assert approver.locator("dialog[open]").count() == 0
    approver.keyboard.press("?")
    assert not approver.locator("#keyboard").get_by_text("Break-glass").is_visible()
    assert page.complaints == approver.complaints == []


def test_the_key_of_break_glass_on_another_row_opens_that_question_first(day: Any, nadia: User, show: Show) -> None:
    page = show(nadia, reverse("approvals"))
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("b")
    page.wait_for_url("**/approvals/*")
    assert page.locator("dialog[open]").count() == 0
    page.keyboard.press("b")
    page.locator("#glass-dialog").get_by_label("What is the emergency").wait_for()


def test_the_bell_counts_what_comes_and_goes_without_a_reload(world: Any, bob: User, show: Show) -> None:
    """What the socket would hint at; an open sheet is left alone until it is closed."""
    page = show(bob, reverse("home"))
    bell = page.locator("#bell > details > summary")
    assert bell.get_attribute("aria-label") == "Notices"
    question = world.ask_credit()
    services.tell_about(question.pk)
    page.evaluate("htmx.trigger('#bell', 'live')")
    page.get_by_label("Notices: 1 unread").wait_for()
    bell.click()
    page.wait_for_selector("#bell .sheet form")
    services.withdraw(actor=world.as_run, action_id=question.action_id)
    page.evaluate("htmx.trigger('#bell', 'live')")
    page.wait_for_timeout(500)
    assert page.locator("#bell .sheet form").is_visible()
    page.keyboard.press("Escape")
    page.locator("#bell > details > summary[aria-label=Notices]").wait_for()
    assert page.complaints == []


def test_a_key_pressed_twice_answers_once(show: Show, world: Any, bob: User) -> None:
    world.ask_credit()
    page = show(bob, reverse("approvals"))
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.evaluate(
        "() => { const button = document.querySelector('.decide [data-key=a]');"
        " button.click(); setTimeout(() => button.click(), 20); }"
    )
    page.get_by_text("Approved once").wait_for()
    assert len(sent) == 1
    assert page.url.endswith(reverse("approvals"))
    assert page.get_by_text("counts already").count() == 0
    assert Escalation.objects.get().state == EscalationState.APPROVED


def test_on_a_phone_each_strip_is_a_line_or_two_and_no_tab_is_cut_off(day: Any, nadia: User, show: Show) -> None:
    page = show(nadia, reverse("approvals"), width=360)
    strip = page.locator(".strip", has_text="broke the glass")
    assert strip.bounding_box()["height"] <= 60
    assert "was permitted without the people it asks" in strip.text_content()
    for path in (reverse("approvals"), reverse("settings-approvals")):
        page.goto(path, wait_until="load")
        assert page.evaluate("[...document.querySelectorAll('.tabs')].every(nav => nav.scrollWidth <= nav.clientWidth)")
    page.goto(reverse("missions"), wait_until="load")
    whole = "[...document.querySelectorAll('.status')].every(one => one.getBoundingClientRect().right <= innerWidth)"
    assert page.evaluate(whole)
    assert problems_of(page, "missions-phone", "light") == []
    page.goto(reverse("policies"), wait_until="load")
    page.get_by_role("navigation", name="On this page").get_by_role("link", name="The text").click()
    assert page.locator("#text").evaluate("card => card.getBoundingClientRect().top < innerHeight")
    assert problems_of(page, "policies-phone", "light") == []
