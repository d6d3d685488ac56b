"""The pages of stops without script: the question with its numbers, the proofs, the list, the strip, lifting."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.choices import StopScope
from agents.models import Mission, Stop
from controlplane.tenancy.models import Membership, Team, User
from controlplane.tenancy.types import Role
from governance import services as governance
from governance.approval_models import BreakGlass
from governance.choices import ReviewVerdict
from governance.models import Escalation

SignIn = Callable[..., Client]


def html(browser: Client, path: str, status: int = 200) -> str:
    response = browser.get(path)
    assert response.status_code == status, response.content.decode()[:400]
    return response.content.decode()


def question(scope: str, key: uuid.UUID) -> str:
    return f"{reverse('stop-new')}?scope={scope}&id={key}"


def stop_team(world: Any, reason: str = "Look first") -> Stop:
    return agents.stop(actor=world.owner, scope=StopScope.TEAM, scope_id=world.team.pk, reason=reason)


def test_the_question_says_with_numbers_what_will_happen(world: Any, alice: User, signed_in: SignIn) -> None:
    world.ask_credit()
    world.begin("books__customer", invoice="INV-0199")
    text = html(signed_in(alice), question("mission", world.mission.pk))
    for part in (
        "1 open question",
        "1 sandbox</b> is killed",
        "1 action</b> was already sent",
        "1 token",
        "ends for good",
    ):
        assert part in text, part


def test_the_numbers_asked_with_are_those_that_stand_on_the_stop(world: Any, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    for title, budget in (("Paused before", "2.00"), ("Too much for one", "7.00")):
        agents.submit_mission(actor=world.owner, mission_id=world.draft(title, budget=budget).pk)
    agents.pause_mission(actor=world.owner, mission_id=Mission.objects.get(title="Paused before").pk)
    text = html(browser, question("team", world.team.pk))
    assert "<b>1 mission</b> under way pauses. <b>2</b> that are paused or wait for sign-off can't go on." in text
    stop = stop_team(world)
    text = html(browser, reverse("stop", args=[stop.pk]))
    assert '<dt>Missions paused</dt><dd class="num">1</dd>' in text
    assert '<dt>Paused before, or waiting for sign-off</dt><dd class="num">2</dd>' in text
    assert '<h2>Paused by it</h2><span class="more">1</span>' in text


def test_stopping_leads_to_the_proofs_and_a_second_click_to_the_same_page(
    world: Any, alice: User, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    body = {"scope": "team", "id": str(world.team.pk), "reason": "Credits went astray"}
    first, again = (browser.post(reverse("stop-new"), body) for _ in range(2))
    stop = Stop.objects.get()
    assert first["Location"] == again["Location"] == reverse("stop", args=[stop.pk])
    text = html(browser, first["Location"])
    for part in ("Credits went astray", "Permits", "Tokens", "Processes", "Held money", "Frozen", "Counted now:"):
        assert part in text, part
    assert browser.get(question("team", world.team.pk))["Location"] == first["Location"]


def test_a_rung_that_no_longer_holds_is_said_to(world: Any, alice: User, signed_in: SignIn) -> None:
    stop = stop_team(world)
    agents.note_proofs(stop_id=stop.pk)
    Mission.objects.filter(pk=world.mission.pk).update(state="active")
    assert "1 mission still runs" in html(signed_in(alice), reverse("stop", args=[stop.pk]))


def test_everyone_whom_it_concerns_sees_the_strip_and_nobody_else(
    world: Any, alice: User, bob: User, charlie: User, signed_in: SignIn
) -> None:
    stop_team(world, "<b>Look</b> first")
    for user in (alice, bob):
        text = html(signed_in(user), reverse("home"))
        assert "The team Receivables is stopped." in text
        assert "&lt;b&gt;Look&lt;/b&gt; first" in text
    assert "is stopped." not in html(signed_in(charlie), reverse("home"))


def test_what_the_stop_of_an_organisation_met_is_named_only_to_who_may_see_it(
    world: Any, nadia: User, acting: Any, other_team: Team, make_person: Any, signed_in: SignIn
) -> None:
    call = world.begin("books__customer", invoice="INV-0199")
    organisation_id = world.mission.organisation_id
    stop = agents.stop(actor=acting(nadia), scope=StopScope.ORGANISATION, scope_id=organisation_id)
    path = reverse("stop", args=[stop.pk])
    named = (world.mission.title, reverse("action", args=[call.action_id]), reverse("mission", args=[world.mission.pk]))
    text = html(signed_in(nadia), path)
    assert all(part in text for part in named)
    assert "not listed here" not in text
    lars = make_person("Lars", other_team.organisation, Role.BUILDER, team=other_team)
    text = html(signed_in(lars), path)
    assert not [part for part in named if part in text]
    assert "1 not listed here, of teams whose calls you don&#x27;t see" in text.replace("don't", "don&#x27;t")
    assert '<dt>Missions paused</dt><dd class="num">1</dd>' in text


def test_a_mission_stopped_with_its_team_can_not_be_resumed_from_its_page(
    world: Any, alice: User, signed_in: SignIn
) -> None:
    stop_team(world)
    browser = signed_in(alice)
    assert "Look first" in html(browser, reverse("mission", args=[world.mission.pk]))
    response = browser.post(reverse("mission-operate", args=[world.mission.pk, "resume"]))
    assert response.status_code == 409
    assert "Lift the stop first" in response.content.decode()
    assert Mission.objects.get(pk=world.mission.pk).state == "paused"


def test_who_stops_a_team_that_nobody_else_could_release_is_told_so_before_and_after(
    world: Any, alice: User, dana: User, signed_in: SignIn
) -> None:
    browser, words = signed_in(alice), "Nobody else could agree to lifting it"
    assert words not in html(browser, question("team", world.team.pk))
    Membership.objects.filter(user=dana, role=Role.APPROVER).delete()
    assert words in html(browser, question("team", world.team.pk))
    assert words not in html(browser, question("agent", world.agent.pk))  # one person lifts that
    assert words in html(browser, reverse("stop", args=[stop_team(world).pk]))


def test_who_lifts_is_offered_to_resume_what_the_stop_paused_and_nothing_else(
    world: Any, alice: User, as_dana: Any, signed_in: SignIn
) -> None:
    stop, browser = stop_team(world), signed_in(alice)
    assert 'name="resume"' in html(browser, reverse("stop", args=[stop.pk]))
    browser.post(reverse("stop-lift", args=[stop.pk]), {})
    asked = Escalation.objects.get(kind="stop.lift")
    governance.decide(approver=as_dana, escalation_id=asked.pk, version=1, approve=True, reason="")
    again = html(browser, reverse("stop", args=[stop_team(world).pk]))
    assert "Lift the stop</button>" in again
    assert 'name="resume"' not in again


def test_lifting_asks_a_second_person_who_answers_on_approvals(
    world: Any, alice: User, dana: User, as_dana: Any, signed_in: SignIn
) -> None:
    stop = stop_team(world)
    browser = signed_in(alice)
    path = reverse("stop", args=[stop.pk])
    assert "It waits for a second person" in html(browser, path)
    browser.post(reverse("stop-lift", args=[stop.pk]), {"resume": "1"})
    escalation = Escalation.objects.get(kind="stop.lift")
    waiting = html(browser, path)
    assert reverse("approval", args=[escalation.pk]) in waiting
    assert "Lift the stop</button>" not in waiting
    card = html(signed_in(dana), reverse("approval", args=[escalation.pk]))
    assert "Lift the stop of the team Receivables" in card
    assert "The team Receivables</a>, by Alice" in card
    assert reverse("stop", args=[stop.pk]) in card
    assert "<dd>Look first</dd>" in card
    assert "1 mission that it paused resumes; another attempt starts where one was interrupted." in card
    assert "that its missions had left to spend when this was asked" in card
    assert "stop_id" not in card
    guards = next(stage for stage in escalation.decision.stages if "at stake" in stage["saw"])
    assert re.search(r" \d+\.\d\d USD at stake", guards["saw"])
    governance.decide(approver=as_dana, escalation_id=escalation.pk, version=1, approve=True, reason="")
    lifted = html(browser, path)
    assert "Lifted" in lifted
    assert "What had held" in lifted
    cache.clear()  # a warning is kept for some seconds
    assert "is stopped." not in html(signed_in(dana), reverse("missions"))


def test_who_broke_the_glass_over_lifting_one_opens_it_from_what_they_are_told_of_the_review(
    world: Any, alice: User, nadia: User, as_dana: Any, as_nadia: Any, signed_in: SignIn
) -> None:
    stop = stop_team(world)
    signed_in(alice).post(reverse("stop-lift", args=[stop.pk]), {})
    asked = Escalation.objects.get(kind="stop.lift")
    governance.break_glass(actor=as_nadia, escalation_id=asked.pk, version=1, reason="The payment run closes now.")
    governance.review_break_glass(
        reviewer=as_dana,
        break_glass_id=BreakGlass.objects.get().pk,
        verdict=ReviewVerdict.JUSTIFIED,
        note="It was an emergency.",
    )
    browser = signed_in(nadia)
    told = re.search(r'href="([^"]+)" data-row-link>', html(browser, reverse("notices")))
    assert told is not None
    assert told[1] == reverse("stop", args=[stop.pk])
    button = re.search(r'name="(\w+)" value="([^"]+)"><button', html(browser, reverse("notices-bell")))
    assert button is not None
    opened = browser.post(reverse("notices-read"), {button[1]: button[2]})
    assert opened.headers["Location"] == told[1]


def test_who_may_only_look_is_offered_no_button(world: Any, bob: User, finn: User, signed_in: SignIn) -> None:
    stop = stop_team(world)
    for user in (bob, finn):
        browser = signed_in(user)
        assert "Lift the stop" not in html(browser, reverse("stop", args=[stop.pk]))
        assert 'data-opens="stop-dialog"' not in html(browser, reverse("home"))
        assert 'data-opens="stop-dialog"' not in html(browser, reverse("mission", args=[world.mission.pk]))
        html(browser, question("team", world.team.pk), 404)


def test_nonsense_in_the_address_is_not_found(world: Any, alice: User, signed_in: SignIn, nobody: uuid.UUID) -> None:
    browser = signed_in(alice)
    for path in (
        question("planet", world.mission.pk),
        question("mission", nobody),
        f"{reverse('stop-new')}?scope=mission&id=1",
        reverse("stop-new"),
        reverse("stop", args=[nobody]),
    ):
        html(browser, path, 404)
    assert not Stop.objects.exists()


def test_the_list_costs_the_same_number_of_queries_however_long_it_is(
    world: Any, nadia: User, signed_in: SignIn, queries: Callable[..., int]
) -> None:
    stop_team(world)
    browser, path = signed_in(nadia), reverse("stops")
    few = queries(browser, path)
    for number in range(6):
        Stop.objects.create(
            organisation=world.organisation,
            scope="mission",
            scope_id=uuid.uuid4(),
            name=f"Mission {number}",
            reason="r",
            by=nadia,
            at="2026-01-01T00:00:00Z",
            counts={"sandboxes": number},
        )
    assert queries(browser, path) == few


def test_stops_as_csv_say_who_stopped_what_and_why(world: Any, alice: User, charlie: User, signed_in: SignIn) -> None:
    made = stop_team(world, reason="=Look first")
    header, line = b"".join(signed_in(alice).get(reverse("stops") + "?format=csv")).decode().splitlines()
    assert header.startswith("id,stopped_at,scope,what,reason,by,")
    assert line.startswith(f"{made.pk},")
    assert ",'=Look first," in line
    assert len(b"".join(signed_in(charlie).get(reverse("stops") + "?format=csv")).decode().splitlines()) == 1
