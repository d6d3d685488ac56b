"""Home: what waits for whom, answered there where all of it is in sight, what was spent, and the first steps."""

from __future__ import annotations

import re
from typing import Any

from django.urls import reverse

from agents import services as agents
from agents.choices import MissionState
from agents.models import Mission
from controlplane.tenancy.models import User
from governance.models import Escalation

from .browsing import SignIn, page


def test_home_leads_to_a_claimed_outcome_which_is_accepted_once_asked_as_it_was_read(
    busy: Any, alice: User, signed_in: SignIn
) -> None:
    agents.claim_outcome(principal=busy.as_run, summary="31 reminders written")
    browser = signed_in(alice)
    accept, checklist = (
        reverse("mission-operate", args=[busy.mission.pk, "accept"]),
        reverse("mission-tab", args=[busy.mission.pk, "checklist"]),
    )
    home = page(browser, reverse("home"))
    assert "Accept the outcome of Chase overdue invoices" in home
    assert checklist in home
    assert accept not in home
    asked = page(browser, checklist).split('<dialog id="accept-outcome"')[1].split("</dialog>")[0]
    assert "claims: 31 reminders written" in asked
    assert "can’t be taken up again" in asked
    read = {"claim": asked.split('name="claim" value="')[1].split('"')[0]}
    agents.claim_outcome(principal=busy.as_run, summary="9 reminders written")
    for body in (read, {}):
        refused = browser.post(accept, body)
        assert refused.status_code == 409
        assert "9 reminders written" in refused.content.decode()
    assert Mission.objects.get(pk=busy.mission.pk).outcome == "claimed"
    read = {"claim": page(browser, checklist).split('name="claim" value="')[1].split('"')[0]}
    assert browser.post(accept, read).status_code == 302
    mission = Mission.objects.get(pk=busy.mission.pk)
    assert (mission.state, mission.outcome) == (MissionState.SUCCEEDED, "accepted")


def test_a_question_whose_arguments_are_all_in_sight_is_answered_on_home(
    world: Any, bob: User, signed_in: SignIn
) -> None:
    short, long = world.ask_credit("150.00"), world.ask_credit("160.00", "Late again. " * 15)
    browser = signed_in(bob)
    html = page(browser, reverse("home"))
    assert "2 things wait for you" in html
    assert "amount 150.00" in html
    assert html.count("Approve once") == 1  # the long one is read on its card first
    body = {"answer": "approve", "version": "1", "next": "home"}
    assert browser.post(reverse("approval-decide", args=[short.pk]), body)["Location"] == reverse("home")
    assert Escalation.objects.get(pk=short.pk).state == "approved"
    assert Escalation.objects.get(pk=long.pk).state == "open"


def test_a_sign_off_says_on_home_what_it_costs_and_who_asks(world: Any, bob: User, signed_in: SignIn) -> None:
    mission = world.draft("Large credits", budget="50.00")
    agents.submit_mission(actor=world.owner, mission_id=mission.pk)
    row = page(signed_in(bob), reverse("home")).split('id="waiting-')[1].split("</li>")[0]
    assert "$50.00</data> for Receivables clerk" in row
    assert "Alice" in row
    assert "mission_id" not in row
    assert str(mission.pk) not in row


def test_home_shows_todays_spend_and_the_mix_of_verdicts(busy: Any, alice: User, signed_in: SignIn) -> None:
    html = page(signed_in(alice), reverse("home"))
    assert "spent today" in html
    assert 'aria-label="Spend a day, the last two weeks"' in html
    [mix] = re.findall(r'class="mix"[^>]*aria-label="([^"]*)"', html)
    assert re.fullmatch(r"Allowed \d+, Asks a person 3, Refused 2", mix), mix


def test_the_first_steps_keep_their_progress_until_somebody_decided(
    world: Any, alice: User, bob: User, signed_in: SignIn
) -> None:
    assert "2 of 3 done" in page(signed_in(alice), reverse("home"))
    escalation = world.ask_credit()
    signed_in(bob).post(reverse("approval-decide", args=[escalation.pk]), {"answer": "approve", "version": "1"})
    assert "Start here" not in page(signed_in(alice), reverse("home"))
