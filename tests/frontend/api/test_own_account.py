"""What is one's own over REST: the profile, the browsers where one is signed in; and erasing a person."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from agents import saved_views
from controlplane.audit.models import Entry, Restatement
from controlplane.common.clock import now
from controlplane.tenancy.models import Membership, Organisation, Team, Token, TokenKind, User
from controlplane.tenancy.types import ROLE_PERMISSIONS, Permission, Principal, Role
from governance import services as governance
from tests.frontend.api.conftest import Api
from tests.frontend.pages.foreign import contents

ApiOf = Callable[..., Api]
PROFILE = {"name": "Alice Adams", "time_zone": "Europe/Berlin", "single_key_shortcuts": False}


# The profile ----------------------------------------------------------------------------------------------------------


def test_a_profile_is_changed_shown_and_told_once(alice_api: Api, alice: User) -> None:
    first = alice_api.get("me")
    changed = alice_api.post("me:change", PROFILE, key="one")
    assert changed.status_code == 200, changed.content
    may = {name: changed.json()[name] for name in ("organisation", "roles", "scopes")}
    assert changed.json() == {**PROFILE, **may, "id": str(alice.pk), "email": alice.email}
    assert alice_api.post("me:change", PROFILE, key="one")["Idempotency-Replayed"] == "true"
    assert alice_api.get("me").json() == changed.json()
    assert alice_api.get("me", if_none_match=first["ETag"]).status_code == 200
    assert alice_api.get("me", if_none_match=changed["ETag"]).status_code == 304
    told = Entry.objects.get(event="person.changed")
    assert (told.actor_id, told.payload["changed"]) == (alice.pk, ["name", "single_key_shortcuts", "time_zone"])


def test_a_profile_says_where_one_is_and_what_one_may(
    api_of: ApiOf, alice: User, dana: User, team: Team, northwind: Organisation
) -> None:
    own = api_of(alice).get("me").json()
    assert own["organisation"] == {"id": str(northwind.pk), "name": northwind.name}
    assert own["roles"] == [{"role": "builder", "team": {"id": str(team.pk), "name": team.name}}]
    assert own["scopes"] is None
    assert api_of(dana).get("me").json()["roles"] == [{"role": "approver", "team": None}]
    narrow = api_of(alice, scopes={Permission.MISSION_VIEW, Permission.BUDGET_VIEW})
    assert narrow.get("me").json()["scopes"] == ["budget.view", "mission.view"]


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"name": "  "}, "/name"),
        ({"name": "x" * 121}, "/name"),
        ({"name": 7}, "/name"),
        ({"time_zone": "Mars/Olympus"}, "/time_zone"),
        ({"single_key_shortcuts": "no"}, "/single_key_shortcuts"),
        ({"email": "other@northwind.example"}, "/email"),
    ],
)
def test_a_profile_that_can_not_be_is_refused_at_its_field(
    alice_api: Api, alice: User, wrong: dict[str, Any], pointer: str
) -> None:
    alice_api.get("me")
    before = contents()
    answer = alice_api.post("me:change", {**PROFILE, **wrong})
    assert answer.status_code == 422, answer.content
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert contents() == before


def test_machines_have_no_profile_and_no_browsers(
    run_token: str, agent_token: str, issue_token: Callable[..., str]
) -> None:
    for token in (run_token, agent_token, issue_token(TokenKind.SERVICE)):
        api = Api(token)
        assert [api.get(path).status_code for path in ("me", "sessions")] == [404, 404]
        before = contents()
        for path, body in (("me:change", PROFILE), ("sessions:end-others", {}), ("sessions/1:end", {})):
            assert api.post(path, body).status_code == 404, path
        assert contents() == before


def test_a_token_with_only_some_of_a_persons_permissions_is_no_way_into_the_account(
    api_of: ApiOf, alice: User, browser: Client
) -> None:
    narrow = api_of(alice, scopes={Permission.MISSION_VIEW})
    session = api_of(alice).get("sessions").json()["items"][0]["id"]
    assert narrow.get("me").json()["name"] == "Alice"  # whose it is
    assert (narrow.get("sessions").status_code, narrow.get("sessions").json()["code"]) == (403, "token.narrowed")
    before = contents()
    for path, body in (("me:change", PROFILE), ("sessions:end-others", {}), (f"sessions/{session}:end", {})):
        answer = narrow.post(path, body)
        assert (answer.status_code, answer.json()["code"]) == (403, "token.narrowed"), path
        assert answer.json()["remedies"]
    assert contents() == before
    assert works(browser)
    every = api_of(alice, scopes=set(ROLE_PERMISSIONS[Role.BUILDER]))  # as the page makes it, with all of them ticked
    assert every.post("me:change", PROFILE).status_code == 200


def test_a_narrowed_token_makes_no_other_and_ends_no_other_of_its_person(api_of: ApiOf, alice: User) -> None:
    narrow = api_of(alice, scopes={Permission.MISSION_VIEW})
    own = Token.objects.get(user=alice)
    full = api_of(alice)
    other = Token.objects.exclude(pk=own.pk).get(user=alice)
    narrow.get("missions")  # its first use is noted
    before = contents()
    body = {"kind": "pat", "name": "More", "expires_at": in_days(1), "scopes": ["mission.view"]}
    for path, sent in (
        ("tokens", body),
        (f"tokens/{own.pk}:rotate", {"overlap_seconds": 0}),
        (f"tokens/{other.pk}:revoke", {}),
    ):
        answer = narrow.post(path, sent)
        assert (answer.status_code, answer.json()["code"]) == (403, "token.narrowed"), path
    assert contents() == before
    assert narrow.post(f"tokens/{own.pk}:revoke", {}).status_code == 204  # itself it may give up
    assert (narrow.get("missions").status_code, full.get("missions").status_code) == (401, 200)


def test_a_token_that_only_reads_changes_nothing_that_is_its_persons(
    world: Any, api_of: ApiOf, as_bob: Principal, bob: User, dana: User
) -> None:
    reader = api_of(bob, scopes={Permission.ESCALATION_VIEW})
    other = api_of(bob, scopes={Permission.MISSION_VIEW, Permission.MEMBER_VIEW})
    view = saved_views.save_view(actor=as_bob, list_name="missions", name="Mine", query="state=active")
    standing_in = governance.delegate(
        actor=as_bob, from_user_id=bob.pk, to_user_id=dana.pk, starts_at=now(), ends_at=now() + timedelta(days=1)
    )
    governance.tell_about(world.ask_credit().pk)
    for api in (reader, other):
        api.get("me")  # its first use is noted
    before = contents()
    for path, sent in (
        (f"delegations/{standing_in.pk}:end", {}),
        (f"saved-views/{view.pk}:remove", {}),
        ("saved-views", {"list": "missions", "name": "More", "query": "state=paused", "team_id": str(world.team.pk)}),
    ):
        for api in (reader, other):
            assert api.post(path, sent).status_code == 403, path
    assert contents() == before
    assert other.post("notices:read").json() == {"read": 0}  # it sees no question
    assert reader.post("notices:read").json() == {"read": 1}
    ends = api_of(bob, scopes={Permission.ESCALATION_VIEW, Permission.ESCALATION_DECIDE})
    assert ends.post(f"delegations/{standing_in.pk}:end").status_code == 200


def test_a_narrowed_token_does_not_get_the_answer_that_another_of_its_person_got(
    alice_api: Api, api_of: ApiOf, alice: User
) -> None:
    narrow = api_of(alice, scopes={Permission.MISSION_VIEW})
    body = {"kind": "pat", "name": "More", "expires_at": in_days(0.01)}
    made = alice_api.post("tokens", body, key="1")
    assert made.status_code == 201
    answer = narrow.post("tokens", body, key="1")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency.other_body")
    again = alice_api.post("tokens", body, key="1")
    assert (again["Idempotency-Replayed"], again.content) == ("true", made.content)
    assert api_of(alice).post("tokens", body, key="1").content == made.content  # another that may the same


def test_a_token_made_with_a_token_ends_no_later(api_of: ApiOf, alice: User) -> None:
    api = api_of(alice)  # for an hour
    api.get("missions")
    before = contents()
    answer = api.post("tokens", {"kind": "pat", "name": "Longer", "expires_at": in_days(1)})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/expires_at")
    assert contents() == before
    made = api.post("tokens", {"kind": "pat", "name": "Shorter", "expires_at": in_days(1 / 48)})
    assert made.status_code == 201, made.content
    own = Token.objects.get(user=alice, name="Test")
    Token.objects.filter(pk=own.pk).update(created_at=own.created_at - timedelta(days=30))
    rotated = api.post(f"tokens/{own.pk}:rotate", {"overlap_seconds": 60})
    assert rotated.status_code == 201, rotated.content
    assert Token.objects.get(replaces=own).expires_at == own.expires_at


def in_days(days: float) -> str:
    return (now() + timedelta(days=days)).isoformat()


# Browsers -------------------------------------------------------------------------------------------------------------


def signed_in(user: User, agent: str = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0") -> Client:
    client = Client(headers={"user-agent": agent})
    client.force_login(user, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert works(client)
    return client


def works(client: Client) -> bool:
    return client.get("/api/v1/me").status_code == 200


@pytest.fixture
def browser(alice: User) -> Client:
    return signed_in(alice)


def test_a_browser_is_listed_and_signed_out_by_its_id(alice_api: Api, alice: User, browser: Client) -> None:
    other = signed_in(alice, "curl/8.5")
    listed = {item["device"]: item for item in alice_api.get("sessions").json()["items"]}
    assert set(listed) == {"Firefox on Linux", "curl"}
    assert not any(item["is_this"] for item in listed.values())  # a token asks
    ended = alice_api.post(f"sessions/{listed['curl']['id']}:end")
    assert (ended.status_code, ended.content) == (204, b"")
    assert (works(browser), works(other)) == (True, False)
    assert alice_api.post(f"sessions/{listed['curl']['id']}:end").status_code == 404
    assert [item["device"] for item in alice_api.get("sessions").json()["items"]] == ["Firefox on Linux"]


def test_nobody_ends_a_browser_of_somebody_else(
    alice_api: Api, nadia_api: Api, charlie_api: Api, browser: Client
) -> None:
    session = alice_api.get("sessions").json()["items"][0]["id"]
    for api in (nadia_api, charlie_api):
        assert api.get("sessions").json()["items"] == []
        before = contents()
        assert api.post(f"sessions/{session}:end").status_code == 404
        assert api.post("sessions:end-others").json() == {"ended": 0}
        assert contents() == before
    assert works(browser)


def test_with_a_token_every_browser_is_signed_out_with_a_cookie_all_but_this_one(
    alice_api: Api, alice: User, browser: Client
) -> None:
    other = signed_in(alice)
    secret = "a" * 32
    browser.cookies["csrftoken"] = secret
    headers = {"idempotency-key": "one", "x-csrftoken": secret}
    answer = browser.post("/api/v1/sessions:end-others", "{}", content_type="application/json", headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"ended": 1})
    assert (works(browser), works(other)) == (True, False)
    assert alice_api.post("sessions:end-others").json() == {"ended": 1}
    assert not works(browser)
    assert alice_api.get("me").status_code == 200  # a token is no browser


# Erasing --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_folder(tmp_path: Any, settings: Any) -> None:
    """Where the key is kept that signs the trail."""
    settings.CONFIG = settings.CONFIG.model_copy(update={"state_dir": tmp_path / "state"})


@pytest.fixture
def leaver(make_person: Callable[..., User], northwind: Organisation, team: Any) -> User:
    return make_person("Wilhelmina", northwind, Role.BUILDER, team=team)


@pytest.mark.usefixtures("own_folder")
def test_a_person_is_erased_as_the_plan_said_and_once(api_of: ApiOf, nadia_api: Api, leaver: User) -> None:
    theirs = api_of(leaver)
    assert theirs.post("me:change", {**PROFILE, "name": "Wilhelmina Wicks"}).status_code == 200
    plan = nadia_api.get(f"members/{leaver.pk}/erasure").json()
    assert {name: plan[name] for name in ("name", "entries", "roles", "tokens")} == {
        "name": "Wilhelmina Wicks",
        "entries": 1,
        "roles": 1,
        "tokens": 1,
    }
    done = nadia_api.post(f"members/{leaver.pk}:erase", {"sure": True}, key="one")
    assert done.status_code == 200, done.content
    assert done.json()["pseudonym"] == plan["pseudonym"]
    assert (done.json()["entries"], done.json()["kept"]) == (1, {})
    again = nadia_api.post(f"members/{leaver.pk}:erase", {"sure": True}, key="one")
    assert (again.json(), again["Idempotency-Replayed"]) == (done.json(), "true")
    assert Entry.objects.filter(event="person.erased").count() == 1
    assert theirs.get("me").status_code == 401
    for path in (f"members/{leaver.pk}", "members", "audit-entries", "search?q=Wilhelmina"):
        assert "wilhelmina" not in nadia_api.get(path).content.decode().lower(), path
    assert nadia_api.get(f"members/{leaver.pk}").status_code == 404
    assert nadia_api.post("audit-entries:verify").json()["intact"] is True


@pytest.mark.usefixtures("own_folder")
def test_nobody_is_erased_by_who_may_not_or_is_not_sure(
    alice_api: Api,
    nadia_api: Api,
    charlie_api: Api,
    leaver: User,
    nadia: User,
    bob: User,
    elsewhere: Organisation,
) -> None:
    Membership.objects.create(organisation=elsewhere, user=bob, role=Role.AUDITOR.value)
    for api in (alice_api, nadia_api, charlie_api):
        api.get("me")
    before = contents()
    tries = [
        (alice_api, leaver, {"sure": True}, 403, "permission.denied"),
        (charlie_api, leaver, {"sure": True}, 404, "person.not_found"),
        (nadia_api, leaver, {"sure": False}, 422, "person.not_confirmed"),
        (nadia_api, leaver, {}, 422, "request.invalid"),
        (nadia_api, leaver, {"sure": "true"}, 422, "request.invalid"),
        (nadia_api, nadia, {"sure": True}, 409, "person.erase_self"),
        (nadia_api, bob, {"sure": True}, 409, "person.belongs_elsewhere"),
    ]
    for api, person, body, status, code in tries:
        answer = api.post(f"members/{person.pk}:erase", body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (person.name, body)
    assert contents() == before
    assert not Restatement.objects.exists()
