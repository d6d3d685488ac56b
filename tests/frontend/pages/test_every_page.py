"""Every page of the URL conf, and the states that pages have, looked at in Chromium: axe finds nothing in either theme,
nothing is too wide at 360 and 1,600 pixels, the console has nothing to say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from allauth.account.forms import default_token_generator
from allauth.account.utils import user_pk_to_url_str
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.conf import settings
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from budgets.costs.facts import refresh_changed
from budgets.costs.folding import fold_all
from controlplane.audit.sealing import seal_all
from controlplane.common import rate_limits
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.invitations import invite
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal, Role
from frontend.api.urls import documented
from governance.models import Escalation
from tests.conftest import PASSWORD
from tests.frontend.pages.entering import code
from tests.frontend.pages.foreign import furnish, pages
from tests.frontend.pages.looked_at import problems

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]

# What has an address and is no page, with the reason.
NO_PAGES = {
    "account_confirm_email": "addresses are not confirmed by mail",
    "account_confirm_login_code": "no codes by mail: leads to the sign-in",
    "account_email": "leads to the profile",
    "account_email_verification_sent": "leads to the profile",
    "account_set_password": "leads to changing the password: everybody here has one",
    "approval-from-mail": "leads to the question",
    "api-schema": "a document for programs",
    "approvals-csv": "a file",
    "audit-download": "a file",
    "audit-job": "leads to the exports; the part of the page is seen in test_in_the_browser",
    "healthz": "for programs",
    "metrics": "for programs",
    "mfa_index": "leads to the profile",
    "mission-actions-csv": "a file",
    "notices-bell": "a part; seen with the bell open",
    "notices-count": "a part of the bell",
    "warnings": "a part of the frame; seen on every page",
    "oidc-callback": "answers an identity provider; test_identity_in_the_browser",
    "oidc-login": "leads to an identity provider; test_identity_in_the_browser",
    "readyz": "for programs",
    "socialaccount_connections": "leads to the profile",
    "settings": "leads to the members",
    "socialaccount_signup": "leads to the sign-in: nobody signs up by themselves",
    r"^api(?:/|\Z)": "what programs are told where nothing is",
}
# Seen on the way into a session, by whoever is not in one, or with a second factor.
OUTSIDE = (
    *("account_login", "account_inactive", "account_signup", "account_reset_password", "account_reset_password_done"),
    "account_reset_password_from_key_done",
    *("socialaccount_login_cancelled", "socialaccount_login_error"),
)
BY_SECRET = ("sign-in-link", "invitation", "account_reset_password_from_key")
SECOND_FACTOR = (
    *("mfa_authenticate", "mfa_reauthenticate"),
    *("mfa_view_recovery_codes", "mfa_generate_recovery_codes", "mfa_deactivate_totp"),
)
INSIDE = ("account_logout", "account_reauthenticate", "account_change_password")
QUERIES = {"search": "?q=invoice", "stop-new": "?scope=mission&id={mission}"}
FURTHER = (
    *("/approvals?tab=decided", "/approvals?tab=open", "/missions?state=active", "/missions?q=none", "/costs?by=time"),
    *("/audit?each=1", "/search?q=zeppelin", "/search", "/settings/members?q=nobody"),
)


def every_name() -> set[str]:
    """Of all addresses but those of the REST interface."""
    theirs = {id(pattern) for pattern in documented}
    return {p.name or str(p.pattern) for p in _flat(get_resolver().url_patterns) if id(p) not in theirs}


def _flat(patterns: list[Any]) -> Iterator[URLPattern]:
    for pattern in patterns:
        yield from _flat(pattern.url_patterns) if isinstance(pattern, URLResolver) else [pattern]


@pytest.fixture
def full(asked: Any, busy: Any, as_nadia: Principal, live_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Northwind with a row of everything."""
    furnish(asked)
    monkeypatch.setattr(rate_limits, "_LIMITERS", {})
    seal_all()
    fold_all(most_batches=10**6)
    refresh_changed()
    return asked


@pytest.fixture
def page(chromium: Any, live_server: Any) -> Iterator[Any]:
    """One page of one browser for all, its theme the system's. What the console says is in `complaints`."""
    context = chromium.new_context(viewport={"width": 1600, "height": 900}, base_url=live_server.url, locale="en-GB")
    opened = context.new_page()
    opened.set_default_timeout(15_000)
    opened.complaints = []
    opened.on("console", lambda line: opened.complaints.append(line.text) if line.type == "error" else None)
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.route_web_socket("**/live", lambda socket: None)  # accepted and silent: this server speaks no websocket
    yield opened
    context.close()


@pytest.fixture
def become(page: Any, live_server: Any, signed_in: Callable[..., Client]) -> Callable[[User | None], None]:
    """From here on the page is this person's."""

    def change(user: User | None) -> None:
        page.context.clear_cookies()
        if user is not None:
            name = settings.SESSION_COOKIE_NAME
            value = signed_in(user).cookies[name].value
            page.context.add_cookies([{"name": name, "value": value, "url": live_server.url}])

    return change


def visit(page: Any, path: str, *, status: int = 200, all_colours: bool = False) -> list[str]:
    """The page at this address as it opens."""
    answer = page.goto(path, wait_until="load")
    if answer.status != status or "/accounts/login/?next" in page.url:
        return [f"{path} answered {answer.status} at {page.url}"]
    if status >= 400:  # the browser's own word on the status
        page.complaints[:] = [text for text in page.complaints if "Failed to load resource" not in text]
    return problems(page, path, all_colours=all_colours)


def sign_in(page: Any, user: User) -> None:
    page.context.clear_cookies()
    page.goto(reverse("account_login"))
    page.fill("[name=login]", user.email)
    page.fill("[name=password]", PASSWORD)
    page.click("main button.primary")
    page.wait_for_load_state()


def test_every_address_is_a_page_that_is_looked_at_or_is_none_for_a_reason() -> None:
    named = {route.name for route in pages()}
    elsewhere = {*NO_PAGES, *OUTSIDE, *BY_SECRET, *SECOND_FACTOR, *INSIDE, "api-docs"}
    assert every_name() - named - elsewhere == set(), "look at it in this file, or say why it is no page"
    assert elsewhere - every_name() == set(), "these addresses are gone"


def test_every_page_inside_is_accessible_and_fits(full: Any, page: Any, nadia: User, signed_in: Any) -> None:
    sign_in(page, nadia)
    probe, wrong, seen = signed_in(nadia), [], 0
    others = {*NO_PAGES, *BY_SECRET, *SECOND_FACTOR}
    for route in pages():
        for path in () if route.name in others else route.addresses(full):
            query = QUERIES.get(route.name, "").format(mission=full.mission.pk)
            if probe.get(path + query).status_code != 405:  # the address of a form, whose page is another
                wrong += visit(page, path + query, all_colours=True)
                seen += 1
    for path in (*map(reverse, (*INSIDE, "api-docs")), *FURTHER):
        wrong += visit(page, path, all_colours=True)
    assert seen > 50
    assert not wrong, "\n".join(wrong)


def test_every_page_of_the_way_in_is_accessible_and_fits(
    full: Any, page: Any, become: Any, alice: User, as_nadia: Principal
) -> None:
    become(None)
    wrong: list[str] = []
    for name in OUTSIDE:
        wrong += visit(page, reverse(name), status=401 if name == "socialaccount_login_error" else 200)
    key = f"{user_pk_to_url_str(alice)}-{default_token_generator.make_token(alice)}"
    invited = invite(principal=as_nadia, email="late@northwind.example", roles=[(full.team.pk, Role.BUILDER)])[1]
    link = reverse("sign-in-link", args=[tenancy.make_sign_in_link(user=alice)])
    for path in (f"/accounts/password/reset/key/{key}/", reverse("invitation", args=[invited]), link):
        wrong += visit(page, path)
    for name in ("sign-in-link", "invitation"):
        wrong += visit(page, reverse(name, args=["spent"]), status=410)
    secret = generate_totp_secret()
    TOTP.activate(alice, secret)
    sign_in(page, alice)
    wrong += problems(page, "mfa_authenticate")
    page.fill("[name=code]", code(secret))
    page.click("main button.primary")
    page.wait_for_url("**/")
    page.goto(reverse("mfa_generate_recovery_codes"))
    wrong += problems(page, "mfa_generate_recovery_codes")
    page.click("main button.primary")
    page.wait_for_url(f"**{reverse('mfa_view_recovery_codes')}")
    wrong += problems(page, "mfa_view_recovery_codes")
    for name in ("mfa_deactivate_totp", "mfa_reauthenticate"):
        wrong += visit(page, reverse(name))
    assert not wrong, "\n".join(wrong)


def test_pages_of_an_organisation_without_anything_are_accessible_and_fit(
    page: Any, become: Any, charlie: User, db: None
) -> None:
    become(charlie)
    wrong = []
    for route in pages():
        no_page = {*NO_PAGES, *BY_SECRET, *SECOND_FACTOR, "stop-new", "mfa_activate_totp"}
        if not route.parameters and route.name not in no_page:
            answer = page.request.get(f"/{route.template}")
            if answer.status != 405:
                wrong += visit(page, f"/{route.template}")
    assert not wrong, "\n".join(wrong)


def test_pages_of_errors_are_accessible_and_fit(
    world: Any, page: Any, become: Any, finn: User, nobody: Any, monkeypatch: Any
) -> None:
    become(finn)
    wrong = visit(page, "/nothing-here", status=404)
    wrong += visit(page, reverse("mission", args=[nobody]), status=404)
    wrong += visit(page, reverse("approval-from-mail", args=["changed"]), status=404)
    wrong += visit(page, reverse("approvals"), status=403)

    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("frontend.views.home.selectors.missions", fail)
        wrong += visit(page, reverse("home"), status=500)
    page.goto(reverse("me"))
    page.evaluate("document.querySelectorAll('[name=csrfmiddlewaretoken]').forEach(field => field.value = 'x')")
    page.click("main form button.primary")
    page.wait_for_load_state()
    page.complaints[:] = [text for text in page.complaints if "Failed to load resource" not in text]
    wrong += problems(page, "csrf")
    become(User.objects.create(email="zoe@nowhere.example", name="Zoe"))
    wrong += visit(page, reverse("home"), status=403)
    assert not wrong, "\n".join(wrong)


def test_forms_that_say_what_is_wrong_are_accessible_and_fit(full: Any, page: Any, nadia: User) -> None:
    """Emptied and sent: what each field and each form says then."""
    sign_in(page, nadia)
    mission, account = full.mission.pk, full.account_of("team", full.team.pk)
    paths = (
        *("/missions/new", "/agents/new", "/servers/new", "/settings/members/invite", "/settings/tokens/new"),
        *("/settings/organisation", "/me", "/me/second-factor", "/accounts/password/change/", "/audit/exports"),
        reverse("mission-ask", args=[mission]),
        reverse("mission-change", args=[mission]),
        reverse("budget-limit", args=[account]),
        reverse("credential-new", args=[full.agent.pk]),
        reverse("server-try", args=[full.server.pk]),
        reverse("stop-new") + f"?scope=mission&id={mission}",
    )
    wrong = []
    for path in paths:
        page.goto(path, wait_until="load")
        sent = page.evaluate(EMPTY)
        page.wait_for_load_state("networkidle")
        page.complaints[:] = [text for text in page.complaints if "Failed to load resource" not in text]
        wrong += problems(page, f"{path} emptied") if sent else [f"{path} has no form"]
    page.goto("about:blank")  # what a page still asks for would be led to the sign-in, and change the form's token
    page.context.clear_cookies()
    for path in ("/accounts/login/", "/accounts/password/reset/"):
        page.goto(path, wait_until="load")
        page.evaluate(EMPTY)
        page.wait_for_load_state("networkidle")
        wrong += problems(page, f"{path} emptied")
    assert not wrong, "\n".join(wrong)


# The longest form of the page, its fields emptied, sent without the browser's own checks.
EMPTY = """() => {
  const forms = [...document.querySelectorAll("main form[method=post]")];
  const form = forms.sort((one, other) => other.elements.length - one.elements.length)[0];
  if (!form) return false;
  const typed = "input:not([type=hidden], [type=checkbox], [type=radio]), textarea";
  for (const field of form.querySelectorAll(typed)) field.value = "";
  for (const box of form.querySelectorAll("[type=checkbox]")) box.checked = false;
  form.noValidate = true;
  form.requestSubmit(form.querySelector("button[type=submit].primary, button[type=submit]"));
  return true;
}"""


def test_what_opens_on_a_page_is_accessible_and_fits(full: Any, page: Any, become: Any, nadia: User, bob: User) -> None:
    """Menus, the palette, the list of keys, and each dialog that a page of somebody who may do everything has."""
    become(nadia)
    wrong, opened = [], set()
    question = Escalation.objects.filter(state="open").latest("id")
    page.goto(reverse("home"))
    for menu in page.locator("details.menu").all():
        if menu.is_visible():
            menu.evaluate("menu => { menu.open = true }")
            page.wait_for_load_state("networkidle")
            wrong += problems(page, f"menu {menu.get_attribute('class')}")
            menu.evaluate("menu => { menu.open = false }")
    page.keyboard.press("Control+k")
    page.keyboard.type("invoice")
    page.wait_for_selector("#palette-results [role=option]")
    wrong += problems(page, "palette")
    paths = (
        reverse("home"),
        reverse("mission", args=[full.mission.pk]),
        reverse("approval", args=[question.pk]),
        reverse("agent", args=[full.agent.pk]),
        reverse("server", args=[full.server.pk]),
        reverse("budget", args=[full.account_of("team", full.team.pk)]),
        reverse("member", args=[bob.pk]),
        reverse("settings-approvals"),
        reverse("broken-glass"),
        reverse("tokens"),
    )
    for path in paths:
        page.goto(path, wait_until="load")
        for name in page.evaluate("[...document.querySelectorAll('dialog')].map(dialog => dialog.id)"):
            if name not in opened and name not in ("palette", "stop-dialog"):
                opened.add(name)
                page.evaluate("name => document.getElementById(name).showModal()", name)
                wrong += problems(page, f"{path} with {name}")
                page.evaluate("name => document.getElementById(name).close()", name)
        page.evaluate("document.querySelectorAll('main details').forEach(fold => { fold.open = true })")
        wrong += problems(page, f"{path} unfolded")
    page.goto(reverse("mission", args=[full.mission.pk]))
    page.click("#mission-stop a")
    page.wait_for_selector("#stop-dialog >> text=Stop it now")
    wrong += problems(page, "stop-dialog")
    assert len(opened) >= 5, opened
    assert not wrong, "\n".join(wrong)


def test_a_page_whose_socket_is_lost_says_so_and_stays_accessible(
    world: Any, page: Any, become: Any, nadia: User
) -> None:
    become(nadia)
    page.route_web_socket("**/live", lambda socket: socket.close())
    page.goto(reverse("mission", args=[world.mission.pk]))
    page.wait_for_selector("#live-strip:not([hidden]) >> text=Reconnecting")
    page.complaints[:] = [text for text in page.complaints if "WebSocket" not in text]
    assert problems(page, "mission, stale") == []
