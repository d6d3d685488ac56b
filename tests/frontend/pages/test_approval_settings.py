"""The settings of approvals: groups, routes and who stands in; changed where they stand, over nobody else's change."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from django.urls import reverse

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.tenancy.models import Membership, User
from controlplane.tenancy.types import Principal
from governance import services
from governance.approval_models import ApprovalRoute, ApproverGroup, Delegation

from .browsing import SignIn, page, send


def test_groups_routes_and_delegations_are_made_tried_and_ended(
    world: Any, nadia: User, bob: User, dana: User, signed_in: SignIn
) -> None:
    admin = signed_in(nadia)
    send(admin, "approval-group-save", name="Directors", members=[str(dana.pk)])
    group = ApproverGroup.objects.get()
    send(
        admin,
        "approval-route-save",
        name="Large credits",
        kind="tool.call",
        amount_above="200.00",
        amount_argument="amount",
        asks=str(group.pk),
        needed="1",
        answer="2",
        answer_unit="hours",
    )
    route = ApprovalRoute.objects.get()
    assert (route.answer_seconds, route.group) == (7200, group)
    html = page(
        admin, reverse("settings-approvals"), kind="tool.call", team=str(world.team.pk), amount="240", irreversible=""
    )
    assert "it takes this one" in html
    assert "not above 200.00" in page(
        admin, reverse("settings-approvals"), kind="tool.call", team=str(world.team.pk), amount="100"
    )
    escalation = world.ask_credit("240.00")
    browser = signed_in(bob)
    assert "you are not in it" in page(browser, reverse("approval", args=[escalation.pk]))
    assert "Nothing waits for you" in page(browser, reverse("approvals"))
    tomorrow = (now() + timedelta(days=1)).date().isoformat()
    away = signed_in(dana)
    today = now().date().isoformat()
    send(away, "delegation-save", to_user=str(bob.pk), **{"from": today, "until": tomorrow})
    assert "Approve once" in page(browser, reverse("approval", args=[escalation.pk]))
    send(browser, "delegation-save", do="end", delegation=str(Delegation.objects.get().pk))
    assert "you are not in it" in page(browser, reverse("approval", args=[escalation.pk]))
    send(admin, "approval-route-save", do="remove", route=str(route.pk))
    send(admin, "approval-group-save", do="retire", group=str(group.pk))
    assert "No groups" in page(admin, reverse("settings-approvals"))


def fields_of(html: str) -> dict[str, str]:
    """What a browser would send of a route's form as it stands."""
    form = html.split('<form class="body form"')[1].split("</form>")[0]
    fields = dict(re.findall(r'<input[^>]* name="([a-z_]+)"[^>]* value="([^"]*)"', form))
    for name, options in re.findall(r'<select[^>]* name="([a-z_]+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r'<option(?: value="([^"]*)")? selected>([^<]*)', options)
        fields[name] = (chosen[1] if chosen[1] is not None else chosen[2]) if chosen else ""
    return {name: value for name, value in fields.items() if name not in ("csrfmiddlewaretoken", "only_irreversible")}


@pytest.fixture
def large(as_nadia: Principal, dana: User) -> ApprovalRoute:
    """A route with something in every field."""
    desk = services.save_group(actor=as_nadia, name="Directors", member_ids=[dana.pk])
    route = services.Route(
        name="Large credits",
        kind="tool.call",
        amount_above=Decimal("200.50"),
        amount_argument="amount",
        group_id=desk.pk,
        answer_seconds=7200,
        next_seconds=90,
    )
    return services.save_route(actor=as_nadia, route=route)


def route_facts() -> list[Any]:
    return list(ApprovalRoute.objects.values_list("name", "amount_above", "needed", "position", "next_seconds"))


def test_a_route_is_changed_where_it_stands_and_says_what_it_was(
    world: Any, nadia: User, large: ApprovalRoute, signed_in: SignIn
) -> None:
    admin, path = signed_in(nadia), reverse("approval-route", args=[large.pk])
    assert path in page(admin, reverse("settings-approvals"))
    fields = fields_of(page(admin, path))
    assert (fields["amount_above"], fields["answer"], fields["answer_unit"]) == ("200.5", "2", "hours")
    assert (fields["next"], fields["next_time"], fields["next_time_unit"]) == ("any", "90", "seconds")
    before = ApprovalRoute.objects.values().get()
    send(admin, "approval-route", large.pk, **fields)
    assert ApprovalRoute.objects.values().get() == before, "sent as it stands, nothing is different"
    later = fields_of(page(admin, path)) | {"name": "Dear credits", "amount_above": "300"}
    send(admin, "approval-route", large.pk, **later)
    large.refresh_from_db()
    assert (large.name, large.amount_above, large.position) == ("Dear credits", 300, before["position"])
    told = Entry.objects.filter(event="approval_route.changed", subject_id=large.pk).latest("id")
    assert "“amount” above 300.00 asks Directors" in told.payload["route"]


def test_what_somebody_else_changed_meanwhile_is_shown_and_not_overwritten(
    world: Any, nadia: User, dana: User, as_nadia: Principal, large: ApprovalRoute, signed_in: SignIn
) -> None:
    admin = signed_in(nadia)
    mine = fields_of(page(admin, reverse("approval-route", args=[large.pk]))) | {"name": "Mine"}
    theirs = services.Route(name="Theirs", kind="tool.call", amount_above=Decimal(900))
    services.save_route(actor=as_nadia, route=theirs, route_id=large.pk)
    before = route_facts()
    for stale in (mine, {**mine, "seen": ""}):
        html = send(admin, "approval-route", large.pk, status=412, **stale)
        assert "Somebody changed the route “Theirs” since you read it." in html
        assert "with an amount above 900.00 USD asks any approver of the team" in html
        assert 'value="Mine"' in html
        assert route_facts() == before
    send(admin, "approval-route", large.pk, **fields_of(html))
    assert ApprovalRoute.objects.get().name == "Mine"
    group = ApproverGroup.objects.get()
    stale_group = {"group": str(group.pk), "name": "Mine", "members": str(dana.pk), "seen": "0" * 16}
    assert "Somebody changed the group" in send(admin, "approval-group-save", status=412, **stale_group)
    group.refresh_from_db()
    assert group.name == "Directors"


def test_a_group_saved_on_its_page_stays_with_its_team(
    world: Any, nadia: User, dana: User, as_nadia: Principal, signed_in: SignIn
) -> None:
    group = services.save_group(actor=as_nadia, name="Desk", member_ids=[dana.pk], team_id=world.team.pk)
    admin = signed_in(nadia)
    html = page(admin, reverse("settings-approvals"))
    form = html[html.index(f'name="group" value="{group.pk}"') :].partition("</form>")[0]
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))
    send(admin, "approval-group-save", group=str(group.pk), name="Night desk", members=[str(dana.pk)], **hidden)
    group.refresh_from_db()
    assert (group.name, group.team_id) == ("Night desk", world.team.pk)


def test_a_route_is_changed_by_administrators_of_its_organisation_alone(
    world: Any, large: ApprovalRoute, alice: User, bob: User, finn: User, charlie: User, signed_in: SignIn
) -> None:
    before = route_facts()
    body = {"name": "Mine", "needed": "1", "seen": services.version_of_route(large)}
    for person, status in ((alice, 403), (bob, 403), (finn, 403), (charlie, 404)):
        browser = signed_in(person)
        page(browser, reverse("approval-route", args=[large.pk]), status=status)
        send(browser, "approval-route", large.pk, status=status, **body)
    assert "Change</a>" not in page(signed_in(bob), reverse("settings-approvals"))
    assert route_facts() == before
    assert not Entry.objects.filter(event="approval_route.changed", actor_id=bob.pk).exists()


def test_a_route_that_makes_no_sense_keeps_what_was_typed(
    world: Any, nadia: User, large: ApprovalRoute, signed_in: SignIn
) -> None:
    admin, before = signed_in(nadia), route_facts()
    fields = fields_of(page(admin, reverse("approval-route", args=[large.pk])))
    html = send(admin, "approval-route", large.pk, status=422, **{**fields, "needed": "5", "name": "Five of one"})
    assert "The group has 1" in html
    assert fields_of(html)["name"] == "Five of one"
    assert route_facts() == before


@pytest.mark.parametrize("address", ["approval-route-save", "approval-route"])
def test_what_is_wrong_with_a_route_stands_beside_its_field(
    world: Any, nadia: User, large: ApprovalRoute, signed_in: SignIn, address: str
) -> None:
    arguments = [large.pk] if address == "approval-route" else []
    body = {
        "name": "Dear",
        "needed": "1",
        "amount_above": "abc",
        "answer": "",
        "seen": services.version_of_route(large),
    }
    html = send(signed_in(nadia), address, *arguments, status=422, **body)
    field = html.split('<label for="route-above">')[1].split("<label")[0]
    assert 'aria-invalid="true" aria-describedby="route-above-error"' in field
    assert 'id="route-above-error"' in field
    assert "An amount such as 5.00" in field
    assert html.count('aria-invalid="true"') == 1
    assert "Amount above" not in html


@pytest.mark.parametrize(
    ("changed", "labels", "said"),
    [
        ({"until": "2026-01-01"}, ["Last day"], "After it starts, and not in the past."),
        ({"until": "2099-01-01"}, ["Last day"], "At most 90 days later."),
        ({"from": "soon", "until": "later"}, ["First day", "Last day"], "A day."),
        ({"to_user": "herself", "until": "2026-01-01"}, ["Who", "Last day"], "Somebody else."),
        ({"to_user": ""}, ["Who"], "A person with the approver's role: standing in gives no role."),
    ],
)
def test_what_is_wrong_with_standing_in_stands_beside_its_field(
    world: Any, nadia: User, dana: User, signed_in: SignIn, changed: dict[str, str], labels: list[str], said: str
) -> None:
    today = now().date().isoformat()
    body = {"from_user": str(nadia.pk), "to_user": str(dana.pk), "from": today, "until": today, **changed}
    body["to_user"] = str(nadia.pk) if body["to_user"] == "herself" else body["to_user"]
    html = send(signed_in(nadia), "delegation-save", status=422, **body)
    form = html.split("Let somebody stand in")[1].split("</form>")[0]
    fields = [part for part in form.split("<label ")[1:] if 'aria-invalid="true"' in part]
    assert [field.split(">")[1].split("<")[0] for field in fields] == labels
    assert said in unescape(fields[0])
    for service_name in ("Ends at", "To user", "From user"):
        assert service_name not in html
    assert not Delegation.objects.exists()


def test_the_same_two_stand_in_once_for_the_same_days(
    world: Any, nadia: User, dana: User, bob: User, signed_in: SignIn
) -> None:
    admin, today = signed_in(nadia), now().date()

    def sent(first: int, last: int, who: User = dana, status: int = 302) -> str:
        days = {"from": (today + timedelta(first)).isoformat(), "until": (today + timedelta(last)).isoformat()}
        body = {"from_user": str(nadia.pk), "to_user": str(who.pk), **days}
        return send(admin, "delegation-save", status=status, **body)

    def day(ahead: int) -> str:
        moment = today + timedelta(ahead)
        return f"{moment.day} {moment:%B %Y}"

    sent(2, 4)
    for first, last in ((2, 4), (0, 2), (4, 9), (3, 3)):
        html = sent(first, last, status=409)
        assert f"Dana stands in for Nadia already, from {day(2)} until {day(4)}." in html
        assert "End that first, or choose other days." in html
    assert Delegation.objects.count() == 1
    sent(5, 9)
    sent(0, 1)
    rows = page(admin, reverse("settings-approvals")).split('id="delegations"')[1]
    assert "begins <time" in rows
    assert ", ends <time" in rows
    assert "counts for nothing" not in page(admin, reverse("settings-approvals"))
    Membership.objects.filter(user=dana).update(suspended_at=now())
    assert page(admin, reverse("settings-approvals")).count("one of the two is no approver now") == 3
    Membership.objects.filter(user=dana).update(suspended_at=None)
    sent(2, 4, who=bob)
    for row in Delegation.objects.all():
        send(admin, "delegation-save", do="end", delegation=str(row.pk))
    sent(0, 9)


def test_who_may_stand_in_is_chosen_among_the_others(world: Any, nadia: User, bob: User, signed_in: SignIn) -> None:
    def offered(user: User) -> list[str]:
        html = page(signed_in(user), reverse("settings-approvals"))
        listed = html.split('<select id="stand-in"')[1].split("</select>")[0]
        return re.findall(r"<option[^>]*>([^<]+)</option>", listed)

    assert offered(bob) == ["Choose a person", "Nadia"]
    assert offered(nadia) == ["Choose a person", "Bob", "You, for somebody else"]


def test_a_route_that_nobody_could_ever_satisfy_says_so_when_it_is_saved_and_in_the_list(
    world: Any, nadia: User, bob: User, dana: User, as_nadia: Principal, signed_in: SignIn
) -> None:
    admin, path = signed_in(nadia), reverse("settings-approvals")
    few = "5 approvals are needed, but only 3 people can give them: each such question ends refused at its deadline."
    send(admin, "approval-route-save", name="Five", needed="5", amount_above="1")
    html = page(admin, path)
    assert html.count(few) == 2
    assert "Every action with an amount above 1.00 USD asks 5 approvers of the team." in html
    assert page(admin, path).count(few) == 1
    five = ApprovalRoute.objects.get()
    send(admin, "approval-route", five.pk, name="Five", needed="3", seen=services.version_of_route(five))
    desk = services.save_group(actor=as_nadia, name="Desk", member_ids=[bob.pk, dana.pk])
    html = page(admin, path)
    assert "ends refused" not in html
    send(admin, "approval-route-save", name="Two", needed="2", asks=str(desk.pk))
    html = page(admin, path)
    assert "asks Desk for 2 approvals." in html
    assert "ends refused" not in html
    Membership.objects.filter(user=dana).delete()
    html = page(admin, path)
    assert "2 approvals are needed, but only 1 person can give them" in html


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("approval-route-save", {"name": "X", "needed": "two"}),
        ("approval-route-save", {"name": "", "needed": "1"}),
        ("approval-route-save", {"name": "X", "needed": "1", "amount_above": "much"}),
        ("approval-route-save", {"name": "X", "needed": "1", "answer": "5", "answer_unit": "years"}),
        ("approval-group-save", {"name": "X"}),
        ("approval-group-save", {"name": "X", "members": "not-an-id"}),
        ("delegation-save", {"from": "soon", "until": "later"}),
        ("delegation-save", {"from": "2026-01-01", "until": "9999-12-31"}),
    ],
)
def test_what_makes_no_sense_is_said_beside_its_form(
    world: Any, nadia: User, signed_in: SignIn, name: str, body: dict[str, str]
) -> None:
    html = send(signed_in(nadia), name, status=422, **body)
    assert 'role="alert"' in html
    assert [model.objects.count() for model in (ApprovalRoute, ApproverGroup, Delegation)] == [0, 0, 0]


def test_approvers_see_the_settings_and_change_nothing_of_them(
    world: Any, bob: User, finn: User, signed_in: SignIn
) -> None:
    browser = signed_in(bob)
    assert "New route" not in page(browser, reverse("settings-approvals"))
    send(browser, "approval-route-save", status=403, name="Mine", needed="1")
    send(browser, "approval-group-save", status=403, name="Mine", members=[str(bob.pk)])
    page(signed_in(finn), reverse("settings-approvals"), status=403)
    assert [model.objects.count() for model in (ApprovalRoute, ApproverGroup)] == [0, 0]
