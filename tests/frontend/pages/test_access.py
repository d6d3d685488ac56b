"""Who may open what: every page and every form, for every role, for Charlie of another organisation, and for nobody."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction
from django.urls import get_resolver, reverse

from agents.choices import MissionState, ServerState, ToolState
from agents.models import Agent, McpServer, McpTool, Mission
from budgets.models import Account
from controlplane.audit.models import Entry
from controlplane.tenancy.models import Membership, Organisation, Token, User
from controlplane.tenancy.types import Role
from governance.models import Action, Vote

from .browsing import SignIn
from .every_address import ARRANGING, CLOSED_LISTS, DECIDING, MONEY, OWN_FORMS, PAGES_WITH_FORMS, forms, items, state


@pytest.fixture
def people(alice: User, bob: User, dana: User, finn: User, nadia: User) -> dict[str, User]:
    return {"alice": alice, "bob": bob, "dana": dana, "finn": finn, "nadia": nadia}


def test_every_page_is_tried_here(asked: Any) -> None:
    """A page added later must be added to the tables of every_address.py, or this fails."""
    named = {pattern.name for pattern in get_resolver("frontend.urls").url_patterns}
    tried = (
        set(CLOSED_LISTS)
        | {name.split("-")[0] if name.startswith("budget") else name for name in items(asked)}
        | set(forms(asked))
    )
    elsewhere = {"sign-in-link", "audit-verify", "switch-organisation", "view-save", "view-remove"}
    elsewhere |= {"approval-from-mail", "notices-read"}  # tests/frontend/pages/test_notices_of_questions.py
    elsewhere |= {"strip-put-away"}  # tests/frontend/pages/test_strips.py
    # One's own alone, or open to who has the link: tests/frontend/pages/test_sign_in.py and test_members.py.
    elsewhere |= {"settings", "invitation", "sessions-end", *(name for name in named if name.startswith("mfa_"))}
    elsewhere |= {"audit-job", "audit-download", "person-erase"}  # test_audit_proof
    covered = {
        "mission-tab": "mission-remit",
        "mission-operate": "mission-stop",
        "approval-decide": "approve",
        "member-operate": "member-deactivate",
        "invitation-operate": "invitation-revoke",
    }
    assert {name for name in named if name not in elsewhere and covered.get(name, name) not in tried} == set()


def test_lists_open_for_the_roles_they_are_for(asked: Any, people: dict[str, User], signed_in: SignIn) -> None:
    for name, closed in CLOSED_LISTS.items():
        for who, user in people.items():
            response = signed_in(user).get(reverse(name))
            assert response.status_code == (403 if who in closed else 200), (name, who)
            if who in closed:
                assert "Not for your role" in response.content.decode(), (name, who)


def test_a_forbidden_list_says_whose_it_is(asked: Any, finn: User, signed_in: SignIn) -> None:
    html = signed_in(finn).get(reverse("approvals")).content.decode()
    assert "administrators, builders, approvers and auditors of Northwind" in html


def test_nobody_is_sent_to_sign_in_and_learns_nothing(asked: Any, signed_in: SignIn) -> None:
    before = state(asked)
    for path in [*(reverse(name) for name in CLOSED_LISTS), *items(asked).values()]:
        response = signed_in(None).get(path)
        assert response.status_code == 302, path
        assert response["Location"].startswith("/accounts/login/?next="), path
    for path, body in forms(asked).values():
        response = signed_in(None).post(path, body)
        assert response.status_code == 302, path
        assert response["Location"].startswith("/accounts/login/?next="), path
    assert state(asked) == before


def test_charlie_of_another_organisation_finds_nothing(asked: Any, charlie: User, signed_in: SignIn) -> None:
    browser, before = signed_in(charlie), state(asked)
    for name, path in items(asked).items():
        assert browser.get(path).status_code == 404, name
    for name, (path, body) in forms(asked).items():
        assert browser.post(path, body).status_code in (403, 404), name
    assert state(asked) == before


def test_charlies_lists_show_nothing_of_northwind(asked: Any, charlie: User, signed_in: SignIn) -> None:
    browser = signed_in(charlie)
    secrets = ("Chase overdue", "Receivables clerk", "books__", "INV-0131", "Northwind", "Alice")
    pages = [reverse(name) for name in CLOSED_LISTS if name not in ("mission-new", "agent-new")]
    exports = [reverse("missions") + "?format=csv", reverse("audit") + "?format=csv"]
    for path in [*pages, *exports, reverse("search") + "?q=credit", reverse("approvals") + "?tab=decided"]:
        response = browser.get(path)
        assert response.status_code == 200, path
        text = (b"".join(response) if response.streaming else response.content).decode()
        assert [word for word in secrets if word in text] == [], path


def test_an_unknown_id_and_a_foreign_one_look_the_same(
    asked: Any, charlie: User, signed_in: SignIn, nobody: uuid.UUID
) -> None:
    browser = signed_in(charlie)
    foreign = browser.get(reverse("mission", args=[asked.mission.pk])).content.decode()
    unknown = browser.get(reverse("mission", args=[nobody])).content.decode()
    assert "There is no such mission, or you may not see it." in foreign
    assert "There is no such mission, or you may not see it." in unknown


def test_roles_without_the_permission_change_nothing(asked: Any, people: dict[str, User], signed_in: SignIn) -> None:
    may = {
        "alice": {name for name in forms(asked) if not name.startswith(("member-", "invitation-"))}
        - {"approve", "deny", *DECIDING, *ARRANGING}
        - MONEY,
        "bob": {"approve", "deny", "approval-say", *DECIDING, "delegation-save"},
        "dana": {"approve", "deny", "approval-say", *DECIDING, "delegation-save"},
        "finn": {*MONEY, "budget-ask"},
        "nadia": set(forms(asked)) - {"broken-glass-review"},
    }
    for who, user in people.items():
        browser, before = signed_in(user), state(asked)
        for name, (path, body) in forms(asked).items():
            if name not in may[who]:
                assert browser.post(path, body).status_code in (403, 404), (who, name)
        assert state(asked) == before, who


def test_another_teams_builder_sees_nothing_of_this_team(
    asked: Any, make_person: Callable[..., User], other_team: Any, signed_in: SignIn
) -> None:
    olga = make_person("Olga", asked.organisation, Role.BUILDER, Role.APPROVER, team=other_team)
    browser, before = signed_in(olga), state(asked)
    for name, path in items(asked).items():
        # Servers and routes belong to the organisation; its administrators change a route.
        expected = {"server": 200, "approval-route": 403}.get(name, 404)
        assert browser.get(path).status_code == expected, name
    assert browser.post(*forms(asked)["approve"]).status_code == 404
    assert "Chase overdue" not in browser.get(reverse("server", args=[asked.server.pk])).content.decode()
    assert state(asked) == before


def test_every_form_needs_its_csrf_token(asked: Any, nadia: User, signed_in: SignIn) -> None:
    browser, before = signed_in(nadia, enforce_csrf=True), state(asked)
    extra = [(reverse(name), {}) for name in OWN_FORMS]
    for path, body in [*forms(asked).values(), *extra, (reverse("audit-verify"), {})]:
        response = browser.post(path, body)
        assert response.status_code == 403, path
        assert "CSRF" in response.content.decode() or "form" in response.content.decode(), path
    assert state(asked) == before


def test_nothing_is_decided_by_opening_an_address(asked: Any, nadia: User, signed_in: SignIn) -> None:
    browser, before = signed_in(nadia), state(asked)
    for name, (path, body) in forms(asked).items():
        assert browser.get(path, body).status_code == (200 if name in PAGES_WITH_FORMS else 405), path
    for path in items(asked).values():
        browser.get(path)
    assert state(asked) == before


def test_the_owner_can_do_all_of_it(asked: Any, nadia: User, signed_in: SignIn) -> None:
    """The refusals above mean something: the same bodies work for who may."""
    browser = signed_in(nadia)
    for name in ("approve", "mission-pause", "mission-resume", "server-switch", "mission-stop", "agent-retire"):
        path, body = forms(asked)[name]
        assert browser.post(path, body).status_code == 302, name
    asked.mission.refresh_from_db()
    assert asked.mission.state == MissionState.STOPPED
    assert Agent.objects.get(pk=asked.agent.pk).state == "retired"
    assert McpServer.objects.get(pk=asked.server.pk).state == ServerState.DISABLED
    assert McpTool.objects.filter(server=asked.server).exclude(state=ToolState.ACTIVE).count() == 0


NUL = "a\0b"


def test_a_nul_in_an_address_or_a_form_is_refused_by_name(
    asked: Any, people: dict[str, User], signed_in: SignIn
) -> None:
    before = state(asked)
    for name in ("missions", "agents", "audit", "search"):
        response = signed_in(people["nadia"]).get(reverse(name), {"q": NUL})
        assert (response.status_code, b"request.malformed" in response.content) == (400, True), name
    for who in ("alice", "bob"):
        for name, (path, body) in forms(asked).items():
            response = signed_in(people[who]).post(path, {**body, "reason": NUL})
            assert response.status_code == 400, (who, name)
    assert state(asked) == before


def test_mass_assignment_no_form_takes_more_than_its_own_fields(
    asked: Any, nadia: User, charlie: User, elsewhere: Organisation, signed_in: SignIn
) -> None:
    """Each form is sent as it works, with what else its rows could hold; afterwards it is taken back."""
    browser = signed_in(nadia)
    foreign = ("organisation", "organisation_id", "account_id")
    persons = ("owner", "owner_id", "user", "user_id", "created_by", "created_by_id", "by")
    hostile = {
        **dict.fromkeys(foreign, str(elsewhere.pk)),
        **dict.fromkeys(persons, str(charlie.pk)),
        "is_superuser": "1",
        "email": "x@x.example",
        "password": "x",
        "digest": "sha256:00",
    }
    known = list(Action.objects.values_list("pk", flat=True))

    def others() -> list[Any]:
        return [
            list(User.objects.order_by("pk").values_list("email", "is_superuser", "password", "is_active")),
            list(Mission.objects.order_by("pk").values_list("organisation", "owner", "account_id")),
            list(Action.objects.filter(pk__in=known).order_by("pk").values_list("digest", flat=True)),
            set(Action.objects.values_list("organisation", flat=True)),
            set(Agent.objects.values_list("organisation", flat=True)),
            set(McpServer.objects.values_list("organisation", "created_by")),
            set(Token.objects.values_list("organisation", "user_id")) - {(asked.organisation.pk, None)},
            set(Membership.objects.filter(user=charlie).values_list("organisation", "role")),
            set(Account.objects.values_list("organisation", flat=True)),
            set(Vote.objects.filter(user=charlie).values_list("pk", flat=True)),
            set(Entry.objects.filter(organisation=elsewhere).values_list("event", flat=True)),
        ]

    before, untouched, worked = others(), state(asked), 0
    for name, (path, body) in forms(asked).items():
        with transaction.atomic():
            browser.post(path, {**hostile, **body})
            after = others()
            worked += state(asked) != untouched
            transaction.set_rollback(True)
        assert after == before, name
    assert worked > len(forms(asked)) / 2
