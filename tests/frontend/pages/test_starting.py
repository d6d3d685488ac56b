"""Starting a mission: what stands above its budget, what became of it, and samples that are still being installed."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.catalogue import start_from_template
from agents.choices import MissionState, ServerState
from agents.models import Agent, McpServer, McpTool, Mission, Run
from budgets import services as budgets
from budgets.types import Limits, WindowKind
from controlplane.audit.models import Entry
from controlplane.common import installing
from controlplane.common.canonical import digest
from controlplane.common.errors import RemitError
from controlplane.common.installing import Installing
from controlplane.tenancy.models import Membership, Organisation, Team, User
from controlplane.tenancy.types import Principal, Role
from governance import gate, proposing

SignIn = Callable[..., Client]
NEW = "/missions/new"


def page(browser: Client, path: str) -> str:
    response = browser.get(path)
    assert response.status_code == 200, path
    return html.unescape(re.sub(r"<[^>]+>", "", str(response.content.decode())))


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(project.CONFIG, "state_dir", tmp_path)
    return tmp_path


def test_the_form_names_the_sign_off_limit_and_what_the_team_has(world: Any, alice: User, signed_in: SignIn) -> None:
    text = page(signed_in(alice), NEW)
    assert "Above $5.00 a second person signs it off." in text
    assert re.search(f"The team {world.team.name} has .100.00 a month.*: no mission of it can spend more", text)


def test_usual_costs_are_in_the_currency_of_the_organisation(world: Any, alice: User, signed_in: SignIn) -> None:
    assert "usually about $0.90" in page(signed_in(alice), NEW)
    Organisation.objects.filter(pk=world.organisation.pk).update(currency="EUR")
    text = page(signed_in(alice), NEW)
    assert "usually about 0.90 EUR" in text
    assert "usually about 0.01 EUR a call" in text
    assert "$" not in text


def test_what_was_refused_goes_along_to_another_template_without_script_too(
    world: Any, alice: User, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    typed = {
        "template": "receivables",
        "title": "Month <end>",
        "budget": "3.30",
        "hours": "99999",
        "importance": "normal",
    }
    refused = browser.post(NEW, {**typed, "draft": "1"})
    assert refused.status_code == 422
    link = re.search(r'href="(\?template=bring-your-own[^"]*)"', refused.content.decode())
    assert link is not None
    shown = browser.get(NEW + html.unescape(link[1])).content.decode()
    assert 'value="Month &lt;end&gt;"' in shown
    assert 'value="3.30"' in shown
    assert "importance" not in link[1]
    assert not Mission.objects.exclude(pk=world.mission.pk).exists()


def test_the_words_beside_the_form_tell_of_the_budget_that_is_typed(world: Any, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    first = page(browser, NEW)
    assert re.search(r"At most .5\.00, \d+ steps and [\d,]+ tokens\.", first)
    assert "It starts when" not in first
    said = r"At most .7\.00, .* tokens\. It starts when a second person has signed it off, as above .5\.00\."
    assert re.search(said, page(browser, f"{NEW}?template=receivables&budget=7"))
    posted = browser.post(NEW, {"template": "receivables", "budget": "7", "hours": "99999", "draft": "1"})
    assert re.search(said, html.unescape(re.sub(r"<[^>]+>", "", posted.content.decode())))
    assert "At most $5.00, " in page(browser, f"{NEW}?template=receivables&budget=1e3")


def test_the_limits_beside_the_budget_stay_when_something_is_wrong(world: Any, alice: User, signed_in: SignIn) -> None:
    answer = signed_in(alice).post(NEW, {"template": "receivables", "hours": "99999", "draft": "1"})
    text = html.unescape(answer.content.decode())
    assert answer.status_code == 422
    assert "Above $5.00 a second person signs it off. The team" in text
    assert text.count("no mission of it can spend more") == 2  # beside the budget, and in words


def test_a_budget_above_the_teams_is_said_on_the_draft_and_to_who_signs_it_off(
    world: Any, alice: User, bob: User, signed_in: SignIn
) -> None:
    draft = world.draft("Chase everything", budget="150.00")
    said = re.compile(f"The team {world.team.name} has .100.00 a month.*: this mission can't spend more")
    text = page(signed_in(alice), reverse("mission", args=[draft.pk]))
    assert said.search(text)
    assert "set aside" not in text
    agents.submit_mission(actor=world.owner, mission_id=draft.pk)
    text = page(signed_in(bob), reverse("approvals"))
    assert said.search(text)
    assert f"$150.00 for {world.agent.name}" in text  # the row says how much and for whom


def test_a_budget_that_fits_says_nothing_of_others(world: Any, alice: User, signed_in: SignIn) -> None:
    draft = world.draft("Chase a few", budget="2.00")
    assert "can't spend more" not in page(signed_in(alice), reverse("mission", args=[draft.pk]))


def test_a_mission_the_gate_refused_is_not_called_started(world: Any, alice: User, signed_in: SignIn) -> None:
    from governance.bundles import forget
    from governance.models import PolicyBundle

    draft = world.draft("Chase a few")
    PolicyBundle.objects.update(state="retired")
    forget()
    browser = signed_in(alice)
    browser.post(reverse("mission-operate", args=[draft.pk, "submit"]))
    text = page(browser, reverse("mission", args=[draft.pk]))
    assert "Not started, and kept as a draft." in text
    assert "Started." not in text
    draft.refresh_from_db()
    assert draft.state != MissionState.ACTIVE


def test_a_mission_of_ones_own_agent_is_called_as_its_owner_says(
    world: Any, make_server: Any, alice: User, signed_in: SignIn
) -> None:
    make_server("time", ("get_current_time", "convert_time"))
    browser = signed_in(alice)
    common = {"template": "bring-your-own", "agent": "Weather watcher", "draft": "1", "team": str(world.team.pk)}
    browser.post(NEW, common)
    browser.post(NEW, {**common, "title": "Watch the weather in May"})
    titles = set(Mission.objects.filter(agent__name="Weather watcher").values_list("title", flat=True))
    assert titles == {"Weather watcher", "Watch the weather in May"}


@pytest.fixture
def time_of_receivables(world: Any, make_server: Any) -> McpServer:
    """The server of *Bring your own agent*, which only the team of the world may use."""
    server: McpServer = make_server("time", ("get_current_time", "convert_time"))
    McpServer.objects.filter(pk=server.pk).update(team_ids=[world.team.pk])
    return server


def test_a_team_that_may_not_use_a_needed_server_is_told_so_before_and_when_it_starts(
    time_of_receivables: McpServer, team: Team, other_team: Team, alice: User, signed_in: SignIn
) -> None:
    Membership.objects.create(organisation=team.organisation, team=other_team, user=alice, role="builder")
    browser, path = signed_in(alice), f"{NEW}?template=bring-your-own&team="
    assert 'name="start"' in browser.get(f"{path}{team.pk}").content.decode()
    said = (
        "Logistics may not use a server that it needs: Time. Choose another team, or ask an administrator to let this"
        " team use it, on the Servers page."
    )
    assert said in page(browser, f"{path}{other_team.pk}")
    assert 'name="start"' not in browser.get(f"{path}{other_team.pk}").content.decode()
    before = (Mission.objects.count(), Agent.objects.count(), Entry.objects.count())
    refused = browser.post(NEW, {"template": "bring-your-own", "team": str(other_team.pk), "start": "1"})
    assert refused.status_code == 409
    html = refused.content.decode()
    assert "needs servers that the chosen team may not use: Time" in html
    assert f'<option value="{other_team.pk}" selected>' in html  # what was chosen is not lost
    assert (Mission.objects.count(), Agent.objects.count(), Entry.objects.count()) == before


def test_who_has_one_team_is_not_told_to_choose_another(
    time_of_receivables: McpServer, other_team: Team, make_person: Any, signed_in: SignIn
) -> None:
    robin = make_person("Robin", other_team.organisation, Role.BUILDER, team=other_team)
    text = page(signed_in(robin), f"{NEW}?template=bring-your-own")
    assert "Logistics may not use a server that it needs: Time. Ask an administrator" in text


def test_a_team_one_may_not_start_in_is_not_found_whatever_its_servers(
    time_of_receivables: McpServer, other_team: Team, as_alice: Principal
) -> None:
    with pytest.raises(RemitError, match=r"team\.not_found"):
        start_from_template(actor=as_alice, team_id=other_team.pk, code="bring-your-own", values={})
    assert not Mission.objects.filter(team=other_team).exists()


def tried(browser: Client, **fields: str) -> list[str]:
    """What the gate would say to each sample of *Bring your own agent*."""
    answer = browser.post(NEW, {"template": "bring-your-own", "try": "1", **fields})
    assert answer.status_code == 200, answer.content
    return [html.unescape(text) for text in re.findall(r'<small class="sub">(.*?)</small>', answer.content.decode())]


def test_samples_are_judged_as_calls_of_a_mission_of_the_team_would_be(
    time_of_receivables: McpServer, world: Any, other_team: Team, nadia: User, alice: User, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    assert [said.split(":")[0] for said in tried(browser)] == ["Allowed", "Asks a person", "Refused"]
    [time, convert, shell] = tried(signed_in(nadia), team=str(other_team.pk))
    assert "The server of time__get_current_time is not for this mission's team." in time
    assert "is not for this mission's team." in convert
    assert "This mission may not use shell__run." in shell
    narrow = {"name": "x", "inputSchema": {"type": "object", "properties": {"timezone": {"maxLength": 5}}}}
    McpTool.objects.filter(name="get_current_time").update(definition=narrow, definition_sha256=digest(narrow))
    assert "Arguments don't fit the tool's schema at /timezone" in tried(browser)[0]
    McpServer.objects.filter(pk=time_of_receivables.pk).update(state=ServerState.DISABLED)
    assert "The server of time__get_current_time is switched off." in tried(browser)[0]
    McpServer.objects.filter(pk=time_of_receivables.pk).update(state=ServerState.UNREACHABLE, protocol_version="")
    McpTool.objects.all().delete()
    assert "The server of time__get_current_time is registered, and its tools could not be read" in tried(browser)[0]
    assert "No registered server offers" in tried(signed_in(nadia), team=str(other_team.pk))[0]
    McpServer.objects.filter(pk=time_of_receivables.pk).delete()
    assert "No registered server offers time__get_current_time." in tried(browser)[0]


def test_trying_the_samples_keeps_what_was_typed_and_starts_nothing(
    time_of_receivables: McpServer, alice: User, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    before = (Mission.objects.count(), Agent.objects.count(), Entry.objects.count())
    typed = {"agent": "Weather watcher", "title": "Watch the weather", "budget": "0.75", "hours": "3"}
    answer = browser.post(NEW, {"template": "bring-your-own", "try": "1", **typed})
    shown = answer.content.decode()
    assert (answer.status_code, shown.count("Asks a person:")) == (200, 1)
    assert all(f'value="{value}"' in shown for value in typed.values())
    assert (Mission.objects.count(), Agent.objects.count(), Entry.objects.count()) == before


def test_samples_are_judged_for_a_team_one_may_start_in(
    time_of_receivables: McpServer, other_team: Team, alice: User, nadia: User, dana: User, signed_in: SignIn
) -> None:
    for user in (dana, nadia):  # without any team, and without saying which of two
        answer = signed_in(user).post(NEW, {"template": "bring-your-own", "try": "1"})
        assert answer.status_code == 422
    assert "What would the gate say?" not in page(signed_in(dana), NEW)


def test_pages_say_that_the_samples_are_being_installed_until_they_are_ready(
    northwind: Organisation, budgets_open: None, make_server: Any, alice: User, signed_in: SignIn, state_dir: Path
) -> None:
    step = "Installing the environment of books"
    installing.write(state_dir, Installing(northwind.slug, step=step, done=1, total=9))
    browser = signed_in(alice)
    for path in ("/", NEW, "/servers"):
        text = page(browser, path)
        assert "The samples are being installed" in text, path
        assert f"{step}." in text
        assert "1 of 9 done" in text
    assert "Start the sample" not in page(browser, "/").replace("Start the sample mission", "")
    new = browser.get(NEW).content.decode()
    assert 'name="start"' not in new
    assert "The buttons appear here when they are ready." in new
    refused = browser.post(NEW, {"template": "receivables", "start": "1"})
    assert refused.status_code == 409
    assert "still being installed" in refused.content.decode()
    assert not Mission.objects.exists()

    McpServer.objects.all().delete()
    make_server("books", ("overdue",))
    make_server("sqlite", ("read_query",))
    assert 'name="start"' in browser.get(NEW).content.decode()  # ready, while others are still on their way
    assert 'name="start"' not in browser.get(f"{NEW}?template=caretaker").content.decode()

    McpServer.objects.filter(slug="sqlite").delete()
    make_server("sqlite", ())
    assert "SQLite is still being installed." in page(browser, NEW)

    installing.write(state_dir, Installing(northwind.slug, done=9, total=9))
    assert "being installed" not in page(browser, "/")
    assert "It needs servers that are not registered here: Git." in page(browser, f"{NEW}?template=caretaker")


def test_home_offers_the_sample_to_who_has_a_team_that_may_use_its_servers(
    northwind: Organisation, other_team: Team, budgets_open: None, make_server: Any, alice: User, signed_in: SignIn
) -> None:
    for slug, tool in (("books", "overdue"), ("sqlite", "read_query")):
        make_server(slug, (tool,))
    browser = signed_in(alice)
    assert "?template=receivables" in browser.get("/").content.decode()
    McpServer.objects.update(team_ids=[other_team.pk])
    home = browser.get("/").content.decode()
    assert "?template=receivables" not in home
    assert "that your team may not use" in home


def test_where_no_sample_server_is_registered_an_own_agent_gets_a_draft_and_no_start(
    northwind: Organisation, team: Team, budgets_open: None, alice: User, signed_in: SignIn, state_dir: Path
) -> None:
    browser, form = signed_in(alice), {"template": "bring-your-own", "title": "Mine", "budget": "1.00", "hours": "8"}
    html = browser.get(f"{NEW}?template=bring-your-own").content.decode()
    assert "Its tools are of a server that is not registered here: Time." in html
    assert ('name="start"' in html, 'name="edit"' in html, 'name="draft"' in html) == (False, True, True)
    assert browser.post(NEW, {**form, "start": "1"}).status_code == 409
    assert not Mission.objects.exists()
    answer = browser.post(NEW, {**form, "edit": "1"})
    made = Mission.objects.get()
    assert answer["Location"] == reverse("mission-change", args=[made.pk])
    assert made.state == MissionState.DRAFT
    receivables = browser.get(NEW).content.decode()
    assert "It needs servers that are not registered here: Books, SQLite." in receivables
    assert 'name="edit"' not in receivables
    assert browser.post(NEW, {**form, "template": "receivables", "edit": "1"}).status_code == 409
    assert Mission.objects.count() == 1


def test_a_template_whose_server_has_no_tools_says_so_and_is_not_started(
    northwind: Organisation, budgets_open: None, make_server: Any, alice: User, signed_in: SignIn, state_dir: Path
) -> None:
    make_server("time", ())
    browser = signed_in(alice)
    said = page(browser, f"{NEW}?template=bring-your-own")
    assert "It needs a server whose tools could not be read: Time. Open it on the Servers page" in said
    assert 'name="start"' not in browser.get(f"{NEW}?template=bring-your-own").content.decode()
    before = (Mission.objects.count(), Agent.objects.count(), Entry.objects.count())
    refused = browser.post(NEW, {"template": "bring-your-own", "start": "1"})
    assert refused.status_code == 409
    assert "whose tools could not be read yet: Time." in refused.content.decode()
    assert (Mission.objects.count(), Agent.objects.count(), Entry.objects.count()) == before


def test_a_failed_installation_is_said_with_its_reason(
    northwind: Organisation, budgets_open: None, alice: User, signed_in: SignIn, state_dir: Path
) -> None:
    installing.write(state_dir, Installing(northwind.slug, failure="The disk is full."))
    text = page(signed_in(alice), "/")
    assert "The samples could not be installed" in text
    assert "The disk is full." in text


def test_another_organisation_hears_nothing_of_it(
    northwind: Organisation, charlie: User, signed_in: SignIn, state_dir: Path
) -> None:
    installing.write(state_dir, Installing(northwind.slug, step="Installing", total=9))
    assert "being installed" not in page(signed_in(charlie), "/")


def test_a_start_that_the_teams_budget_has_no_room_for_says_so_to_people_and_keeps_one_draft(
    world: Any, nadia: User, as_nadia: Principal, signed_in: SignIn
) -> None:
    limits = Limits(money=Decimal("0.001"))
    budgets.set_limit(
        actor=as_nadia, account_id=world.account_of("team", world.team.pk), window=WindowKind.MONTH, limits=limits
    )
    draft = world.draft("Left behind")
    browser = signed_in(nadia)
    said = html.unescape(
        browser.post(reverse("mission-operate", args=[draft.pk, "submit"]), follow=True).content.decode()
    )
    assert "Not started, and kept as a draft. The budget “" in said
    assert "Ask finance to raise the limit of that budget" in said
    assert "budget.topup" not in said
    draft.refresh_from_db()
    assert (draft.state, Run.objects.filter(mission=draft).count()) == (MissionState.DRAFT, 0)


def test_a_start_while_the_rules_change_says_so_on_the_one_draft_it_made(
    world: Any, alice: User, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(*_args: Any, **_more: Any) -> None:
        raise gate.Overtaken

    monkeypatch.setattr(proposing, "_write", overtaken)
    body = {"template": "receivables", "title": "Once", "budget": "2.00", "hours": "24", "importance": "normal"}
    response = signed_in(alice).post(NEW, {**body, "start": "1"}, follow=True)
    draft = Mission.objects.get(title="Once")
    assert response.redirect_chain == [(reverse("mission", args=[draft.pk]), 302)]
    assert "Not started, and kept as a draft. The policies are being changed just now." in response.content.decode()
    assert draft.state == MissionState.DRAFT
