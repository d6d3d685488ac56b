"""Members, invitations and tokens over REST: shut out and let in, renewed, replaced; and who may not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.tenancy.models import Invitation, Membership, Organisation, Team, Token, User
from tests.frontend.api.conftest import Api
from tests.frontend.pages.foreign import contents

ApiOf = Callable[..., Api]


def test_a_member_is_shut_out_and_let_back_in_with_their_roles(api_of: ApiOf, nadia_api: Api, bob: User) -> None:
    bobs = api_of(bob)
    assert bobs.get("missions").status_code == 200
    out = nadia_api.post(f"members/{bob.pk}:deactivate", key="one")
    assert out.status_code == 200, out.content
    assert out.json()["tokens"] == 1
    assert nadia_api.post(f"members/{bob.pk}:deactivate", key="one")["Idempotency-Replayed"] == "true"
    assert bobs.get("missions").status_code == 401
    back = nadia_api.post(f"members/{bob.pk}:reactivate")
    assert [item["role"] for item in back.json()["roles"]] == ["approver"]
    assert bobs.get("missions").status_code == 401  # what ended stays ended
    events = Entry.objects.filter(subject_id=bob.pk).order_by("id").values_list("event", flat=True)
    assert len(events) == 2, list(events)


@pytest.mark.parametrize("verb", ["deactivate", "reactivate", "reset-second-factor"])
def test_only_who_manages_members_shuts_anybody_out(
    alice_api: Api, charlie_api: Api, nadia_api: Api, nadia: User, bob: User, verb: str
) -> None:
    for api in (alice_api, charlie_api, nadia_api):
        api.get("me")
    before = contents()
    assert alice_api.post(f"members/{bob.pk}:{verb}").status_code == 403
    assert charlie_api.post(f"members/{bob.pk}:{verb}").status_code == 404
    if verb == "deactivate":
        own = nadia_api.post(f"members/{nadia.pk}:{verb}")
        assert (own.status_code, own.json()["code"]) == (409, "member.own_access")
    assert contents() == before


def test_roles_are_not_set_on_a_version_that_has_passed_nor_by_others(
    nadia_api: Api, alice_api: Api, bob: User
) -> None:
    path, wanted = f"members/{bob.pk}", {"roles": [{"role": "auditor"}]}
    etag = nadia_api.get(path)["ETag"]
    alice_api.get("me")
    before = contents()
    assert alice_api.post(f"{path}:set-roles", wanted, if_match=etag).status_code == 403
    assert nadia_api.post(f"{path}:set-roles", wanted).status_code == 428
    assert nadia_api.post(f"{path}:set-roles", {"roles": [{"role": "king"}]}, if_match=etag).status_code == 422
    assert contents() == before
    assert nadia_api.post(f"{path}:set-roles", wanted, if_match=etag).status_code == 200
    gone = nadia_api.post(f"{path}:set-roles", {"roles": []}, if_match=nadia_api.get(path)["ETag"])
    assert (gone.status_code, gone.content) == (204, b"")
    assert not Membership.objects.filter(user=bob).exists()


def test_an_invitation_is_renewed_and_the_old_link_is_dead(nadia_api: Api, charlie_api: Api) -> None:
    made = nadia_api.post("invitations", {"email": "ada@acme.example", "roles": [{"role": "auditor"}]}).json()
    charlie_api.get("me")
    before = contents()
    for verb in ("renew", "revoke"):
        assert charlie_api.post(f"invitations/{made['id']}:{verb}").status_code == 404
    assert contents() == before
    renewed = nadia_api.post(f"invitations/{made['id']}:renew")
    assert renewed.status_code == 200, renewed.content
    assert renewed.json()["link"] != made["link"]
    assert Invitation.objects.open().count() == 1
    assert nadia_api.post(f"invitations/{made['id']}:revoke").status_code == 204
    assert nadia_api.post(f"invitations/{made['id']}:renew").status_code == 404
    assert not Invitation.objects.open().exists()


@pytest.fixture
def own_token(alice_api: Api) -> dict[str, Any]:
    expires_at = (now() + timedelta(minutes=30)).isoformat()
    made = alice_api.post("tokens", {"kind": "pat", "name": "Script", "expires_at": expires_at})
    assert made.status_code == 201, made.content
    found: dict[str, Any] = made.json()
    return found


def test_a_token_is_replaced_once_and_the_old_one_lives_as_long_as_was_said(
    alice_api: Api, own_token: dict[str, Any]
) -> None:
    old, path = Api(own_token["token"]), f"tokens/{own_token['id']}:rotate"
    made = alice_api.post(path, {"overlap_seconds": 3600}, key="one")
    assert made.status_code == 201, made.content
    assert alice_api.post(path, {"overlap_seconds": 3600}, key="one").json()["token"] == made.json()["token"]
    assert [old.get("missions").status_code, Api(made.json()["token"]).get("missions").status_code] == [200, 200]
    again = alice_api.post(path, {"overlap_seconds": 0})
    assert (again.status_code, again.json()["code"]) == (409, "token.dead")
    Token.objects.filter(pk=own_token["id"]).update(expires_at=now() - timedelta(seconds=1))
    assert old.get("missions").status_code == 401
    told = Entry.objects.get(event="token.rotated")
    assert own_token["token"] not in str(told.payload)


def test_nobody_replaces_or_revokes_a_token_that_is_not_theirs(
    api_of: ApiOf, nadia_api: Api, bob: User, charlie_api: Api, own_token: dict[str, Any]
) -> None:
    bobs = api_of(bob)
    for api in (bobs, charlie_api, nadia_api):
        api.get("me")
    before = contents()
    for api in (bobs, charlie_api):
        assert api.post(f"tokens/{own_token['id']}:rotate", {"overlap_seconds": 0}).status_code == 404
        assert api.post(f"tokens/{own_token['id']}:revoke").status_code == 404
    admin = nadia_api.post(f"tokens/{own_token['id']}:rotate", {"overlap_seconds": 0})
    assert admin.status_code == 403  # it would act as somebody else
    endless = Api(own_token["token"]).post(f"tokens/{own_token['id']}:rotate", {"overlap_seconds": 10**9})
    assert endless.status_code == 422
    assert {**contents(), "tenancy_token": ""} == {**before, "tenancy_token": ""}  # which notes the last use
    assert Token.objects.get(pk=own_token["id"]).revoked_at is None


def test_a_team_is_added_once_by_who_may(nadia_api: Api, alice_api: Api, northwind: Organisation) -> None:
    alice_api.get("me")
    before = contents()
    assert alice_api.post("teams", {"name": "Claims"}).status_code == 403
    assert nadia_api.post("teams", {"name": " "}).status_code == 422
    assert {**contents(), "tenancy_token": ""} == {**before, "tenancy_token": ""}  # which notes the last use
    made = nadia_api.post("teams", {"name": "Claims"})
    assert (made.status_code, made["Location"]) == (201, f"/api/v1/teams/{made.json()['id']}")
    assert nadia_api.post("teams", {"name": "Claims"}).status_code == 409
    assert Team.objects.filter(organisation=northwind, name="Claims").count() == 1
