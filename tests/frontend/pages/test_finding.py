"""Finding things again: the palette, saved views, CSV of every table, and taking back what was just done."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from agents.choices import AgentState, MissionState
from agents.models import Agent, McpServer, Mission, SavedView
from controlplane.audit.models import Entry
from controlplane.common.ids import new_id
from controlplane.tenancy import members
from controlplane.tenancy.models import Team, User
from controlplane.tenancy.types import Role
from governance.models import Action

from .browsing import SignIn, page


def found(browser: Client, text: str) -> str:
    response = browser.get(
        reverse("search"), {"q": text}, headers={"HX-Request": "true", "HX-Target": "palette-results"}
    )
    assert response.status_code == 200
    return str(response.content.decode())


def table(browser: Client, path: str) -> list[dict[str, str]]:
    response = browser.get(path)
    assert response["Content-Type"].startswith("text/csv"), path
    text = b"".join(response.streaming_content).decode()  # type: ignore[attr-defined]
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chase", ["Chase overdue invoices", "mission"]),
        ("clerk", ["agent"]),
        ("credit", ["call of Chase overdue invoices, <time", "question, open of Chase overdue invoices, <time"]),
        ("INV-0131", ["question, open"]),
        ("books", ["server, books__"]),
        ("dana", ["Dana", "person"]),
    ],
)
def test_the_palette_finds_each_kind_of_thing(
    world: Any, nadia: User, dana: User, signed_in: SignIn, text: str, words: list[str]
) -> None:
    world.ask_credit()
    html = found(signed_in(nadia), text)
    for word in words:
        assert word in html, (text, word)


def test_what_is_named_so_comes_first(world: Any, nadia: User, signed_in: SignIn, make_server: Any) -> None:
    for index in range(6):
        make_server(f"a{index}_credits", ("one",))
        world.ask_credit(f"{250 + index}.00")
    for slug in ("credit", "credit_notes"):
        server = make_server(slug, ("one",))
        McpServer.objects.filter(pk=server.pk).update(name=slug.title().replace("_", " "))
    labels = re.findall(r"</svg>([^<]+)<span", found(signed_in(nadia), "CREDIT"))
    assert labels[:2] == ["Credit", "Credit Notes"]
    assert labels[2].startswith("Apply credit")


def test_a_mission_that_is_called_so_is_found_behind_newer_ones(world: Any, nadia: User, signed_in: SignIn) -> None:
    Mission.objects.filter(pk=world.mission.pk).update(title="Credits")
    for month in range(6):
        newer = Mission.objects.get(pk=world.mission.pk)
        newer.pk, newer.title, newer.account_id = new_id(), f"Credits of month {month}", None
        newer.save(force_insert=True)
    labels = re.findall(r"</svg>([^<]+)<span", found(signed_in(nadia), "credits"))
    assert labels[:2] == ["Credits", "Credits of month 5"]


def test_the_palette_finds_by_whole_id(world: Any, nadia: User, signed_in: SignIn) -> None:
    question = world.ask_credit()
    browser = signed_in(nadia)
    for row, name in ((question, "approval"), (question.action, "action"), (world.server, "server")):
        assert reverse(name, args=[row.pk]) in found(browser, str(row.pk))


def test_the_palette_shows_nothing_of_what_one_may_not_see(
    world: Any, charlie: User, finn: User, dana: User, signed_in: SignIn
) -> None:
    question = world.ask_credit()
    for text in ("chase", "clerk", "credit", "books", "dana", str(question.pk), str(world.mission.pk)):
        assert 'role="option"' not in found(signed_in(charlie), text), text
    assert "question" not in found(signed_in(finn), "credit")


def test_the_palette_costs_the_same_however_much_there_is(
    world: Any, nadia: User, signed_in: SignIn, queries: Callable[..., int], make_server: Any
) -> None:
    browser, path = signed_in(nadia), reverse("search") + "?q=e"
    world.ask_credit()
    few = queries(browser, path + "r")
    for index in range(8):
        make_server(f"server{index}", ("one",))
        world.ask_credit(f"{250 + index}.00")
        world.draft(f"Another {index}")
    assert queries(browser, path + "r") <= few <= 19  # names of missions, beside those found, included


def test_a_view_is_saved_shown_shared_and_removed_and_brought_back(
    world: Any, alice: User, bob: User, dana: User, charlie: User, team: Any, signed_in: SignIn
) -> None:
    browser, missions = signed_in(alice), reverse("missions")
    assert "Save this view" not in browser.get(missions).content.decode()
    body = {"name": "  Running   now ", "query": "?state=active&cursor=abc&format=csv", "team": str(team.pk)}
    response = browser.post(reverse("view-save", args=["missions"]), body)
    assert response["Location"] == f"{missions}?state=active"
    view = SavedView.objects.get()
    assert (view.name, view.query) == ("Running now", "state=active")
    assert "Running now" in signed_in(bob).get(missions).content.decode()
    assert "Running now" not in signed_in(charlie).get(missions).content.decode()
    assert signed_in(bob).post(reverse("view-remove", args=[view.pk])).status_code == 404
    html = browser.post(reverse("view-remove", args=[view.pk]), follow=True).content.decode()
    assert not SavedView.objects.exists()
    assert 'name="query" value="state=active"' in html
    browser.post(reverse("view-save", args=["missions"]), {"name": "Mine", "query": "mine=1"})
    assert "Mine" in browser.get(missions).content.decode()
    assert (
        '<a class="chip" href="/missions?mine=1">Mine</a></span>' not in signed_in(bob).get(missions).content.decode()
    )


def test_what_a_team_sees_of_a_view_is_in_the_trail(world: Any, alice: User, team: Team, signed_in: SignIn) -> None:
    browser, path = signed_in(alice), reverse("view-save", args=["missions"])
    browser.post(path, {"name": "Mine", "query": "mine=1"})
    browser.post(reverse("view-remove", args=[SavedView.objects.get().pk]))
    assert not Entry.objects.filter(subject_type="view").exists()  # it was nobody else's
    browser.post(path, {"name": "Running", "query": "state=active", "team": str(team.pk)})
    browser.post(reverse("view-remove", args=[SavedView.objects.get().pk]))
    shared, unshared = Entry.objects.filter(subject_type="view").order_by("pk")
    assert (shared.event, unshared.event) == ("view.shared", "view.unshared")
    assert (shared.actor_name, shared.subject_name, shared.team_id) == ("Alice", "Running", team.pk)
    assert shared.payload == {"list": "missions", "team": team.name, "filters": "state=active"}


def test_a_shared_view_is_removed_by_who_gives_roles_in_its_team_and_by_nobody_else(
    world: Any,
    nadia: User,
    alice: User,
    bob: User,
    charlie: User,
    as_nadia: Any,
    team: Team,
    other_team: Team,
    make_person: Any,
    signed_in: SignIn,
) -> None:
    lead, other_lead = (
        make_person(name, world.organisation, Role.ADMIN, team=where)
        for name, where in (("Tea", team), ("Ole", other_team))
    )
    list_path = reverse("missions") + "?state=active"
    for shared_with in (str(team.pk), ""):
        signed_in(bob).post(
            reverse("view-save", args=["missions"]), {"name": "Bobs", "query": "state=active", "team": shared_with}
        )
        view = SavedView.objects.get()
        members.deactivate(principal=as_nadia, user_id=bob.pk)
        path = reverse("view-remove", args=[view.pk])
        refused = (alice, charlie, other_lead) if shared_with else (alice, charlie, lead, nadia)
        for person in refused:
            assert path not in signed_in(person).get(list_path).content.decode()
            assert signed_in(person).post(path).status_code == 404
        assert SavedView.objects.count() == 1
        if shared_with:
            assert path in signed_in(lead).get(list_path).content.decode()
            assert signed_in(lead).post(path).status_code == 302
            assert not SavedView.objects.exists()
            told = Entry.objects.get(event="view.unshared")
            assert (told.actor_name, told.subject_name, told.team_id) == ("Tea", "Bobs", team.pk)
            members.reactivate(principal=as_nadia, user_id=bob.pk)


def test_what_others_share_does_not_hide_ones_own_view(
    world: Any, alice: User, bob: User, nadia: User, team: Team, signed_in: SignIn
) -> None:
    shared = {"organisation": world.organisation, "list": "missions", "team": team}
    SavedView.objects.bulk_create(
        SavedView(owner=owner, name=f"A {number:02}", query=f"q={number}", **shared)
        for owner in (bob, nadia)
        for number in range(30)
    )
    browser = signed_in(alice)
    browser.post(reverse("view-save", args=["missions"]), {"name": "Zuletzt", "query": "q=zz"})
    html = browser.get(reverse("missions") + "?q=zz").content.decode()
    assert html.index("Zuletzt") < html.index("A 00")
    assert "Remove the view Zuletzt" in html


@pytest.mark.parametrize(
    "body",
    [
        {"name": "", "query": "state=active"},
        {"name": "x" * 41, "query": "state=active"},
        {"name": "No filter", "query": "cursor=abc"},
        {"name": "Long", "query": "q=" + "x" * 900},
        {"name": "Taken", "query": "q=1"},
        {"name": "Theirs", "query": "q=1", "team": "0190a000-0000-7000-8000-000000000000"},
    ],
)
def test_a_view_that_can_not_be_is_refused(world: Any, alice: User, signed_in: SignIn, body: dict[str, str]) -> None:
    browser, path = signed_in(alice), reverse("view-save", args=["missions"])
    browser.post(path, {"name": "Taken", "query": "q=0"})
    browser.post(path, body)
    assert SavedView.objects.count() == 1
    assert browser.post(reverse("view-save", args=["budgets"]), {"name": "x", "query": "a=b"}).status_code == 404


def test_every_list_comes_as_a_table_without_formulas(world: Any, nadia: User, signed_in: SignIn) -> None:
    hostile = "=HYPERLINK(1)"
    Mission.objects.filter(pk=world.mission.pk).update(title=hostile)
    Agent.objects.filter(pk=world.agent.pk).update(name=" +cmd|' /C calc'!A0")
    McpServer.objects.filter(pk=world.server.pk).update(name="@SUM(1)")
    question = world.ask_credit(reason=hostile)
    browser = signed_in(nadia)
    assert table(browser, reverse("missions") + "?format=csv")[0]["title"] == f"'{hostile}"
    assert table(browser, reverse("agents") + "?format=csv")[0]["name"].startswith("' +cmd")
    assert "'@SUM(1)" in [row["name"] for row in table(browser, reverse("servers") + "?format=csv")]
    assert table(browser, reverse("approvals-csv"))[0]["id"] == str(question.pk)
    actions = table(browser, reverse("mission-actions-csv", args=[world.mission.pk]))
    assert actions[0]["id"] == str(question.action_id)
    assert "amount=240.00" in actions[0]["arguments"]


def test_the_table_of_questions_holds_what_the_page_was_narrowed_to(world: Any, nadia: User, signed_in: SignIn) -> None:
    question = world.ask_credit()
    browser = signed_in(nadia)
    assert f'href="{reverse("approvals-csv")}"' in browser.get(reverse("approvals")).content.decode()
    for narrowed, number in (("kind=tool.call", 1), ("kind=mission.sign_off", 0), (f"team={question.team_id}", 1)):
        page = browser.get(f"{reverse('approvals')}?tab=open&{narrowed}").content.decode()
        path = unescape(page.split(f'href="{reverse("approvals-csv")}')[1].split('"')[0])
        assert narrowed in path
        assert len(table(browser, reverse("approvals-csv") + path)) == number, narrowed


def test_money_in_a_table_has_no_exponent(world: Any, nadia: User, signed_in: SignIn) -> None:
    world.ask_credit()
    Action.objects.update(price=Decimal("0.0000001"), cost=Decimal(0))
    row, *_ = table(signed_in(nadia), reverse("mission-actions-csv", args=[world.mission.pk]))
    assert (row["price"], row["cost"]) == ("0.0000001", "0.00")


def test_a_table_of_another_organisation_is_empty_or_not_there(world: Any, charlie: User, signed_in: SignIn) -> None:
    world.ask_credit()
    browser = signed_in(charlie)
    for path in (reverse("agents") + "?format=csv", reverse("servers") + "?format=csv", reverse("approvals-csv")):
        assert table(browser, path) == []
    assert browser.get(reverse("mission-actions-csv", args=[world.mission.pk])).status_code == 404


def test_servers_are_sorted_by_their_heads(world: Any, nadia: User, signed_in: SignIn, make_server: Any) -> None:
    make_server("alpha", ("one",))
    make_server("zeta", ("one",))
    browser = signed_in(nadia)
    names = [row["short_name"] for row in table(browser, reverse("servers") + "?format=csv&sort=-name")]
    assert names == sorted(names, reverse=True)
    assert 'aria-sort="descending"' in browser.get(reverse("servers") + "?sort=-name").content.decode()
    assert browser.get(reverse("servers") + "?sort=nonsense").status_code == 200


def test_switching_off_pausing_and_retiring_offer_to_be_taken_back(
    world: Any, alice: User, signed_in: SignIn, make_agent: Any
) -> None:
    McpServer.objects.filter(pk=world.server.pk).update(team_ids=[world.team.pk])
    browser = signed_in(alice)
    off = browser.post(reverse("server-switch", args=[world.server.pk]), {"on": "0"}, follow=True).content.decode()
    assert "Undo" in off
    browser.post(reverse("server-switch", args=[world.server.pk]), {"on": "1"})
    paused = browser.post(reverse("mission-operate", args=[world.mission.pk, "pause"]), follow=True).content.decode()
    resume = reverse("mission-operate", args=[world.mission.pk, "resume"])
    assert f'action="{resume}"' in paused
    browser.post(resume)
    assert Mission.objects.get(pk=world.mission.pk).state == MissionState.ACTIVE
    idle = make_agent("Idle")
    html = browser.post(reverse("agent-retire", args=[idle.pk]), follow=True).content.decode()
    assert f'action="{reverse("agent-reinstate", args=[idle.pk])}"' in html
    browser.post(reverse("agent-reinstate", args=[idle.pk]))
    idle.refresh_from_db()
    assert idle.state == AgentState.ACTIVE


def test_who_may_not_write_agents_brings_none_back(
    world: Any, bob: User, charlie: User, signed_in: SignIn, make_agent: Any
) -> None:
    retired = make_agent("Gone", state=AgentState.RETIRED)
    for person in (bob, charlie):
        assert signed_in(person).post(reverse("agent-reinstate", args=[retired.pk])).status_code == 404
    retired.refresh_from_db()
    assert retired.state == AgentState.RETIRED


def test_search_finds_by_name_and_id(busy: Any, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    action = Action.objects.filter(tool="books__overdue").get()
    for text, url in (
        ("chase", reverse("mission", args=[busy.mission.pk])),
        ("CLERK", reverse("agent", args=[busy.agent.pk])),
        (str(busy.mission.pk), reverse("mission", args=[busy.mission.pk])),
        (str(action.pk), reverse("action", args=[action.pk])),
        ("overdue", reverse("action", args=[action.pk])),
    ):
        part = browser.get(
            reverse("search"), {"q": text}, headers={"HX-Request": "true", "HX-Target": "palette-results"}
        )
        assert f'<a href="{url}" role="option"' in part.content.decode(), text
    assert "holds a NUL character" in page(browser, reverse("search") + "?q=c%00", 400)
