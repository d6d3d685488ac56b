"""Missions, budgets, agents and what people are told, over REST: done once, by who may, and nothing by anybody else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from agents import services as agents
from agents.models import Agent, Mission
from budgets.models import LimitChange
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.approval_models import EscalationMessage, Notice
from governance.models import Escalation
from tests.frontend.api.conftest import Api
from tests.frontend.pages.foreign import contents

ApiOf = Callable[..., Api]


def without_last_use(found: dict[str, str]) -> dict[str, str]:
    """Tables without that of tokens, which notes their last use."""
    return {name: rows for name, rows in found.items() if name != "tenancy_token"}


# Missions -------------------------------------------------------------------------------------------------------------


def test_more_budget_is_asked_for_and_given_by_somebody_else(
    world: Any, alice_api: Api, api_of: ApiOf, dana: User, finn: User
) -> None:
    path = f"missions/{world.mission.pk}:ask-for-budget"
    body = {"money": {"amount": "3.00"}, "reason": "There are more invoices"}
    before = without_last_use(contents())
    assert api_of(finn).post(path, body).status_code == 403
    assert alice_api.post(path, {**body, "money": {"amount": "0"}}).status_code == 422
    assert alice_api.post(path, {**body, "money": {"amount": "3.00", "currency": "EUR"}}).status_code == 422
    assert without_last_use(contents()) == before
    asked = alice_api.post(path, body, key="one")
    assert asked.status_code == 200, asked.content
    assert alice_api.post(path, body, key="one")["Idempotency-Replayed"] == "true"
    question = Escalation.objects.get(kind="budget.topup")
    danas = api_of(dana)
    etag = danas.get(f"escalations/{question.pk}")["ETag"]
    given = danas.post(f"escalations/{question.pk}:decide", {"answer": "approve"}, if_match=etag)
    assert (given.status_code, given.json()["state"]) == (200, "approved")


def test_no_agent_is_asked_about_what_a_person_asked_for(
    world: Any, alice_api: Api, api_of: ApiOf, dana: User, as_alice: Principal, make_remit: Callable[..., Any]
) -> None:
    agents.change_mission(
        actor=as_alice, mission_id=world.mission.pk, remit=make_remit(budget="9.00"), note="", expected_version=1
    )
    question = Escalation.objects.get(kind="mission.widen")
    answer = api_of(dana).post(f"escalations/{question.pk}:ask-agent", {"text": "Why so much?"})
    assert (answer.status_code, answer.json()["code"]) == (409, "escalation.no_agent")
    assert not EscalationMessage.objects.exists()
    assert alice_api.post(f"escalations/{question.pk}:comment", {"text": "There are more"}).status_code == 201


def test_the_token_of_a_run_is_made_for_who_operates_it_and_replaces_the_last(
    world: Any, alice_api: Api, api_of: ApiOf, finn: User, charlie_api: Api
) -> None:
    Agent.objects.filter(pk=world.agent.pk).update(runtime="external")
    path = f"missions/{world.mission.pk}:issue-run-token"
    before = without_last_use(contents())
    assert api_of(finn).post(path).status_code == 403
    assert charlie_api.post(path).status_code == 404
    assert without_last_use(contents()) == before
    first = alice_api.post(path)
    assert first.status_code in (200, 201), first.content
    second = alice_api.post(path)
    assert Api(second.json()["token"]).get(f"missions/{world.mission.pk}").status_code == 200
    assert Api(first.json()["token"]).get(f"missions/{world.mission.pk}").status_code == 401
    assert first.json()["token"] not in str(list(Entry.objects.values_list("payload", flat=True)))


def test_a_mission_is_stopped_for_good_once(world: Any, alice_api: Api, api_of: ApiOf, bob: User) -> None:
    waiting = world.ask_credit()
    path = f"missions/{world.mission.pk}:stop"
    before = without_last_use(contents())
    assert api_of(bob).post(path).status_code == 403
    assert without_last_use(contents()) == before
    done = alice_api.post(path, {"reason": "Enough"}, key="one")
    assert (done.status_code, done.json()["state"]) == (200, "stopped"), done.content
    assert alice_api.post(path, {"reason": "Enough"}, key="one")["Idempotency-Replayed"] == "true"
    waiting.refresh_from_db()
    assert waiting.state != "open"
    over = without_last_use(contents())
    for verb in ("resume", "pause"):
        assert alice_api.post(f"missions/{world.mission.pk}:{verb}").status_code == 409, verb
    assert alice_api.post(path, {"reason": "Once more"}).json()["state"] == "stopped"  # it is, so nothing is done
    assert without_last_use(contents()) == over


def test_an_outcome_is_accepted_by_who_operates_the_mission_has_read_it_and_not_before_it_is_claimed(
    world: Any, alice_api: Api, api_of: ApiOf, finn: User
) -> None:
    path, shown = f"missions/{world.mission.pk}:accept", f"missions/{world.mission.pk}"
    before = without_last_use(contents())
    assert alice_api.post(path, {"claim": "now"}).json()["code"] == "mission.no_claim"
    agents.claim_outcome(principal=world.as_run, summary="31 reminders written")
    read = {"claim": alice_api.get(shown).json()["claim"]["at"]}
    agents.claim_outcome(principal=world.as_run, summary="9 reminders written")
    claimed = without_last_use(contents())
    assert before != claimed
    assert api_of(finn).post(path, read).status_code == 403
    assert alice_api.post(path).status_code == 422
    changed = alice_api.post(path, read)
    assert (changed.status_code, changed.json()["code"]) == (409, "mission.claim_changed")
    assert changed.json()["data"]["claim"]["summary"] == "9 reminders written"
    assert without_last_use(contents()) == claimed
    now_read = {"claim": changed.json()["data"]["claim"]["at"]}
    done = alice_api.post(path, now_read)
    assert (done.status_code, done.json()["outcome"]) == (200, "accepted"), done.content
    assert alice_api.post(path, now_read).json()["code"] == "mission.no_claim"


def test_a_draft_is_submitted_once_and_by_its_team(
    world: Any, alice_api: Api, api_of: ApiOf, bob: User, charlie_api: Api
) -> None:
    draft = world.draft("Chase a few")
    path = f"missions/{draft.pk}:submit"
    before = without_last_use(contents())
    assert api_of(bob).post(path).status_code == 403
    assert charlie_api.post(path).status_code == 404
    assert without_last_use(contents()) == before
    done = alice_api.post(path, key="one")
    assert done.status_code == 200, done.content
    assert alice_api.post(path, key="one")["Idempotency-Replayed"] == "true"
    assert alice_api.post(path).status_code == 409
    assert Mission.objects.get(pk=draft.pk).state == "active"


def test_a_retired_agent_is_taken_back_by_who_writes_agents(
    alice_api: Api, api_of: ApiOf, bob: User, charlie_api: Api, agent: Any
) -> None:
    assert alice_api.post(f"agents/{agent.pk}:retire").json()["state"] == "retired"
    before = without_last_use(contents())
    assert api_of(bob).post(f"agents/{agent.pk}:reinstate").status_code == 403
    assert charlie_api.post(f"agents/{agent.pk}:reinstate").status_code == 404
    assert without_last_use(contents()) == before
    assert alice_api.post(f"agents/{agent.pk}:reinstate").json()["state"] == "active"


# Budgets --------------------------------------------------------------------------------------------------------------


def test_a_budget_is_frozen_and_released_by_finance(world: Any, api_of: ApiOf, finn: User, alice_api: Api) -> None:
    finns, path = api_of(finn), f"budgets/{world.account_of('team', world.team.pk)}"
    before = without_last_use(contents())
    for verb in ("freeze", "unfreeze"):
        assert alice_api.post(f"{path}:{verb}", {"reason": "Because"}).status_code == 403
        assert finns.post(f"{path}:{verb}", {}).status_code == 422
    assert without_last_use(contents()) == before
    assert finns.post(f"{path}:freeze", {"reason": "Month end"}).json()["frozen"] is True
    assert world.act("books__overdue", key="frozen").reason_code.startswith("budget.")
    assert finns.post(f"{path}:unfreeze", {"reason": "It is over"}).json()["frozen"] is False
    assert world.act("books__overdue", key="released").verdict == "allow"


@pytest.mark.parametrize("verb", ["refuse", "withdraw"])
def test_a_limit_that_waits_is_refused_by_another_and_withdrawn_by_its_author(
    world: Any, api_of: ApiOf, finn: User, nadia: User, alice_api: Api, verb: str
) -> None:
    finns, nadias = api_of(finn), api_of(nadia)
    budget = f"budgets/{world.account_of('team', world.team.pk)}"
    body = {"window": "month", "limits": {"money": {"amount": "900.00"}}, "reason": "More"}
    asked = finns.post(f"{budget}:set-limit", body, if_match=finns.get(budget)["ETag"])
    assert asked.json()["waits"] is True, asked.content
    path = f"limit-changes/{asked.json()['change_id']}:{verb}"
    reason = {"reason": "Not now"} if verb == "refuse" else {}
    right, wrong = (nadias, finns) if verb == "refuse" else (finns, nadias)
    wrong.get("me")
    before = without_last_use(contents())
    assert alice_api.post(path, reason).status_code == 403
    assert wrong.post(path, reason).status_code == 403
    assert without_last_use(contents()) == before
    done = right.post(path, reason, key="one")
    assert (done.status_code, done.content) == (204, b"")
    assert right.post(path, reason, key="one")["Idempotency-Replayed"] == "true"
    assert right.post(path, reason).status_code == 409
    assert finns.get(budget).json()["limits"]["money"]["amount"] == "100.000000000000"
    assert LimitChange.objects.get().state in ("refused", "withdrawn")


# What people are told, and who stands in ------------------------------------------------------------------------------


def test_notices_are_read_by_who_was_told(world: Any, api_of: ApiOf, bob: User, dana: User, charlie_api: Api) -> None:
    for number in range(2):
        governance.tell_about(world.ask_credit(key=f"credit-{number}").pk)
    bobs = api_of(bob)
    told = bobs.get("notices").json()["items"]
    assert len(told) == 2, told
    assert api_of(dana).post("notices:read", {"ids": [told[0]["id"]]}).json() == {"read": 0}
    assert charlie_api.post("notices:read", {"ids": [told[0]["id"]]}).json() == {"read": 0}
    assert Notice.objects.filter(user=bob, read_at=None).count() == 2
    assert bobs.post("notices:read", {"ids": [told[0]["id"]]}).json() == {"read": 1}
    assert bobs.post("notices:read").json() == {"read": 1}
    assert not Notice.objects.filter(user=bob, read_at=None).exists()


def test_owners_are_told_through_the_interface_too(
    world: Any, api_of: ApiOf, alice: User, as_nadia: Principal, finn: User
) -> None:
    agents.pause_mission(actor=as_nadia, mission_id=world.mission.pk)
    (item,) = api_of(alice).get("notices").json()["items"]
    assert (item["kind"], item["subject_type"], item["subject_id"]) == ("mission", "mission", str(world.mission.pk))
    assert (item["title"], item["escalation_id"]) == (f"Paused: {world.mission.title}", None)
    assert api_of(finn).get("notices").json()["items"] == []


def test_standing_in_is_arranged_for_oneself_and_ended_by_who_arranged_it(
    world: Any, api_of: ApiOf, bob: User, dana: User, finn: User, charlie_api: Api
) -> None:
    bobs, days = api_of(bob), [(now() + timedelta(days=number)).isoformat() for number in (0, 2)]
    body = {"from_user_id": str(bob.pk), "to_user_id": str(dana.pk), "starts_at": days[0], "ends_at": days[1]}
    before = without_last_use(contents())
    assert api_of(finn).post("delegations", body).status_code == 403
    assert api_of(dana).post("delegations", body).status_code == 403  # in the name of somebody else
    assert without_last_use(contents()) == before
    made = bobs.post("delegations", body)
    assert made.status_code == 201, made.content
    path = f"delegations/{made.json()['id']}:end"
    standing = without_last_use(contents())
    assert charlie_api.post(path).status_code == 404
    assert without_last_use(contents()) == standing
    assert bobs.post(path).status_code == 200
    assert bobs.get("delegations").json()["items"] == []
    assert bobs.post(path).status_code == 409
