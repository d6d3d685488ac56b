"""Editing a waiting action over REST: tried without a trace, approved as edited, and refused without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from controlplane.audit.models import Entry
from controlplane.tenancy.models import Membership, Team, User
from governance.choices import ActionState, EscalationState
from governance.models import Action, Escalation, Vote
from tests.frontend.api.conftest import Api
from tests.frontend.pages.foreign import contents

ApiOf = Callable[..., Api]


@pytest.fixture
def question(world: Any) -> Escalation:
    """A credit of 240.00, which waits for a person."""
    found: Escalation = world.ask_credit()
    return found


def edited(question: Escalation, amount: str) -> dict[str, Any]:
    return {"arguments": {**question.action.arguments, "amount": amount}}


def remit_of(read: Any) -> dict[str, Any]:
    """The remit in force, as a change sends it back."""
    names = ("goal", "criteria", "grants", "deadline")
    return {name: value for name, value in read.json()["remit"].items() if name in names}


def begun(api: Api) -> Api:
    """After its first request, which notes when the token was last used."""
    assert api.get("escalations").status_code in (200, 403)
    return api


@pytest.mark.parametrize(
    ("amount", "verdict", "code"),
    [
        ("250.00", "escalate", ""),
        ("40.00", "allow", ""),
        ("9000.00", "deny", "grant.argument_above_limit"),
        ("much", "deny", "grant.argument_outside"),
    ],
)
def test_a_preview_says_what_the_rules_would_and_leaves_no_trace(
    api_of: ApiOf, bob: User, question: Escalation, amount: str, verdict: str, code: str
) -> None:
    api = begun(api_of(bob))
    before = contents()
    answer = api.post(f"escalations/{question.pk}:preview-edit", edited(question, amount))
    assert answer.status_code == 200, answer.content
    said = answer.json()
    assert (said["verdict"], said["allowed"]) == (verdict, verdict != "deny")
    assert said["reason_code"] == code or not code
    assert [(change["path"], change["before"], change["after"]) for change in said["changes"]] == [
        ("amount", '"240.00"', f'"{amount}"')
    ]
    assert said["way"]["needed"] == 1
    assert said["judge_is_asked"] is False
    assert contents() == before


def test_a_preview_of_nothing_or_of_no_arguments_is_refused(api_of: ApiOf, bob: User, question: Escalation) -> None:
    api, path = begun(api_of(bob)), f"escalations/{question.pk}:preview-edit"
    before = contents()
    same = api.post(path, {"arguments": question.action.arguments})
    assert (same.status_code, same.json()["code"]) == (422, "edit.nothing_changed")
    for body in ({}, {"arguments": []}, {"arguments": "amount"}, {**edited(question, "1.00"), "reason": "Less"}):
        answer = api.post(path, body)
        assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    assert contents() == before


@pytest.mark.parametrize("verb", ["preview-edit", "edit"])
def test_who_may_not_answer_edits_nothing(
    api_of: ApiOf,
    question: Escalation,
    verb: str,
    team: Team,
    alice: User,
    finn: User,
    charlie: User,
) -> None:
    Membership.objects.create(organisation=team.organisation, team=team, user=alice, role="approver")
    expected = {
        alice: (403, "escalation.four_eyes"),  # the mission is hers
        finn: (403, "permission.denied"),
        charlie: (404, "escalation.not_found"),
    }
    for user, refusal in expected.items():
        api = begun(api_of(user))
        before = contents()
        answer = api.post(
            f"escalations/{question.pk}:{verb}", edited(question, "40.00"), if_match=f'"{question.version}-0"'
        )
        assert (answer.status_code, answer.json()["code"]) == refusal, user.name
        assert contents() == before


def test_an_edit_replaces_the_action_on_the_version_that_was_read_and_once(
    api_of: ApiOf, bob: User, dana: User, question: Escalation
) -> None:
    bobs, path = api_of(bob), f"escalations/{question.pk}"
    read = bobs.get(path)
    body = {**edited(question, "250.00"), "reason": "As agreed"}
    assert bobs.post(f"{path}:edit", body).status_code == 428
    assert api_of(dana).post(f"{path}:claim").status_code == 200
    before = contents()
    stale = bobs.post(f"{path}:edit", body, if_match='"7-0"')
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition.failed")
    claimed = bobs.post(f"{path}:edit", body, if_match=read["ETag"])
    assert (claimed.status_code, claimed.json()["code"]) == (409, "escalation.claimed")
    assert contents() == before
    assert api_of(dana).post(f"{path}:release").status_code == 200
    made = bobs.post(f"{path}:edit", body, key="one", if_match=read["ETag"])
    assert made.status_code == 200, made.content
    again = bobs.post(f"{path}:edit", body, key="one", if_match=read["ETag"])
    assert (again.json(), again["Idempotency-Replayed"]) == (made.json(), "true")
    first = Action.objects.get(pk=question.action_id)
    second = Action.objects.get(replaces=first)
    assert (first.state, first.reason_code) == (ActionState.WITHDRAWN, "action.replaced")
    assert (second.state, second.arguments["amount"]) == (ActionState.PERMITTED, "250.00")
    assert made.json()["action"]["id"] == str(second.pk)
    assert Vote.objects.get().escalation_id == Escalation.objects.get(action=second).pk
    assert Entry.objects.filter(event="action.edited", subject_id=first.pk).count() == 1


def test_what_a_person_asked_for_is_not_turned_into_what_the_editor_asked_for(
    world: Any, alice_api: Api, api_of: ApiOf, nadia: User
) -> None:
    """Else an administrator would sign off a widening of their own, in the name of whoever asked for another."""
    nadias = begun(api_of(nadia))
    mission = world.mission
    read = nadias.get(f"missions/{mission.pk}")
    wide = {**remit_of(read), "budget": {"amount": "900.00"}}
    assert nadias.post(f"missions/{mission.pk}:change", {"remit": wide}, if_match=read["ETag"]).status_code == 200
    own = Escalation.objects.get(action__proposer_id=nadia.pk)
    read = alice_api.get(f"missions/{mission.pk}")
    wide = {**remit_of(read), "budget": {"amount": "3.00"}}
    assert alice_api.post(f"missions/{mission.pk}:change", {"remit": wide}, if_match=read["ETag"]).status_code == 200
    other = Escalation.objects.exclude(pk=own.pk).get()
    body = {"arguments": own.action.arguments}
    assert nadias.post(f"escalations/{own.pk}:decide", {"answer": "approve"}, if_match='"1-0"').status_code == 403
    before = contents()
    for verb in ("edit", "preview-edit"):
        answer = nadias.post(f"escalations/{other.pk}:{verb}", body, if_match='"1-0"')
        assert (answer.status_code, answer.json()["code"]) == (409, "edit.not_possible"), verb
    assert contents() == before
    mission.refresh_from_db()
    assert mission.version == 1


def test_an_edit_that_the_gate_refuses_changes_nothing(api_of: ApiOf, bob: User, question: Escalation) -> None:
    api, path = begun(api_of(bob)), f"escalations/{question.pk}"
    etag = api.get(path)["ETag"]
    before = contents()
    answer = api.post(f"{path}:edit", edited(question, "9000.00"), if_match=etag)
    assert (answer.status_code, answer.json()["code"]) == (422, "edit.refused")
    assert answer.json()["data"] == {"reason_code": "grant.argument_above_limit"}
    assert answer.json()["remedies"]
    assert contents() == before


def test_an_emergency_needs_the_right_a_reason_and_the_version_that_was_read(
    api_of: ApiOf, bob: User, nadia: User, question: Escalation
) -> None:
    api, path = api_of(nadia), f"escalations/{question.pk}:break-glass"
    body = {"reason": "The payment run closes in five minutes."}
    etag = api.get(f"escalations/{question.pk}")["ETag"]
    bobs = begun(api_of(bob))
    before = contents()
    assert bobs.post(path, body, if_match=etag).status_code == 403
    assert api.post(path, {}, if_match=etag).status_code == 422
    assert api.post(path, body, if_match='"7-0"').status_code == 412
    assert contents() == before
    done = api.post(path, body, if_match=etag)
    assert (done.status_code, done.json()["state"]) == (200, EscalationState.APPROVED)
    [glass] = api.get("broken-glass").json()["items"]
    own = api.post(f"broken-glass/{glass['id']}:review", {"verdict": "justified", "note": "It was"})
    assert own.status_code == 403
    assert bobs.get("broken-glass").json()["items"][0]["reviewed_by"] is None
    reviewed = bobs.post(f"broken-glass/{glass['id']}:review", {"verdict": "justified", "note": "It was"})
    assert (reviewed.status_code, reviewed.json()["reviewed_by"]["name"]) == (200, "Bob"), reviewed.content
