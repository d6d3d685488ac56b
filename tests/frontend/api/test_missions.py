"""Missions over REST, as a team's own program works with them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from agents import services as agents
from agents.choices import MissionState, Outcome, Runtime
from agents.models import Agent, Mission
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from tests.frontend.api.conftest import Api
from tests.frontend.pages.foreign import contents


def remit(**changes: Any) -> dict[str, Any]:
    return {
        "goal": "Every overdue invoice has a reminder.",
        "criteria": ["Every overdue invoice has a reminder"],
        "grants": [{"tool": "books__list_invoices"}],
        "budget": {"amount": "2.50"},
        "deadline": (now() + timedelta(days=1)).isoformat(),
        **changes,
    }


def test_a_list_has_items_and_a_cursor_that_leads_to_the_rest(
    alice_api: Api, make_mission: Callable[..., Mission]
) -> None:
    ids = [str(make_mission(f"Mission {number}").pk) for number in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        answer = alice_api.get(f"missions?limit=2{cursor}").json()
        seen += [item["id"] for item in answer["items"]]
        if answer["next"] is None:
            break
        cursor = f"&cursor={answer['next']}"
    assert seen == ids[::-1]


def test_a_list_costs_the_same_queries_whatever_its_length(
    alice_api: Api, make_mission: Callable[..., Mission], django_assert_num_queries: Any
) -> None:
    make_mission()
    alice_api.get("missions")  # notes when the token was last used
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as few:
        alice_api.get("missions")
    for number in range(10):
        make_mission(f"Mission {number}")
    with django_assert_num_queries(len(few)):
        assert len(alice_api.get("missions").json()["items"]) == 11


def test_a_mission_is_drafted_with_a_location_and_an_etag(alice_api: Api, agent: Agent) -> None:
    answer = alice_api.post("missions", {"agent_id": str(agent.pk), "title": "Remind", "remit": remit()})
    assert answer.status_code == 201, answer.content
    made = answer.json()
    assert answer["Location"] == f"/api/v1/missions/{made['id']}"
    assert answer["ETag"].startswith('"1-')
    assert made["state"] == "draft"
    assert made["remit"]["budget"] == {"amount": "2.500000000000", "currency": "USD"}
    assert alice_api.get(f"missions/{made['id']}").json() == made


def test_every_bad_field_of_a_mission_is_named_and_none_is_made(alice_api: Api, agent: Agent) -> None:
    bad = remit(budget={"amount": "-1"}, importance="huge", nonsense=1)
    answer = alice_api.post("missions", {"agent_id": str(agent.pk), "title": 7, "remit": bad})
    assert answer.status_code == 422
    assert answer["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "request.invalid"
    pointers = {error["pointer"] for error in problem["errors"]}
    assert {"/title", "/remit/nonsense"} <= pointers
    assert not Mission.objects.exists()


def test_a_deadline_that_pages_could_not_show_everywhere_is_refused(alice_api: Api, agent: Agent) -> None:
    worded = {"agent_id": str(agent.pk), "title": "Remind", "remit": remit(deadline="9999-12-31T23:59:59Z")}
    answer = alice_api.post("missions", worded)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/deadline")
    assert not Mission.objects.exists()


def test_another_currency_is_refused_rather_than_converted(alice_api: Api, agent: Agent) -> None:
    worded = remit(budget={"amount": "2.50", "currency": "EUR"})
    answer = alice_api.post("missions", {"agent_id": str(agent.pk), "title": "Remind", "remit": worded})
    assert (answer.status_code, answer.json()["code"]) == (422, "money.currency")


def test_pausing_and_resuming_are_verbs_with_audit_entries(alice_api: Api, mission: Mission) -> None:
    paused = alice_api.post(f"missions/{mission.pk}:pause", {"reason": "Quarter end"})
    assert (paused.status_code, paused.json()["state"]) == (200, "paused")
    assert alice_api.post(f"missions/{mission.pk}:pause").json()["code"] == "mission.state"
    assert alice_api.post(f"missions/{mission.pk}:resume").json()["state"] == "active"
    assert list(Entry.objects.order_by("id").values_list("event", flat=True)) == ["mission.paused", "mission.resumed"]


def test_an_outcome_is_rejected_with_a_reason_only(alice_api: Api, make_mission: Callable[..., Mission]) -> None:
    mission = make_mission(outcome=Outcome.CLAIMED, claim={"summary": "Done", "evidence": [], "at": "now"})
    assert alice_api.post(f"missions/{mission.pk}:reject").status_code == 422
    assert alice_api.post(f"missions/{mission.pk}:reject", {"reason": "", "claim": "now"}).status_code == 422
    assert alice_api.post(f"missions/{mission.pk}:reject", {"reason": "Three are missing"}).status_code == 422
    mission.refresh_from_db()
    assert mission.state == MissionState.ACTIVE
    body = {"reason": "Three are missing", "claim": "now"}
    answer = alice_api.post(f"missions/{mission.pk}:reject", body)
    assert (answer.json()["outcome"], answer.json()["state"]) == ("rejected", "failed")


def test_a_change_needs_the_etag_of_what_was_read(alice_api: Api, agent: Agent) -> None:
    made = alice_api.post("missions", {"agent_id": str(agent.pk), "title": "Remind", "remit": remit()})
    path = f"missions/{made.json()['id']}:change"
    change = {"remit": remit(goal="Every invoice has a reminder."), "note": "All of them"}
    assert (alice_api.post(path, change).status_code, alice_api.post(path, change).json()["code"]) == (
        428,
        "precondition.missing",
    )
    first = alice_api.post(path, change, if_match=made["ETag"])
    assert first.status_code == 200, first.content
    assert first.json()["mission"]["latest_version"] == 2
    packed = alice_api.get(f"missions/{made.json()['id']}", accept_encoding="gzip")
    assert packed["Content-Encoding"] == "gzip"
    assert packed["ETag"].startswith('W/"2-')
    again = {"remit": remit(goal="Every invoice has two reminders."), "note": ""}
    assert alice_api.post(path, again, if_match=packed["ETag"]).status_code == 200
    stale = alice_api.post(path, change, if_match=made["ETag"])
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition.failed")
    assert alice_api.get(f"missions/{made.json()['id']}").json()["latest_version"] == 3
    assert len(alice_api.get(f"missions/{made.json()['id']}/versions").json()["items"]) == 3


def test_an_unchanged_mission_is_not_sent_twice(alice_api: Api, mission: Mission) -> None:
    first = alice_api.get(f"missions/{mission.pk}")
    again = alice_api.get(f"missions/{mission.pk}", if_none_match=first["ETag"])
    assert (again.status_code, again.content) == (304, b"")
    alice_api.post(f"missions/{mission.pk}:pause")
    assert alice_api.get(f"missions/{mission.pk}", if_none_match=first["ETag"]).status_code == 200


@pytest.mark.parametrize("verb", ["pause", "resume", "stop", "accept", "submit", "issue-run-token"])
def test_nobody_of_another_organisation_can_do_anything_to_a_mission(
    charlie_api: Api, mission: Mission, verb: str
) -> None:
    answer = charlie_api.post(f"missions/{mission.pk}:{verb}", {"claim": "now"} if verb == "accept" else None)
    assert (answer.status_code, answer.json()["code"]) == (404, "mission.not_found")
    mission.refresh_from_db()
    assert mission.state == MissionState.ACTIVE
    assert not Entry.objects.exists()


def test_a_previewed_change_says_what_it_does_and_leaves_no_trace(
    world: Any, api_of: Any, alice: Any, bob: Any
) -> None:
    api, path = api_of(alice), f"missions/{world.mission.pk}"
    in_force = api.get(path).json()["remit"]
    names = ("goal", "criteria", "grants", "budget", "budget_tokens", "budget_steps", "deadline", "importance")
    same = {name: in_force[name] for name in names}
    before = contents()
    wider = {**same, "grants": [*same["grants"], {"tool": "books__write_off"}]}
    answer = api.post(f"{path}:preview-change", {"remit": wider})
    assert answer.status_code == 200, answer.content
    said = answer.json()
    assert [change["kind"] for change in said["changes"]] == ["widens"]
    assert (said["finding"]["verdict"], said["needed"]) == ("escalate", 1)
    assert bob.name in [person["name"] for person in said["asks"]]
    nothing = api.post(f"{path}:preview-change", {"remit": same}).json()
    assert nothing["changes"] == []
    assert contents() == before


def test_a_draft_is_changed_without_asking_anybody(alice_api: Api, agent: Agent) -> None:
    made = alice_api.post("missions", {"agent_id": str(agent.pk), "title": "Remind", "remit": remit()})
    path = f"missions/{made.json()['id']}:preview-change"
    said = alice_api.post(path, {"remit": remit(goal="Every invoice has two reminders.")}).json()
    assert (said["changes"][0]["kind"], said["finding"], said["asks"], said["needed"]) == ("widens", None, [], 0)
    past = alice_api.post(path, {"remit": remit(budget={"amount": "0"})})
    assert past.status_code == 422, past.content


def test_a_call_is_tried_against_grants_in_force_or_given_and_nothing_is_proposed(
    world: Any, api_of: Any, alice: Any
) -> None:
    api, path = api_of(alice), f"missions/{world.mission.pk}:try-call"
    api.get("missions")
    before = contents()
    arguments = {"invoice": "INV-0113", "amount": "40.00", "reason": "late delivery"}
    call = {"tool": "books__apply_credit", "arguments": arguments}
    said = api.post(path, call).json()
    assert said["verdict"] == "allow", said
    refused = api.post(path, {**call, "grants": []}).json()
    assert (refused["verdict"], refused["reason_code"]) == ("deny", "grant.missing")
    assert contents() == before
    assert api.post(path, {**call, "arguments": []}).status_code == 422


def test_what_is_over_is_neither_previewed_nor_tried(alice_api: Api, mission: Mission) -> None:
    alice_api.post(f"missions/{mission.pk}:stop", {"reason": "over"})
    for verb, body in (("preview-change", {"remit": remit()}), ("try-call", {"tool": "a__b", "arguments": {}})):
        answer = alice_api.post(f"missions/{mission.pk}:{verb}", body)
        assert (answer.status_code, answer.json()["code"]) == (409, "mission.ended")


def test_a_registered_agent_is_given_a_templates_mission_to_be_reworded(
    world: Any, api_of: Any, alice: Any, as_alice: Any, team: Any, make_server: Any
) -> None:
    make_server("time", ("get_current_time", "convert_time"))
    own = agents.register_agent(actor=as_alice, team_id=team.pk, name="Clerk of ours", runtime=Runtime.EXTERNAL)
    body = {"template": "bring-your-own", "team_id": str(team.pk), "values": {}, "agent_id": str(own.pk)}
    made = api_of(alice).post("missions", {**body, "to_reword": True})
    assert made.status_code == 201, made.content
    assert (made.json()["agent"]["name"], made.json()["state"]) == ("Clerk of ours", "draft")
    both = api_of(alice).post("missions", {**body, "title": "Mine"})
    assert both.status_code == 422
