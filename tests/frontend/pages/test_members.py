"""Members, their roles and invitations, as browsers without script see them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.core import mail
from django.test import Client
from django.urls import reverse

from controlplane.tenancy import services
from controlplane.tenancy.directory import held_by
from controlplane.tenancy.invitations import invite
from controlplane.tenancy.members import fingerprint
from controlplane.tenancy.models import Invitation, Membership, Organisation, User
from controlplane.tenancy.types import Principal, Role
from tests.conftest import PASSWORD

from .entering import html, log_in, who

SignIn = Callable[..., Client]
pytestmark = pytest.mark.usefixtures("_fresh_caches")


def test_members_as_csv_tell_second_factors_only_to_who_manages_them(
    nadia: User, alice: User, bob: User, signed_in: SignIn
) -> None:
    def lines(person: User) -> list[dict[str, str]]:
        content = b"".join(signed_in(person).get(reverse("members") + "?format=csv")).decode()
        return list(csv.DictReader(io.StringIO(content)))

    managed = {line["email"]: line for line in lines(nadia)}
    assert {alice.email, bob.email, nadia.email} <= set(managed)
    assert managed[nadia.email]["roles"] == "Admin (everywhere)"
    assert managed[alice.email]["second_factor"] == "False"
    assert all("second_factor" not in line for line in lines(alice))


def test_an_administrator_invites_and_the_invited_joins(nadia: User, signed_in: SignIn, team: Any) -> None:
    browser = signed_in(nadia)
    shown = browser.post(
        reverse("member-invite"), {"email": "ines@acme.example", "held": [f"{team.pk}:builder", "all:auditor"]}
    )
    assert shown.status_code == 200
    link = unescape(re.search(r"<code>(http://localhost:8000/invitations/[^<]+)</code>", html(shown))[1])  # type: ignore[index]
    assert "No mail server is connected" in html(shown)
    assert link not in html(browser.get(reverse("members")))
    path = link.removeprefix("http://localhost:8000")
    guest = Client()
    page = html(guest.get(path))
    assert "Nadia invites ines@acme.example as" in page
    assert guest.post(path, {"name": "Ines", "password": PASSWORD}).status_code == 302
    assert guest.get(reverse("missions")).status_code == 200
    assert guest.get(path).status_code == 410
    listed = html(browser.get(reverse("members")))
    assert "Ines" in listed
    assert "ines@acme.example" in listed
    assert mail.outbox == []


def test_with_a_mail_server_the_link_is_mailed_too(nadia: User, signed_in: SignIn, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"email_url": "smtp://mail.example"})
    shown = signed_in(nadia).post(reverse("member-invite"), {"email": "ines@acme.example", "held": ["all:auditor"]})
    assert "Remit mailed it" in html(shown)
    (message,) = mail.outbox
    assert message.to == ["ines@acme.example"]
    assert message.subject == "Join Northwind on Remit"
    link = re.search(r"http://localhost:8000(/invitations/\S+)", str(message.body))[1]  # type: ignore[index]
    assert Client().get(link).status_code == 200
    assert Invitation.objects.get().mailed_at is not None


def test_a_mail_server_that_is_away_leaves_the_link_to_pass_on(nadia: User, signed_in: SignIn, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"email_url": "smtp://127.0.0.1:9"})
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    shown = signed_in(nadia).post(reverse("member-invite"), {"email": "ines@acme.example", "held": ["all:auditor"]})
    assert "did not take the message" in html(shown)
    assert "/invitations/" in html(shown)


def test_somebody_signed_in_as_another_is_told_so(alice: User, as_nadia: Principal, signed_in: SignIn) -> None:
    secret = invite(principal=as_nadia, email="ines@acme.example", roles=[(None, Role.ADMIN)])[1]
    browser = signed_in(alice)
    path = reverse("invitation", args=[secret])
    assert "Sign out, then open the link again" in html(browser.get(path))
    assert browser.post(path).status_code == 403
    assert Membership.objects.filter(user=alice).count() == 1


def test_roles_are_changed_on_the_members_page(nadia: User, alice: User, signed_in: SignIn, team: Any) -> None:
    browser = signed_in(nadia)
    page = html(browser.get(reverse("member", args=[alice.pk])))
    assert re.search(rf'value="{team.pk}:builder"[^>]* checked', page)
    seen = re.search(r'name="seen" value="([^"]+)"', page)[1]  # type: ignore[index]
    body = {"held": [f"{team.pk}:approver"], "seen": seen}
    assert browser.post(reverse("member-roles", args=[alice.pk]), body).status_code == 302
    assert list(alice.memberships.values_list("role", flat=True)) == ["approver"]
    stale = browser.post(reverse("member-roles", args=[alice.pk]), body)
    assert stale.status_code == 409
    assert "were changed meanwhile" in html(stale)


def test_boxes_all_unticked_throw_nobody_out(nadia: User, alice: User, signed_in: SignIn) -> None:
    theirs = Client()
    log_in(theirs, alice)
    browser = signed_in(nadia)
    for person, how in (
        (alice, "To take everything away, deactivate them."),
        (nadia, "To take everything away, ask another administrator of the whole organisation."),
    ):
        seen = re.search(r'name="seen" value="([^"]+)"', html(browser.get(reverse("member", args=[person.pk]))))[1]  # type: ignore[index]
        refused = browser.post(reverse("member-roles", args=[person.pk]), {"seen": seen})
        assert refused.status_code == 422
        assert "A member has at least one role. Nothing was changed." in html(refused)
        assert f"At least one role. {how}" in html(refused)
    assert list(alice.memberships.values_list("role", flat=True)) == ["builder"]
    assert list(nadia.memberships.values_list("role", flat=True)) == ["admin"]
    assert who(theirs) == str(alice.pk)


def test_an_administrator_of_a_team_takes_out_who_has_no_role_elsewhere_and_nobody_else(
    northwind: Organisation, team: Any, other_team: Any, bob: User, make_person: Any, signed_in: SignIn
) -> None:
    theirs, browser = Client(), signed_in(make_person("Tess", northwind, Role.ADMIN, team=team))
    ines = make_person("Ines", northwind, Role.BUILDER, Role.APPROVER, team=team)
    log_in(theirs, ines)
    Membership.objects.create(organisation=northwind, team=other_team, user=bob, role=Role.AUDITOR)

    def take_out(person: User, seen: str) -> int:
        return browser.post(reverse("member-operate", args=[person.pk, "take-out"]), {"seen": seen}).status_code

    def seen_of(person: User) -> str:
        shown = html(browser.get(reverse("member", args=[person.pk])))
        return re.search(r'name="seen" value="([^"]+)"', shown)[1]  # type: ignore[index]

    page = reverse("member", args=[ines.pk])
    refused = browser.post(reverse("member-roles", args=[ines.pk]), {"seen": seen_of(ines)})
    assert "To take everything away, press “Take out”." in html(refused)
    assert "Take out" not in html(browser.get(reverse("member", args=[bob.pk])))
    assert take_out(bob, seen_of(bob)) == 404
    assert bob.memberships.filter(organisation=northwind).exists()
    take_out(ines, "what somebody else saw")
    assert ines.memberships.count() == 2
    assert who(theirs) == str(ines.pk)
    assert take_out(ines, seen_of(ines)) == 302
    assert not ines.memberships.exists()
    assert browser.get(page).status_code == 404
    assert theirs.get(reverse("missions")).status_code != 200


@pytest.mark.parametrize(
    "held", ["all:owner", "nowhere:admin", "all", ":", "0190a000-0000-7000-8000-000000000000:admin"]
)
def test_roles_that_do_not_exist_are_refused(held: str, nadia: User, alice: User, signed_in: SignIn) -> None:
    body = {"held": [held], "seen": fingerprint(held_by_alice(nadia, alice))}
    assert signed_in(nadia).post(reverse("member-roles", args=[alice.pk]), body).status_code in (404, 422)
    assert list(alice.memberships.values_list("role", flat=True)) == ["builder"]


def held_by_alice(nadia: User, alice: User) -> Any:
    principal = services.principal_of_user(user=nadia)
    assert principal is not None
    return held_by(principal, alice.pk)


def test_nobody_raises_their_own_rights_on_the_page(nadia: User, signed_in: SignIn) -> None:
    browser = signed_in(nadia)
    seen = re.search(r'name="seen" value="([^"]+)"', html(browser.get(reverse("member", args=[nadia.pk]))))[1]  # type: ignore[index]
    response = browser.post(
        reverse("member-roles", args=[nadia.pk]), {"held": ["all:admin", "all:approver"], "seen": seen}
    )
    assert response.status_code == 403
    assert nadia.memberships.count() == 1


def test_deactivating_says_what_ends_and_signs_out(nadia: User, alice: User, signed_in: SignIn) -> None:
    theirs = Client()
    log_in(theirs, alice)
    browser = signed_in(nadia)
    page = html(browser.get(reverse("member", args=[alice.pk])))
    assert "Ends 1 session and 0 tokens at once" in page
    browser.post(reverse("member-operate", args=[alice.pk, "deactivate"]))
    assert who(theirs) is None
    assert "Deactivated" in html(browser.get(reverse("members")))
    again = Client()
    assert log_in(again, alice)["Location"] == reverse("account_inactive")
    assert who(again) is None
    browser.post(reverse("member-operate", args=[alice.pk, "reactivate"]))
    assert log_in(Client(), alice)["Location"] == "/"


def test_others_see_members_without_what_only_administrators_need(alice: User, dana: User, signed_in: SignIn) -> None:
    page = html(signed_in(alice).get(reverse("members")))
    assert "Dana" in page
    assert "Last seen" not in page
    assert "Second factor" not in page
    assert reverse("member", args=[dana.pk]) not in page


def test_members_cost_the_same_number_of_queries_however_many(
    nadia: User, northwind: Organisation, make_person: Callable[..., User], signed_in: SignIn, queries: Any
) -> None:
    browser = signed_in(nadia)
    few = queries(browser, reverse("members"))
    for number in range(20):
        make_person(f"P{number}", northwind, Role.AUDITOR)
    assert queries(browser, reverse("members")) == few


def test_the_roles_page_ticks_what_the_map_says(alice: User, signed_in: SignIn) -> None:
    from controlplane.tenancy.types import ROLE_PERMISSIONS

    page = html(signed_in(alice).get(reverse("roles")))
    body = page.split("<tbody>")[1].split("</tbody>")[0]
    rows = {re.search(r"<code>([^<]+)</code>", row)[1]: row for row in body.split("<tr>")[1:]}  # type: ignore[index]
    for permission in frozenset().union(*ROLE_PERMISSIONS.values()):
        ticks = ['aria-label="yes"' in cell for cell in rows[permission.value].split("<td")[1:]]
        assert ticks == [permission in ROLE_PERMISSIONS[role] for role in Role], permission
