"""The pages around a question: edit, claim, speak, identical ones, break-glass, settings, notices, mail links."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from agents.models import Mission
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.tenancy.models import Membership, Organisation, User
from controlplane.tenancy.types import Principal, Role
from governance import selectors, services
from governance.approval_models import ApprovalRoute, ApproverGroup, BreakGlass, Delegation, EscalationMessage
from governance.choices import ActionState, EscalationState
from governance.escalations.notifying import link_to
from governance.models import Action, Decision, Escalation, Vote

SignIn = Callable[..., Client]
HOSTILE = "=1+1<script>alert(1)</script>\x1b[31mred\u202egnp.exe"


def page(browser: Client, path: str, status: int = 200, **query: str) -> str:
    response = browser.get(path, query)
    assert response.status_code == status, (path, response.status_code)
    return str(response.content.decode())


def send(browser: Client, address: str, /, *arguments: Any, status: int = 302, **body: Any) -> str:
    response = browser.post(reverse(address, args=arguments), body)
    assert response.status_code == status, (address, response.status_code, response.content.decode()[:2000])
    return str(response.content.decode())


def facts() -> tuple[Any, ...]:
    return (
        list(Action.objects.order_by("id").values_list("id", "state")),
        list(Escalation.objects.order_by("id").values_list("id", "state", "version", "claimed_by")),
        Vote.objects.count(),
        Decision.objects.count(),
        EscalationMessage.objects.count(),
        BreakGlass.objects.count(),
    )


# Editing --------------------------------------------------------------------------------------------------------------


def edited(amount: str, do: str, **more: str) -> dict[str, str]:
    return {"arg0": amount, "arg1": "Delivered 9 days late", "arg2": "INV-0131", "do": do, "version": "1", **more}


def test_the_form_shows_the_verdict_before_anything_is_sent(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit("240.00")
    browser = signed_in(bob)
    html = page(browser, reverse("approval-edit", args=[escalation.pk]))
    assert 'value="240.00"' in html
    assert "Approve as edited" not in html
    before = facts()
    html = send(browser, "approval-edit", escalation.pk, status=200, **edited("150.00", "preview"))
    assert "What the gate would say" in html
    assert "&quot;240.00&quot;" in html
    assert "&quot;150.00&quot;" in html
    assert "Approve as edited" in html
    html = send(browser, "approval-edit", escalation.pk, status=200, **edited("900.00", "preview"))
    assert "Approve as edited" not in html
    assert "allowed only within limits" in html
    assert facts() == before


def test_sending_replaces_the_call_and_approves_it_once(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit("240.00")
    browser = signed_in(bob)
    send(browser, "approval-edit", escalation.pk, **edited("150.00", "send", reason="Half is enough"))
    made = Action.objects.get(replaces=escalation.action_id)
    assert (made.state, made.arguments["amount"]) == (ActionState.PERMITTED, "150.00")
    assert Vote.objects.get().reason == "Half is enough"
    html = page(browser, reverse("approval", args=[Escalation.objects.get(action=made).pk]))
    assert "A person changed what the agent asked for" in html
    before = facts()
    assert "can&#x27;t be edited" in send(
        browser, "approval-edit", escalation.pk, status=409, **edited("120.00", "send")
    )
    assert facts() == before


@pytest.mark.parametrize("amount", ["900.00", "-5.00", "", "abc", "1e9"])
def test_an_edit_that_the_gate_refuses_changes_nothing(world: Any, bob: User, signed_in: SignIn, amount: str) -> None:
    escalation = world.ask_credit("240.00")
    before = facts()
    html = send(signed_in(bob), "approval-edit", escalation.pk, status=422, **edited(amount, "send"))
    assert "The gate refuses it as edited" in html
    assert facts() == before


def test_whoever_may_not_decide_may_not_edit(
    world: Any, alice: User, finn: User, charlie: User, signed_in: SignIn
) -> None:
    escalation = world.ask_credit("240.00")
    before = facts()
    for person, status in ((alice, 403), (finn, 404), (charlie, 404)):
        browser = signed_in(person)
        page(browser, reverse("approval-edit", args=[escalation.pk]), status=status)
        send(browser, "approval-edit", escalation.pk, status=status, **edited("150.00", "send"))
    assert facts() == before


# Claiming, speaking ---------------------------------------------------------------------------------------------------


def test_a_claim_is_shown_to_others_who_can_take_over(world: Any, bob: User, dana: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit()
    first, second = signed_in(bob), signed_in(dana)
    send(first, "approval-claim", escalation.pk)
    assert "You are at work on this" in page(first, reverse("approval", args=[escalation.pk]))
    html = page(second, reverse("approval", args=[escalation.pk]))
    assert "is at work on this; their claim ends" in html
    assert "Bob is at work" in page(second, reverse("approvals"), tab="open")
    answer = {"answer": "approve", "version": "1"}
    assert "Bob is at work on this." in send(second, "approval-decide", escalation.pk, status=409, **answer)
    send(first, "approval-claim", escalation.pk, status=204, renew="1")
    send(second, "approval-claim", escalation.pk, take="over")
    send(second, "approval-decide", escalation.pk, **answer)
    escalation.refresh_from_db()
    assert escalation.state == EscalationState.APPROVED


def test_what_is_said_stands_beside_the_question_and_looks_like_what_it_is(
    world: Any, bob: User, signed_in: SignIn
) -> None:
    escalation = world.ask_credit()
    browser = signed_in(bob)
    send(browser, "approval-say", escalation.pk, text="Which delivery?", to="agent")
    send(browser, "approval-say", escalation.pk, text=HOSTILE, to="people")
    services.answer_question(principal=world.as_run, action_id=escalation.action_id, text=HOSTILE)
    html = page(browser, reverse("approval", args=[escalation.pk]))
    assert "Which delivery?" in html
    assert "The agent’s own words" in html
    assert "<script>alert" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    before = facts()
    assert "Write something." in send(browser, "approval-say", escalation.pk, status=422, text=" ")
    assert facts() == before


# Identical questions --------------------------------------------------------------------------------------------------


def test_identical_questions_are_grouped_and_answered_together(world: Any, bob: User, signed_in: SignIn) -> None:
    rows = [world.ask_credit(key=f"credit-{number}") for number in range(3)]
    browser = signed_in(bob)
    html = page(browser, reverse("approvals"))
    assert html.count("identical to the one above") == 2
    assert "Approve all 3, once each" in html
    send(browser, "approvals-decide", answer="approve", row=[f"{row.pk}:1" for row in rows])
    assert set(Escalation.objects.values_list("state", flat=True)) == {"approved"}
    assert "3 of 3 answered" in page(browser, reverse("approvals"))


def test_a_bulk_answer_with_one_other_row_decides_nothing(world: Any, bob: User, signed_in: SignIn) -> None:
    rows = [world.ask_credit(key="one"), world.ask_credit(key="two"), world.ask_credit("500.00")]
    before = facts()
    html = send(signed_in(bob), "approvals-decide", status=422, answer="approve", row=[f"{row.pk}:1" for row in rows])
    assert "These are not the same" in html
    for body in ({}, {"answer": "approve"}, {"answer": "approve", "row": "x"}, {"answer": "approve", "row": "1:1"}):
        send(signed_in(bob), "approvals-decide", status=422, **body)
    assert facts() == before


def test_the_inbox_is_filtered_by_its_address(world: Any, bob: User, signed_in: SignIn) -> None:
    world.ask_credit()
    browser = signed_in(bob)
    assert "Nothing fits these filters" in page(browser, reverse("approvals"), kind="budget.topup")
    for query in ({"kind": "tool.call"}, {"kind": "no.such"}, {"team": "x"}, {"group": HOSTILE}):
        assert "INV-0131" in page(browser, reverse("approvals"), **query)
    assert "Nothing fits these filters" in page(browser, reverse("approvals"), risk="irreversible")


# Break-glass ----------------------------------------------------------------------------------------------------------


def test_broken_glass_is_seen_by_all_until_another_person_reviewed_it(
    world: Any, nadia: User, bob: User, signed_in: SignIn
) -> None:
    escalation = world.ask_credit()
    admin = signed_in(nadia)
    assert "Break-glass" in page(admin, reverse("approval", args=[escalation.pk]))
    before = facts()
    send(admin, "approval-break-glass", escalation.pk, status=422, version="1", reason="urgent")
    assert facts() == before
    send(admin, "approval-break-glass", escalation.pk, version="1", reason="The payment run closes in five minutes.")
    broken = BreakGlass.objects.get()
    assert Action.objects.get(pk=escalation.action_id).state == ActionState.PERMITTED
    approver = signed_in(bob)
    strip = page(approver, reverse("missions")).split("Nadia broke the glass.")[1].split("</div>")[0]
    assert "It waits for your review." in strip
    assert f'<a href="{reverse("broken-glass")}#glass-{broken.pk}">Review it</a>' in strip
    send(admin, "broken-glass-review", broken.pk, status=403, verdict="justified", note="Fine.")
    send(approver, "broken-glass-review", broken.pk, status=422, verdict="maybe", note="Hm.")
    send(approver, "broken-glass-review", broken.pk, verdict="justified", note="It was an emergency.")
    broken.refresh_from_db()
    assert (broken.reviewed_by, broken.verdict) == (bob, "justified")
    assert "It was an emergency." in page(approver, reverse("broken-glass"))


def test_who_answers_for_a_mission_is_not_asked_to_review_its_broken_glass(
    world: Any, nadia: User, bob: User, signed_in: SignIn
) -> None:
    Mission.objects.update(owner=bob)
    escalation = world.ask_credit()
    send(signed_in(nadia), "approval-break-glass", escalation.pk, version="1", reason="The payment run closes now.")
    approver = signed_in(bob)
    shown = page(approver, reverse("broken-glass"))
    assert "so somebody else reviews it. Nobody may review it as things are" in shown
    assert "Record the review" not in shown
    assert "Nobody may review it as things are." in page(approver, reverse("home"))
    send(approver, "broken-glass-review", BreakGlass.objects.get().pk, status=403, verdict="justified", note="Fine.")
    assert BreakGlass.objects.get().reviewed_at is None


def test_whoever_may_not_review_is_told_who_may_and_offered_nothing_that_only_refuses(
    world: Any, alice: User, nadia: User, bob: User, dana: User, signed_in: SignIn
) -> None:
    admin, owner = signed_in(nadia), signed_in(alice)
    escalation = world.ask_credit()
    send(admin, "approval-break-glass", escalation.pk, version="1", reason="The payment run closes now.")
    for browser in (admin, owner):
        html = page(browser, reverse("broken-glass"))
        strip = html.split("Nadia broke the glass.")[1].split("</div>")[0]
        assert "It waits for the review of Bob or Dana." in strip
        assert ">Look at it</a>" in strip
        assert "It waits for the review of Bob or Dana." in html.split("<main")[1]
        assert "Record the review" not in html
    approver = signed_in(bob)
    body = {"verdict": "not_justified", "note": "Dana was there."}
    send(approver, "broken-glass-review", BreakGlass.objects.get().pk, **body)
    assert "It had not been used, and is withdrawn." in page(approver, reverse("broken-glass"))
    assert Action.objects.get(pk=escalation.action_id).state == ActionState.WITHDRAWN


def test_the_question_before_breaking_says_that_nobody_else_could_review_it(
    world: Any, nadia: User, bob: User, dana: User, signed_in: SignIn
) -> None:
    path = reverse("approval", args=[world.ask_credit().pk])
    browser = signed_in(nadia)
    assert 'id="glass-dialog"' in page(browser, path)
    assert "Nobody else could review it." not in page(browser, path)
    Mission.objects.update(owner=bob)
    Membership.objects.filter(user=dana).delete()
    path = reverse("approval", args=[world.ask_credit("250.00").pk])
    assert "Nobody else could review it." in page(browser, path).split('id="glass-dialog"')[1]


def test_approvers_do_not_break_the_glass(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit()
    browser = signed_in(bob)
    assert "glass-dialog" not in page(browser, reverse("approval", args=[escalation.pk]))
    before = facts()
    send(browser, "approval-break-glass", escalation.pk, status=403, version="1", reason="A very good reason, this.")
    assert facts() == before


# Settings -------------------------------------------------------------------------------------------------------------


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


# Being told, health ---------------------------------------------------------------------------------------------------


def test_the_bell_counts_and_opening_by_post_marks_as_read(
    world: Any, bob: User, as_bob: Principal, signed_in: SignIn
) -> None:
    escalation = world.ask_credit()
    services.tell_about(escalation.pk)
    browser = signed_in(bob)
    assert "Notices: 1 unread" in page(browser, reverse("home"))
    assert "Apply credit" in page(browser, reverse("notices-bell"))
    assert "Apply credit" in page(browser, reverse("notices"))
    assert selectors.count_unread(as_bob) == 1
    (notice,) = selectors.notices_of(as_bob)
    send(browser, "notices-read", notice=str(notice.pk), question=str(escalation.pk))
    assert selectors.count_unread(as_bob) == 0
    assert "unread" not in page(browser, reverse("home"))


def test_a_notice_whose_question_was_settled_by_others_waits_for_nobody(
    world: Any, as_dana: Any, bob: User, dana: User, signed_in: SignIn
) -> None:
    question = world.ask_credit()
    services.tell_about(question.pk)
    for path in ("notices", "notices-bell"):
        assert "Waits for you" in page(signed_in(bob), reverse(path))
    services.decide(approver=as_dana, escalation_id=question.pk, version=1, approve=True, reason="")
    for path in ("notices", "notices-bell"):
        html = page(signed_in(bob), reverse(path))
        assert "Approved" in html
        assert "Waits for you" not in html
        assert "unread" not in html


def test_the_part_that_is_the_bell_counts_for_its_viewer_alone(
    world: Any, alice: User, bob: User, dana: User, signed_in: SignIn
) -> None:
    services.tell_about(world.ask_credit().pk)
    for person in (bob, dana):
        html = page(signed_in(person), reverse("notices-count"))
        assert "Notices: 1 unread" in html
        assert f"person:{person.pk}" in html
    send(signed_in(bob), "notices-read")
    assert "unread" not in page(signed_in(bob), reverse("notices-count"))
    assert "Notices: 1 unread" in page(signed_in(dana), reverse("notices-count"))
    assert "unread" not in page(signed_in(alice), reverse("notices-count"))


def test_a_link_from_a_mail_opens_the_page_and_decides_nothing_whoever_fetches_it(
    world: Any, bob: User, dana: User, signed_in: SignIn, client: Client
) -> None:
    escalation = world.ask_credit()
    path = "/" + link_to(escalation.pk, bob.pk).partition("://")[2].partition("/")[2]
    before = facts()
    for browser in (client, signed_in(bob), signed_in(dana)):
        for method in (browser.get, browser.head):
            assert method(path).status_code == 302
        assert browser.post(path).status_code in (302, 405)
    assert signed_in(bob).get(path).headers["Location"] == reverse("approval", args=[escalation.pk])
    assert "sign-in" in client.get(path).headers["Location"] or "login" in client.get(path).headers["Location"]
    page(signed_in(bob), path + "x", status=404)
    assert facts() == before


def test_a_link_from_a_mail_opens_in_the_organisation_that_asks(
    world: Any, bob: User, dana: User, signed_in: SignIn, elsewhere: Organisation
) -> None:
    escalation = world.ask_credit()
    for user in (bob, dana):  # by name it comes first, and is where they begin
        Membership.objects.create(organisation=elsewhere, user=user, role=Role.APPROVER.value)
    path = "/" + link_to(escalation.pk, bob.pk).partition("://")[2].partition("/")[2]
    browser = signed_in(bob)
    page(browser, reverse("approval", args=[escalation.pk]), status=404)
    page(browser, browser.get(path).headers["Location"])
    somebody_else = signed_in(dana)
    page(somebody_else, somebody_else.get(path).headers["Location"], status=404)  # nobody's link moves another
    Membership.objects.filter(organisation=world.organisation, user=bob).delete()
    left = signed_in(bob)
    page(left, left.get(path).headers["Location"], status=404)


def test_health_shows_numbers_and_a_table_to_take_away(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit()
    browser = signed_in(bob)
    send(browser, "approval-decide", escalation.pk, answer="approve", version="1")
    User.objects.filter(pk=bob.pk).update(name="=HYPERLINK(1)")
    html = page(browser, reverse("approval-health"), days="7")
    assert "100 %" in html
    response = browser.get(reverse("approval-health"), {"format": "csv"})
    body = b"".join(response.streaming_content).decode()
    assert "'=HYPERLINK(1),1,1,1.000" in body


def test_an_edited_answer_took_as_long_as_the_question_was_open(
    world: Any, alice: User, bob: User, asked_before: Callable[[timedelta], None], signed_in: SignIn
) -> None:
    escalation, browser = world.ask_credit("240.00"), signed_in(bob)
    asked_before(timedelta(seconds=90))
    send(browser, "approval-edit", escalation.pk, **edited("150.00", "send"))
    html = page(browser, reverse("approval-health"))
    assert len(re.findall(r'data-label="Median time">1 min 3\d s<', html)) == 2  # of the person and of whom it asked
    assert 'data-label="In under 10 s">0<' in html
    assert re.search(r"after 1 min 3\d s", page(signed_in(alice), reverse("mission", args=[world.mission.pk])))


def test_lists_need_no_more_queries_for_more_questions(
    world: Any, nadia: User, bob: User, signed_in: SignIn, django_assert_max_num_queries: Any
) -> None:
    browser = signed_in(bob)
    world.ask_credit()
    page(browser, reverse("approvals"))
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as few:
        page(browser, reverse("approvals"))
    for number in range(12):
        world.ask_credit(f"{200 + number}.00")
    with CaptureQueriesContext(connection) as many:
        page(browser, reverse("approvals"))
    assert len(many) <= len(few) + 1
