"""Agents, questions, budgets, servers, people and records over REST: what each is for, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from agents.models import Agent, McpServer, McpTool, Mission
from budgets import services as budgets
from budgets.costs.models import CostDay, CostMission
from budgets.types import Level, Limits, WindowKind
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.tenancy.models import Membership, Organisation, Team, Token, User
from controlplane.tenancy.types import system_principal
from governance.models import Action, Decision, Escalation, Vote
from tests.frontend.api.conftest import Api


def _later(days: int = 1) -> str:
    return (now() + timedelta(days=days)).isoformat()


# Agents ---------------------------------------------------------------------------------------------------------------


def test_an_agent_is_registered_versioned_and_retired(alice_api: Api, team: Team) -> None:
    made = alice_api.post("agents", {"team_id": str(team.pk), "name": "Courier", "runtime": "external"})
    agent = made.json()
    version = alice_api.post("agent-versions", {"agent_id": agent["id"], "label": "2.0", "command": ["run", "it"]})
    assert (version.status_code, version.json()["number"]) == (201, 2)
    assert len(alice_api.get(f"agent-versions?agent={agent['id']}").json()["items"]) == 2
    assert alice_api.post(f"agents/{agent['id']}:retire").json()["state"] == "retired"


def test_an_agent_with_missions_is_not_retired(alice_api: Api, mission: Mission) -> None:
    answer = alice_api.post(f"agents/{mission.agent_id}:retire")
    assert (answer.status_code, answer.json()["code"]) == (409, "agent.busy")


def test_an_agent_is_stopped_with_proofs_and_two_requests_are_one_stop(nadia_api: Api, mission: Mission) -> None:
    asked = {"scope": "agent", "scope_id": str(mission.agent_id), "reason": "It repeats itself"}
    made = nadia_api.post("stops", asked)
    assert made.status_code == 201, made.content
    assert made.json()["in_force"] is True
    assert {proof["name"] for proof in made.json()["proofs"]} >= {"permits", "questions"}
    assert nadia_api.post("stops", asked).json()["id"] == made.json()["id"]
    mission.refresh_from_db()
    assert mission.state == "paused"


def test_nobody_of_another_organisation_stops_anything(charlie_api: Api, mission: Mission) -> None:
    answer = charlie_api.post("stops", {"scope": "agent", "scope_id": str(mission.agent_id)})
    assert answer.status_code == 404
    mission.refresh_from_db()
    assert mission.state == "active"


# Questions ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def question(northwind: Organisation, team: Team, mission: Mission, alice: User, nadia: User) -> Escalation:
    common: dict[str, Any] = {
        "organisation": northwind,
        "verdict": "escalate",
        "digest": "sha256:1",
        "created_at": now(),
    }
    action = Action.objects.create(
        **common,
        team=team,
        kind="tool.call",
        tool="books__apply_credit",
        title="Apply a credit",
        proposer_kind="run",
        proposer_id=new_id(),
        proposer_name="Clerk",
        state="waiting",
        mission_id=mission.pk,
    )
    decision = Decision.objects.create(**common, action=action, stages=[], duration_microseconds=1)
    return Escalation.objects.create(
        organisation=northwind,
        team=team,
        action=action,
        decision=decision,
        kind="tool.call",
        title=action.title,
        mission_id=mission.pk,
        needed=2,
        excluded_user_ids=[alice.pk, nadia.pk],
        opened_at=now(),
        expires_at=now() + timedelta(hours=1),
    )


def test_a_question_is_answered_on_the_version_that_was_read(
    api_of: Callable[..., Api], bob: User, dana: User, question: Escalation
) -> None:
    bobs, danas = api_of(bob), api_of(dana)
    assert [item["id"] for item in bobs.get("escalations?mine=true").json()["items"]] == [str(question.pk)]
    path = f"escalations/{question.pk}"
    read = bobs.get(path)
    assert bobs.post(f"{path}:decide", {"answer": "approve"}).status_code == 428
    voted = bobs.post(f"{path}:decide", {"answer": "approve"}, if_match=read["ETag"])
    assert voted.status_code == 200, voted.content
    assert [vote["name"] for vote in voted.json()["votes"]] == ["Bob"]
    stale = danas.post(f"{path}:decide", {"answer": "deny", "reason": "No"}, if_match=read["ETag"])
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition.failed")
    assert Vote.objects.count() == 1


def test_who_is_responsible_does_not_answer(api_of: Callable[..., Api], nadia: User, question: Escalation) -> None:
    api = api_of(nadia)
    read = api.get(f"escalations/{question.pk}")
    answer = api.post(f"escalations/{question.pk}:decide", {"answer": "approve"}, if_match=read["ETag"])
    assert (answer.status_code, answer.json()["code"]) == (403, "escalation.four_eyes")
    assert not Vote.objects.exists()


def test_a_refusal_needs_a_reason(api_of: Callable[..., Api], bob: User, question: Escalation) -> None:
    api = api_of(bob)
    read = api.get(f"escalations/{question.pk}")
    answer = api.post(f"escalations/{question.pk}:decide", {"answer": "deny"}, if_match=read["ETag"])
    assert (answer.status_code, answer.json()["code"]) == (422, "reason.missing")


def test_people_claim_a_question_and_talk_about_it(api_of: Callable[..., Api], bob: User, question: Escalation) -> None:
    api = api_of(bob)
    assert api.post(f"escalations/{question.pk}:claim").json()["claimed_by_id"] == str(bob.pk)
    said = api.post(f"escalations/{question.pk}:comment", {"text": "Looks right to me"})
    assert (said.status_code, said.json()["author_name"]) == (201, "Bob")
    assert api.post(f"escalations/{question.pk}:release").json()["claimed_by_id"] is None


# Budgets --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def budget(northwind: Organisation, team: Team) -> str:
    return str(
        budgets.open_account(
            actor=system_principal(organisation_id=northwind.pk),
            organisation_id=northwind.pk,
            team_id=team.pk,
            parent_id=None,
            level=Level.TEAM,
            name="Receivables",
            subject_type="team",
            subject_id=team.pk,
            limits=Limits(steps=10),
            window=WindowKind.MONTH,
        )
    )


def test_a_limit_is_set_by_finance_on_what_was_read(api_of: Callable[..., Api], finn: User, budget: str) -> None:
    api = api_of(finn)
    read = api.get(f"budgets/{budget}")
    body = {"window": "month", "limits": {"money": {"amount": "2.5"}, "steps": 10}, "reason": "A start"}
    answer = api.post(f"budgets/{budget}:set-limit", body, if_match=read["ETag"])
    assert answer.status_code == 200, answer.content
    assert answer.json()["budget"]["limits"]["money"] == {"amount": "2.500000000000", "currency": "USD"}
    assert api.post(f"budgets/{budget}:set-limit", body, if_match=read["ETag"]).status_code == 412


def test_giving_more_than_one_person_may_waits_for_a_second(
    api_of: Callable[..., Api], finn: User, nadia: User, budget: str
) -> None:
    api = api_of(finn)
    for amount, waits in (("1.00", False), ("900.00", True)):
        body = {"window": "month", "limits": {"money": {"amount": amount}}, "reason": "More"}
        answer = api.post(f"budgets/{budget}:set-limit", body, if_match=api.get(f"budgets/{budget}")["ETag"])
        assert answer.json()["waits"] is waits, answer.content
    change = api.get("limit-changes").json()["items"][0]["id"]
    own = api.post(f"limit-changes/{change}:confirm")
    assert (own.status_code, own.json()["code"]) == (403, "budget.second_person")
    assert api_of(nadia).post(f"limit-changes/{change}:confirm").status_code == 204
    assert api.get(f"budgets/{budget}").json()["limits"]["money"]["amount"] == "900.000000000000"


def test_a_request_that_was_not_read_is_not_replaced_through_the_interface(
    api_of: Callable[..., Api], finn: User, nadia: User, budget: str
) -> None:
    api, other = api_of(finn), api_of(nadia)

    def body(amount: str) -> dict[str, Any]:
        return {"window": "month", "limits": {"money": {"amount": amount}}, "reason": "More"}

    first = other.post(f"budgets/{budget}:set-limit", body("1.00"), if_match=api.get(f"budgets/{budget}")["ETag"])
    asked = other.post(f"budgets/{budget}:set-limit", body("900.00"), if_match=first["ETag"])
    assert asked.json()["waits"] is True
    stale = api.post(f"budgets/{budget}:set-limit", body("0.50"), if_match=first["ETag"])
    assert stale.status_code == 412
    assert [item["id"] for item in api.get("limit-changes").json()["items"]] == [asked.json()["change_id"]]
    done = api.post(f"budgets/{budget}:set-limit", body("0.50"), if_match=asked["ETag"])
    assert (done.json()["waits"], done.json()["replaced_id"]) == (False, asked.json()["change_id"])
    assert done["ETag"].split("-")[0] == api.get(f"budgets/{budget}")["ETag"].split("-")[0]
    assert api.get("limit-changes").json()["items"] == []


def test_raises_through_the_interface_add_up(api_of: Callable[..., Api], finn: User, budget: str) -> None:
    api = api_of(finn)
    for amount, waits in (("1.00", False), ("6.00", False), ("11.00", True)):
        body = {"window": "month", "limits": {"money": {"amount": amount}}, "reason": "More"}
        answer = api.post(f"budgets/{budget}:set-limit", body, if_match=api.get(f"budgets/{budget}")["ETag"])
        assert answer.json()["waits"] is waits, answer.content
    assert api.get(f"budgets/{budget}").json()["limits"]["money"]["amount"] == "6.000000000000"


def test_a_builder_sets_no_limit(alice_api: Api, budget: str) -> None:
    answer = alice_api.post(f"budgets/{budget}:freeze", {"reason": "Because"})
    assert (answer.status_code, answer.json()["code"]) == (403, "permission.denied")
    assert alice_api.get(f"budgets/{budget}").json()["frozen"] is False


# Servers --------------------------------------------------------------------------------------------------------------


def test_a_server_is_registered_and_switched_off(nadia_api: Api) -> None:
    made = nadia_api.post(
        "mcp-servers", {"name": "Books", "slug": "books", "transport": "http", "url": "https://books.example/mcp"}
    )
    assert made.status_code == 201, made.content
    path = f"mcp-servers/{made.json()['id']}"
    assert nadia_api.post(f"{path}:switch-off").json()["state"] == "disabled"
    assert nadia_api.post(f"{path}:switch-on").json()["state"] == "new"


def test_two_people_do_not_overwrite_what_a_tool_is_said_to_do(
    nadia_api: Api, northwind: Organisation, nadia: User
) -> None:
    server = McpServer.objects.create(
        organisation=northwind, name="Books", slug="books", transport="http", created_by=nadia
    )
    tool = McpTool.objects.create(
        server=server, name="read", qualified_name="books__read", definition={}, definition_sha256="sha256:1"
    )
    read = nadia_api.get(f"tools/{tool.pk}")
    traits = {"read_only": True, "reversible": True, "effects": []}
    assert nadia_api.post(f"tools/{tool.pk}:describe", traits, if_match=read["ETag"]).json()["read_only"] is True
    assert nadia_api.post(f"tools/{tool.pk}:describe", traits, if_match=read["ETag"]).status_code == 412


# People ---------------------------------------------------------------------------------------------------------------


def test_roles_are_set_on_what_was_read_and_nobody_raises_their_own(
    nadia_api: Api, nadia: User, alice: User, team: Team
) -> None:
    read = nadia_api.get(f"members/{alice.pk}")
    wanted = {"roles": [{"role": "builder", "team_id": str(team.pk)}, {"role": "auditor"}]}
    changed = nadia_api.post(f"members/{alice.pk}:set-roles", wanted, if_match=read["ETag"])
    assert changed.status_code == 200, changed.content
    assert {item["role"] for item in changed.json()["roles"]} == {"builder", "auditor"}
    assert nadia_api.post(f"members/{alice.pk}:set-roles", wanted, if_match=read["ETag"]).status_code == 412
    mine = nadia_api.get(f"members/{nadia.pk}")
    more = {"roles": [{"role": "admin"}, {"role": "finance"}]}
    answer = nadia_api.post(f"members/{nadia.pk}:set-roles", more, if_match=mine["ETag"])
    assert (answer.status_code, answer.json()["code"]) == (403, "member.own_rights")
    assert Membership.objects.filter(user=nadia).count() == 1


def test_what_managers_see_of_members_stays_with_them(alice_api: Api, nadia_api: Api, alice: User) -> None:
    assert nadia_api.get(f"members/{alice.pk}").json()["second_factor"] is False
    assert alice_api.get(f"members/{alice.pk}").json()["second_factor"] is None


def test_a_token_is_shown_once_may_no_more_than_it_was_given_and_dies(api_of: Callable[..., Api], nadia: User) -> None:
    maker = api_of(nadia)  # for an hour
    asked = {"kind": "pat", "name": "Script", "expires_at": (now() + timedelta(minutes=30)).isoformat()}
    made = maker.post("tokens", {**asked, "scopes": ["mission.view"]}, key="one")
    assert made.status_code == 201, made.content
    secret = made.json()["token"]
    assert maker.post("tokens", {**asked, "scopes": ["mission.view"]}, key="one").json()["token"] == secret
    assert "token" not in maker.get("tokens").json()["items"][0]
    assert Api(secret).get("missions").status_code == 200
    assert Api(secret).get("agents").status_code == 403
    assert maker.post(f"tokens/{made.json()['id']}:revoke").status_code == 204
    assert Api(secret).get("missions").status_code == 401


def test_a_credential_of_an_agent_is_issued_to_its_team_only(alice_api: Api, charlie_api: Api, agent: Agent) -> None:
    asked = {"kind": "agt", "name": "Laptop", "expires_at": _later(), "agent_id": str(agent.pk)}
    assert charlie_api.post("tokens", asked).status_code == 404
    assert not Token.objects.filter(agent_id=agent.pk).exists()
    made = alice_api.post("tokens", asked)
    assert made.json()["token"].startswith("rmt_agt_")
    assert len(alice_api.get(f"tokens?agent={agent.pk}").json()["items"]) == 1


def test_an_invitation_gives_its_link_once(nadia_api: Api, team: Team) -> None:
    made = nadia_api.post("invitations", {"email": "ada@acme.example", "roles": [{"role": "auditor"}]})
    assert made.status_code == 201, made.content
    assert "/invitations/" in made.json()["link"]
    listed = nadia_api.get("invitations").json()["items"]
    assert [item["email"] for item in listed] == ["ada@acme.example"]
    assert "link" not in listed[0]
    assert nadia_api.post(f"invitations/{made.json()['id']}:revoke").status_code == 204


# Records --------------------------------------------------------------------------------------------------------------


def test_the_trail_is_read_filtered_and_checked(nadia_api: Api, mission: Mission) -> None:
    nadia_api.post(f"missions/{mission.pk}:pause", {"reason": "Quarter end"})
    found = nadia_api.get(f"audit-entries?mission={mission.pk}").json()["items"]
    assert [item["sentence"] for item in found] == [f"Nadia paused {mission.title}: Quarter end"]
    assert nadia_api.get(f"audit-entries/{found[0]['id']}").json() == found[0]
    job = nadia_api.post("audit-entries:verify")
    assert job.status_code == 202
    assert nadia_api.get(f"audit-jobs/{job.json()['id']}").json()["intact"] is True


def test_questions_are_narrowed_as_on_the_page(nadia_api: Api, world: Any, team: Any, other_team: Any) -> None:
    question = str(world.ask_credit().pk)

    def found(query: str) -> list[str]:
        return [item["id"] for item in nadia_api.get(f"escalations?{query}").json()["items"]]

    for query in (f"team={team.pk}", "kind=tool.call", "irreversible=false", "mine=false&state=open"):
        other = {f"team={team.pk}": f"team={other_team.pk}", "kind=tool.call": "kind=budget.topup"}.get(query)
        assert found(query) == [question], query
        assert other is None or found(other) == [], other
    assert found("irreversible=true") == []
    assert found(f"group={team.pk}") == []


def test_the_trail_is_narrowed_to_a_person_an_agent_and_a_kind_of_events(
    nadia_api: Api, mission: Mission, world: Any, bob: User
) -> None:
    nadia_api.post(f"missions/{mission.pk}:pause", {"reason": "Quarter end"})
    world.ask_credit()

    def told(query: str) -> set[str]:
        return {item["event"] for item in nadia_api.get(f"audit-entries?{query}").json()["items"]}

    assert "action.escalated" in told(f"agent={world.mission.agent_id}")  # by its run
    assert "mission.paused" not in told(f"agent={world.mission.agent_id}")
    assert "mission.paused" in told("event=mission.*")
    assert {name[:8] for name in told("event=mission.*")} == {"mission."}
    assert told(f"person={bob.pk}") == set()


def test_a_search_of_the_trail_goes_on_at_next_after_an_empty_page(
    nadia_api: Api, mission: Mission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.audit.selectors.SEARCHED", 1)
    nadia_api.post(f"missions/{mission.pk}:pause", {"reason": "Quarter end"})
    nadia_api.post(f"missions/{mission.pk}:resume")
    first = nadia_api.get("audit-entries?q=paused").json()
    assert first["items"] == []
    then = nadia_api.get(f"audit-entries?q=paused&cursor={first['next']}").json()
    assert [item["event"] for item in then["items"]] == ["mission.paused"]


def test_a_goals_missions_come_once_each_though_one_is_added_meanwhile(
    nadia_api: Api, northwind: Organisation, team: Team, budget: str
) -> None:
    def spent(*amounts: str) -> list[str]:
        made = []
        for amount in amounts:
            mission = CostMission.objects.create(
                id=new_id(),
                organisation=northwind,
                team_id=team.pk,
                agent_id=new_id(),
                goal="chase",
                goal_name="Chase",
                title=amount,
                standing="open",
                refreshed_at=now(),
            )
            CostDay.objects.create(
                organisation=northwind,
                team_id=team.pk,
                account_id=budget,
                mission=mission,
                day=(now() - timedelta(days=1)).date(),
                kind="call",
                money=amount,
                tokens=0,
                steps=1,
                lines=1,
            )
            made.append(str(mission.pk))
        return made

    known = spent("5", "4", "4", "4", "0", "0")
    seen: list[str] = []
    path, cursor = "costs/goals/chase/missions?limit=2", ""
    while cursor is not None:
        answer = nadia_api.get(f"{path}&cursor={cursor}" if cursor else path)
        assert answer.status_code == 200, answer.content
        seen += [item["mission_id"] for item in answer.json()["items"]]
        cursor = answer.json()["next"]
        spent("9")
    assert seen == known
    for wrong in ("2", "x~y", f"nan~{new_id()}"):
        assert nadia_api.get(f"{path}&cursor={wrong}").json()["code"] == "cursor.invalid"


def test_costs_of_what_can_be_no_goal_are_not_found(nadia_api: Api) -> None:
    for goal in ("nothing", "%00", "%ED%A0%80"):
        answer = nadia_api.get(f"costs/goals/{goal}/missions")
        assert (answer.status_code, answer.json()["code"]) == (404, "goal.not_found"), goal


def test_costs_are_a_report_of_days(nadia_api: Api) -> None:
    answer = nadia_api.get("costs?first=2031-01-01&last=2031-01-31").json()
    assert answer["goals"] == []
    assert answer["check"]["differs"] is False
    backwards = nadia_api.get("costs?first=2031-02-01&last=2031-01-31")
    assert (backwards.status_code, backwards.json()["code"]) == (422, "costs.span")
    assert not Entry.objects.exists()
