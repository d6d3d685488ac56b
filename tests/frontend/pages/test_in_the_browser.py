"""Real pages from a live server in Chromium: nothing complains, everything fits, axe finds nothing, keys work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.models import Mission
from controlplane.audit import jobs, verification
from controlplane.audit.models import Job
from controlplane.audit.sealing import seal_all
from controlplane.tenancy.models import User
from governance.choices import EscalationState
from governance.models import Escalation, Vote

pytestmark = [pytest.mark.browser, pytest.mark.slow]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
Show = Callable[..., Any]


@pytest.fixture
def show(chromium: Any, live_server: Any, signed_in: Callable[..., Client]) -> Iterator[Show]:
    """`show(bob, "/approvals", width=360)`: an open page; what the console complains of is in `complaints`."""
    contexts: list[Any] = []

    def open_page(user: User | None, path: str, *, width: int = 1600, theme: str = "light", script: bool = True) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, java_script_enabled=script, base_url=live_server.url
        )
        contexts.append(context)
        cookies = {"remit_theme": theme}
        if user is not None:
            name = settings.SESSION_COOKIE_NAME
            cookies[name] = signed_in(user).cookies[name].value
        context.add_cookies([{"name": key, "value": text, "url": live_server.url} for key, text in cookies.items()])
        page = context.new_page()
        page.route_web_socket("**/live", lambda socket: None)  # accepted and silent: this server speaks no websocket
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(path, wait_until="load")
        return page

    yield open_page
    for context in contexts:
        context.close()


def problems_of(page: Any, name: str, theme: str) -> list[str]:
    """What axe, the console and the page's own width say of the page as it stands."""
    from axe_playwright_python.sync_playwright import Axe

    width = page.viewport_size["width"]
    if folder := os.environ.get("REMIT_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}-{theme}-{width}.png"), full_page=True)
    # As tall as the page: what a bar that stays in place happens to cover is not too small.
    page.wait_for_load_state()
    page.set_viewport_size({"width": width, "height": page.evaluate("document.documentElement.scrollHeight")})
    found = Axe().run(page, options={"runOnly": RULES})
    wrong = [f"{name}: {found.generate_report()}"] if found.violations_count else []
    wrong += [f"{name}: {complaint}" for complaint in page.complaints if "status of 4" not in complaint]
    page.complaints.clear()
    if page.evaluate("document.documentElement.scrollWidth") > width:
        wrong.append(f"{name} is wider than {width}")
    page.set_viewport_size({"width": width, "height": 900})
    return wrong


@pytest.mark.parametrize(("theme", "width"), [("light", 1600), ("dark", 360)])
def test_changing_a_remit_by_keyboard_and_what_the_page_says_on_the_way(
    world: Any, show: Show, alice: User, as_nadia: Any, make_remit: Callable[..., Any], theme: str, width: int
) -> None:
    """Preview with Enter, a second person's change in between, sending, and the history."""
    path = reverse("mission-change", args=[world.mission.pk])
    page = show(alice, path, width=width, theme=theme)
    page.fill("#id_goal", "Chase the autumn invoices only.")
    page.fill("#id_budget", "3.50")
    page.click("#grant-5 > summary")
    page.check("#grant-5 [type=checkbox]")
    page.click("#grant-6 > summary")
    page.click("#grant-6 >> text=Add a limit")
    assert page.locator("#grant-6").evaluate("grant => grant.open")
    page.focus("#id_budget")
    page.keyboard.press("Enter")
    page.wait_for_selector("#preview >> text=It waits for a second person")
    wrong = problems_of(page, "mission-change-preview", theme)
    agents.change_mission(
        actor=as_nadia, mission_id=world.mission.pk, remit=make_remit(budget="1.20"), note="Month end",
        expected_version=1,
    )  # fmt: skip
    page.click("text=Send for sign-off")
    page.wait_for_selector("#stale >> text=Nadia made version 2")
    wrong += problems_of(page, "mission-change-stale", theme)
    page.fill("#id_budget", "nothing")
    page.click("text=Preview the change")
    page.wait_for_selector("text=Not previewed yet")
    wrong += problems_of(page, "mission-change-refused", theme)
    page.fill("#id_budget", "3.50")
    page.click("text=Preview the change")
    page.click("text=Send for sign-off")
    page.wait_for_url(f"**{reverse('mission-tab', args=[world.mission.pk, 'remit'])}")
    wrong += problems_of(page, "mission-remit-history", theme)
    assert world.mission.versions.get(number=3).state == "awaiting_sign_off"
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("theme", "width"), [("light", 1600), ("dark", 360)])
def test_a_credential_is_shown_once_and_revoked_in_a_dialog(
    busy: Any, show: Show, alice: User, theme: str, width: int
) -> None:
    page = show(alice, reverse("agent", args=[busy.agent.pk]), width=width, theme=theme)
    page.click("text=Issue a credential")
    page.fill("#id_name", "Laptop in the mail room")
    page.keyboard.press("Enter")
    page.wait_for_selector("#agent-secret")
    wrong = problems_of(page, "agent-credential", theme)
    assert page.locator("#agent-secret .secret code").inner_text().startswith("rmt_agt_")
    page.evaluate("htmx.trigger('#agent-body', 'live')")
    page.wait_for_load_state("networkidle")
    assert page.locator("#agent-secret").count() == 1
    page.click("[data-opens^=revoke-]")
    page.wait_for_selector("dialog:modal")
    wrong += problems_of(page, "agent-credential-revoke", theme)
    page.click("dialog:modal >> text=Revoke it")
    page.wait_for_selector("#agent-credentials >> text=Revoked")
    assert page.locator("#agent-secret").count() == 0
    assert not wrong, "\n".join(wrong)


def test_an_inbox_is_worked_through_with_keys_alone(world: Any, show: Show, bob: User) -> None:
    """j moves, a on another row opens it, a on the open one approves, d asks for the reason first."""
    first, second = world.ask_credit("150.00"), world.ask_credit("160.00")
    page = show(bob, reverse("approvals"))
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("a")
    page.wait_for_url(f"**{reverse('approval', args=[second.pk])}")
    assert Vote.objects.count() == 0
    page.keyboard.press("a")
    page.wait_for_url(f"**{reverse('approvals')}")
    assert Vote.objects.get().escalation_id == second.pk
    page.keyboard.press("d")
    page.keyboard.type("No ticket, no agreement")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Nothing waits for you")
    assert Escalation.objects.get(pk=first.pk).state == EscalationState.DENIED
    assert page.complaints == []


def test_without_script_everything_is_a_form(world: Any, show: Show, nadia: User) -> None:
    """Deny with a reason, pause and stop a mission, verify the trail: plain pages, plain posts."""
    escalation = world.ask_credit()
    page = show(nadia, reverse("approval", args=[escalation.pk]), script=False)
    page.fill("#deny-reason", "No ticket")
    page.click("dialog button.danger")
    assert Escalation.objects.get(pk=escalation.pk).state == EscalationState.DENIED
    page.goto(reverse("mission", args=[world.mission.pk]))
    page.click("text=Pause")
    assert "Paused." in page.content()
    page.click("#mission-stop a")
    page.fill("#stop-reason", "No ticket")
    page.click("text=Stop it now")
    assert "Proofs" in page.content()  # no node answers here: its sandbox is still said to be alive
    assert Mission.objects.get(pk=world.mission.pk).state == "stopped"
    page.goto(reverse("audit"))
    page.click("text=Verify the chain")
    assert page.locator("#verification").inner_text().startswith("Verification")


def test_a_part_refreshes_when_something_changed_elsewhere(world: Any, show: Show, bob: User) -> None:
    """What the socket would hint at: the card shows who was faster, without a reload."""
    escalation = world.ask_credit()
    page = show(bob, reverse("approval", args=[escalation.pk]))
    Escalation.objects.filter(pk=escalation.pk).update(state=EscalationState.WITHDRAWN, reason="The run ended")
    page.evaluate("htmx.trigger('#approval-card', 'live')")
    page.wait_for_selector("#approval-card >> text=The run ended")
    assert page.locator("[name=answer]").count() == 0
    assert page.complaints == []


def test_the_palette_finds_and_opens_a_mission(world: Any, show: Show, bob: User) -> None:
    page = show(bob, reverse("budgets"))
    page.keyboard.press("Control+k")
    page.keyboard.type("chase")
    page.wait_for_selector("#palette-results >> text=Chase overdue invoices")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{reverse('mission', args=[world.mission.pk])}")


def test_enter_pressed_before_anything_is_found_opens_the_first_that_is(world: Any, show: Show, bob: User) -> None:
    page = show(bob, reverse("budgets"))
    page.keyboard.press("Control+k")
    page.keyboard.type("chase")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{reverse('mission', args=[world.mission.pk])}")


def test_saving_a_view_begins_with_its_name(world: Any, show: Show, bob: User) -> None:
    page = show(bob, reverse("missions") + "?state=active")
    page.click("text=Save this view")
    page.wait_for_selector("#save-view [name=name]:focus")
    page.keyboard.type("Under way")
    page.keyboard.press("Enter")
    page.wait_for_selector(".saved-view >> text=Under way")


def test_verifying_shows_its_result_in_place(world: Any, show: Show, nadia: User) -> None:
    page = show(nadia, reverse("audit"))
    seal_all()
    page.click("text=Verify the chain")
    page.wait_for_selector("#verification >> text=Intact")
    assert page.url.endswith(reverse("audit"))


def test_a_timeline_follows_who_reads_its_end_and_tells_the_others(busy: Any, show: Show, nadia: User) -> None:
    page = show(nadia, reverse("mission", args=[busy.mission.pk]))
    page.set_viewport_size({"width": 1600, "height": 500})
    at_end = "document.getElementById('timeline-items').getBoundingClientRect().bottom <= innerHeight + 8"
    refresh = "htmx.trigger('#mission-timeline', 'live')"
    assert not page.evaluate(at_end)
    busy.act("books__outbox", "3 reminders")
    page.evaluate(refresh)
    page.wait_for_selector("[data-fresh] >> text=1 new")
    assert page.evaluate("scrollY") == 0
    page.click("[data-fresh]")
    assert page.evaluate(at_end)
    assert page.locator("[data-fresh]").is_hidden()
    assert page.locator("#mission-stop a").is_visible()  # also when the head has left the screen
    busy.act("books__attachment", path="/etc/shadow")
    page.evaluate(refresh)
    page.locator("#timeline-items", has_text="/etc/shadow").wait_for()
    assert page.evaluate(at_end)
    assert page.complaints == []


def test_home_is_worked_through_with_keys_alone(world: Any, show: Show, bob: User) -> None:
    world.ask_credit("150.00")
    page = show(bob, reverse("home"))
    page.keyboard.press("j")
    page.keyboard.press("a")
    page.wait_for_selector("text=Nothing. What agents may not decide alone")
    assert Vote.objects.get().approve
    assert page.url.endswith(reverse("home"))
    assert page.complaints == []


def test_a_long_check_and_a_long_export_fill_their_bars_in_place(
    busy: Any, show: Show, nadia: User, monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path
) -> None:
    """Slices of five entries; the worker is played here, and the page comes for each step by itself."""
    settings.CONFIG = settings.CONFIG.model_copy(update={"state_dir": tmp_path / "state"})
    monkeypatch.setattr(verification, "STRETCH", 5)
    monkeypatch.setattr(jobs.exporting, "PART_ENTRIES", 5)
    monkeypatch.setattr("frontend.views.audit_proof.AT_ONCE_SECONDS", 0.0)
    page = show(nadia, reverse("audit"))
    seal_all()
    page.click("text=Verify the chain")
    page.wait_for_selector("#verification >> text=5 of")
    check = Job.objects.get()
    assert not jobs.work(job_id=check.pk, seconds=0.0)
    page.wait_for_selector("#verification >> text=10 of")
    _shoot(page, "audit-checking")
    while not jobs.work(job_id=check.pk, seconds=0.0):
        pass
    page.wait_for_selector("#verification >> text=Intact")
    _shoot(page, "audit-checked")
    page.goto(reverse("audit-exports"))
    page.click("form.form button.primary")
    page.wait_for_selector("#audit-exports >> text=5 of")
    _shoot(page, "audit-exporting")
    export = Job.objects.get(kind="export")
    while not jobs.work(job_id=export.pk, seconds=0.0):
        pass
    page.wait_for_selector("#audit-exports >> text=Download")
    _shoot(page, "audit-exported")
    with page.expect_download() as download:
        page.click("#audit-exports >> text=Download")
    assert download.value.suggested_filename.endswith(".zip")
    assert page.complaints == []


def _shoot(page: Any, name: str) -> None:
    if folder := os.environ.get("REMIT_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}.png"))


@pytest.mark.parametrize(("theme", "width"), [("light", 1600), ("dark", 360), ("dark", 1600), ("light", 360)])
def test_a_team_is_stopped_from_home_by_keyboard_and_the_page_proves_it(
    busy: Any, show: Show, nadia: User, theme: str, width: int
) -> None:
    """The question as a dialog with its numbers, the proofs, the list, the strip on every page, asking to lift it."""
    busy.begin("books__customer", invoice="INV-0199")
    page = show(nadia, reverse("home"), width=width, theme=theme)
    page.click("main summary:has-text('Stop')")
    page.click("text=The team Receivables")
    page.wait_for_selector("#stop-dialog >> text=1 open question")
    wrong = problems_of(page, "stop-question", theme)
    page.keyboard.type("Credits went to the wrong customers")  # where the dialog put the focus: not on its button
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Still running outside")
    assert page.locator(".ladder >> text=after").count() >= 6
    wrong += problems_of(page, "stop", theme)
    page.goto(reverse("stops"))
    wrong += problems_of(page, "stops", theme)
    page.goto(reverse("missions"))
    assert "The team Receivables is stopped." in page.locator(".strips").inner_text()
    wrong += problems_of(page, "stop-strip", theme)
    page.click(".strips >> text=See the proofs")
    page.click("text=Lift the stop")
    page.wait_for_selector("#lift-stop >> text=It waits for a second person")
    wrong += problems_of(page, "stop-lift", theme)
    page.click("text=Ask to lift it")
    page.wait_for_selector("text=asked")
    wrong += problems_of(page, "stop-asked", theme)
    page.goto(reverse("mission", args=[busy.mission.pk]))
    wrong += problems_of(page, "stop-mission", theme)
    assert not wrong, "\n".join(wrong)


def test_the_question_to_stop_an_agent_or_an_attempt_opens_where_it_is_seen(
    world: Any, show: Show, alice: User
) -> None:
    page = show(alice, reverse("agent", args=[world.agent.pk]))
    page.click("header.top >> text=Stop")
    page.wait_for_selector("#stop-dialog >> text=Stop the agent Receivables clerk?")
    page.keyboard.press("Escape")
    page.goto(reverse("mission-tab", args=[world.mission.pk, "runs"]))
    page.click("text=Stop this attempt")
    page.wait_for_selector("#stop-dialog >> text=Stop attempt 1")
    page.click("#stop-dialog >> text=Keep it running")
    assert Mission.objects.get(pk=world.mission.pk).state == "active"
    assert page.complaints == []


@pytest.mark.parametrize(("theme", "width"), [("light", 1600), ("dark", 360)])
def test_a_server_that_was_tested_shows_its_steps_and_health(
    world: Any, show: Show, nadia: User, theme: str, width: int
) -> None:
    from agents.models import McpTool, ServerTest
    from agents.servers import health
    from controlplane.common.clock import now

    McpTool.objects.filter(qualified_name="books__overdue").update(read_only=True)
    health.note_use({world.server.pk: health.Use(calls=40, failed=2, milliseconds=5200)})
    health.note_check(world.server.pk, failed=False)
    ServerTest.objects.create(
        server=world.server,
        asked_by=nadia,
        state="failed",
        created_at=now(),
        started_at=now(),
        ended_at=now(),
        tool_name="books__overdue",
        answer="INV-0131, 31 days\u202e\x1b[31m late\n" * 4,
        steps=[
            {"step": "Connect", "milliseconds": 182, "said": "It speaks MCP 2025-11-25.", "passed": True},
            {"step": "Read its tools", "milliseconds": 0, "said": "7 tools; nothing has changed.", "passed": True},
            {
                "step": "Call books__overdue",
                "milliseconds": 31,
                "said": "The tool says that it failed.",
                "passed": False,
            },
        ],
    )
    page = show(nadia, reverse("server", args=[world.server.pk]), width=width, theme=theme)
    assert page.get_by_text("2 of 40 calls failed").is_visible()
    assert not problems_of(page, "server-tested", theme)


def test_the_map_of_keys_lists_what_works_on_the_page(world: Any, show: Show, bob: User, finn: User) -> None:
    world.ask_credit()

    def keys(page: Any) -> list[str]:
        page.keyboard.press("?")
        page.wait_for_selector("#keyboard[open]")
        return str(page.inner_text("#keyboard dl")).splitlines()

    page = show(bob, reverse("approvals"))
    words = keys(page)
    assert {"Approve or accept", "Deny or reject", "Next and previous row"} <= set(words)
    page.goto(reverse("policies"), wait_until="load")
    words = keys(page)
    assert not {"Approve or accept", "Next and previous row", "New"} & set(words)
    assert "New" not in keys(show(finn, reverse("missions")))


def test_the_palette_by_keyboard_alone(world: Any, show: Show, alice: User) -> None:
    question = world.ask_credit()
    page = show(alice, reverse("home"))
    page.keyboard.press("Control+k")
    page.keyboard.type("INV-0131")
    page.wait_for_selector("#palette-results [role=option]")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{reverse('approval', args=[question.pk])}", wait_until="load")
    page.keyboard.press("Control+k")
    page.keyboard.type("register a server")
    page.wait_for_selector("#palette [aria-selected=true]:has-text('Register a server')")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{reverse('server-new')}")


def test_a_view_is_saved_and_taken_back_without_a_mouse(world: Any, show: Show, alice: User) -> None:
    page = show(alice, reverse("missions") + "?state=active")
    page.click("#save-view > summary")
    page.fill("#save-view [name=name]", "Running now")
    page.keyboard.press("Enter")
    page.wait_for_selector("nav[aria-label='Saved views'] >> text=Running now")
    assert not problems_of(page, "missions-saved", "light")
    page.click("[aria-label='Remove the view Running now']")
    page.click(".toast >> text=Undo")
    page.wait_for_selector("nav[aria-label='Saved views'] >> text=Running now")
