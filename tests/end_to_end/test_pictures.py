"""The pictures of docs/screens.md: every page of a furnished demo, once its first missions were played."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.end_to_end import pictures
from tests.end_to_end.conftest import ROOT, Installation
from tests.frontend.pages.entering import code

# Who looks, the name of the picture, the address. test_receivables takes those of the first mission.
PAGES = (
    ("nadia", "mission-remit", "/missions/{mission}/remit"),
    ("nadia", "mission-budget", "/missions/{mission}/budget"),
    ("nadia", "mission-output", "/missions/{mission}/output"),
    ("nadia", "mission-checklist", "/missions/{mission}/checklist"),
    ("nadia", "mission-runs", "/missions/{mission}/runs"),
    ("nadia", "mission-change", "/missions/{open}/change"),
    ("nadia", "mission-ask", "/missions/{open}/ask"),
    ("nadia", "agent", "/agents/{agent}"),
    ("nadia", "agent-new", "/agents/new"),
    ("nadia", "credential-new", "/agents/{agent}/credentials/new"),
    ("nadia", "search", "/search?q=receivables"),
    ("nadia", "stop-question", "/stops/new?scope=agent&id={agent}"),
    ("nadia", "me", "/me"),
    ("nadia", "second-factor", "/me/second-factor"),
    ("nadia", "password-change", "/accounts/password/change/"),
    ("dana", "approval-edit", "/approvals/{question}/edit"),
    ("dana", "approvals-decided", "/approvals?tab=decided"),
    ("dana", "approval-health", "/approvals/health"),
    ("dana", "broken-glass", "/approvals/broken-glass"),
    ("dana", "notices", "/notices"),
    ("dana", "settings-approvals", "/settings/approvals"),
    ("dana", "approval-route", "/settings/approvals/routes/{route}"),
    ("dana", "stops", "/stops"),
    ("dana", "audit-entry", "/audit/{entry}"),
    ("dana", "audit-exports", "/audit/exports"),
    ("dana", "server", "/servers/{server}"),
    ("dana", "server-new", "/servers/new"),
    ("dana", "server-try", "/servers/{server}/try"),
    ("dana", "server-teams", "/servers/{server}/teams"),
    ("dana", "server-credential", "/servers/{server}/credential"),
    ("dana", "policies", "/policies"),
    ("dana", "teams", "/settings/teams"),
    ("dana", "roles", "/settings/members/roles"),
    ("dana", "member", "/settings/members/{person}"),
    ("dana", "member-invite", "/settings/members/invite"),
    ("dana", "person-erase", "/settings/members/{person}/erase"),
    ("dana", "token-list", "/settings/tokens"),
    ("dana", "token-rotate", "/settings/tokens/{token}/rotate"),
    ("dana", "organisation", "/settings/organisation"),
    ("dana", "not-found", "/missions/0190a000-0000-7000-8000-000000000000"),
    ("finn", "budget", "/budgets/{budget}"),
    ("finn", "budget-limit", "/budgets/{budget}/limit"),
    ("finn", "cost-goal", "/costs/goals/receivables"),
    ("finn", "cost-mission", "/costs/missions/{mission}"),
    ("finn", "forbidden", "/approvals"),
    ("nadia", "api-docs", "/api/v1/docs"),
)
OUTSIDE = (
    ("sign-in", "/accounts/login/"),
    ("password-reset", "/accounts/password/reset/"),
    ("invitation", "/invitations/{invited}"),
)
SECOND_FACTOR = ("recovery-codes", "second-factor-off", "second-factor-asked")
# What people of a working organisation have arranged. Names of the demo's own people only.
FURNISH = """
import json
from datetime import timedelta
from agents.catalogue.demo import DANA, NADIA
from agents.models import Agent, McpServer, Mission
from budgets.models import Account
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.tenancy import services
from controlplane.tenancy.credentials import issue_service_token
from controlplane.tenancy.invitations import invite
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Permission, Role
from governance import services as governance
from governance.models import Escalation
def person(of): return User.objects.get(email=of.email)
dana = services.principal_of_user(user=person(DANA))
soon = now() + timedelta(days=30)
governance.save_group(actor=dana, name="Finance desk", member_ids=[person(DANA).pk])
route = governance.save_route(actor=dana, route=governance.Route(name="Wider remits", kind="mission.widen"))
token, _ = issue_service_token(principal=dana, name="Nightly export", expires_at=soon, scopes={Permission.AUDIT_VIEW})
_, invited = invite(principal=dana, email="ines@northwind.example", roles=[(None, Role.AUDITOR)])
played = Mission.objects.filter(template="receivables").order_by("pk").first()
print(json.dumps({
    "mission": str(played.pk),
    "route": str(route.pk),
    "token": str(token.pk),
    "invited": invited,
    "agent": str(played.agent_id),
    "open": str(Mission.objects.filter(state="active").latest("pk").pk),
    "question": str(Escalation.objects.filter(state="open").latest("pk").pk),
    "entry": str(Entry.objects.filter(event="escalation.approved").latest("pk").pk),
    "server": str(McpServer.objects.get(slug="books").pk),
    "person": str(person(NADIA).pk),
    "budget": str(Account.objects.get(level="team", subject_id=played.team_id).pk),
}))
"""


@pytest.mark.browser
@pytest.mark.sandbox
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not pictures.FOLDER, reason="only for the pictures of the documentation")
def test_a_picture_of_every_page(remit: Installation, signed_in: Callable[[str], Any], chromium: Any) -> None:
    nadia = signed_in("nadia")
    nadia.goto(f"{remit.url}/missions/new")
    nadia.get_by_role("button", name="Start mission").click()
    nadia.locator("#mission-timeline").get_by_text("Waits for Dana").first.wait_for(timeout=120_000)
    found = json.loads(remit.shell(FURNISH))
    people = {"nadia": nadia, "dana": signed_in("dana"), "finn": signed_in("finn")}
    for who, name, path in PAGES:
        page = people[who].context.new_page()  # what the console says of a page that refuses is no complaint
        page.goto(remit.url + path.format(**found))
        pictures.take_in(page, remit.url, name, "light")
        page.close()
    outside = chromium.new_context(viewport=pictures.WIDE, locale="en-GB").new_page()
    for name, path in OUTSIDE:
        outside.goto(remit.url + path.format(**found))
        pictures.take_in(outside, remit.url, name, "light")
    second_factor(nadia, outside, remit)
    outside.context.close()


def second_factor(page: Any, outside: Any, remit: Installation) -> None:
    """Turned on as a person does it. The codes are shown once, so their picture is taken without another look."""
    page.goto(f"{remit.url}/me/second-factor")
    page.get_by_text("Can't scan it").click()
    secret = page.locator(".secret code").inner_text()
    page.locator("input[name=code]").fill(code(secret))
    page.get_by_role("button", name="Turn it on").click()
    page.get_by_role("heading", name="Recovery codes").wait_for()
    pictures.take(page, "recovery-codes-light")
    page.goto(f"{remit.url}/me/second-factor/off")
    pictures.take_in(page, remit.url, "second-factor-off", "light")
    outside.goto(remit.sign_in_link("nadia"))
    outside.get_by_role("button", name="Sign in").click()
    outside.wait_for_url("**/accounts/second-factor/**")
    pictures.take_in(outside, remit.url, "second-factor-asked", "light")


def test_the_gallery_shows_every_picture_and_every_picture_is_there() -> None:
    text = (ROOT / "docs" / "screens.md").read_text()
    there = {path.name for path in (ROOT / "docs" / "screenshots").glob("*.png")}
    assert {name for name in there if f"screenshots/{name}" not in text} == set()
    taken = {name for _, name, _ in PAGES} | {name for name, _ in OUTSIDE} | set(SECOND_FACTOR)
    assert taken <= {name.removesuffix("-light.png") for name in there}
