"""Who is asked, the organisation's settings and what is one's own over REST: the same services, the same refusals."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core import mail

from agents.models import McpServer
from controlplane.audit.models import Entry
from controlplane.tenancy.models import Organisation, Team, User
from governance.approval_models import ApprovalRoute, ApproverGroup
from tests.frontend.api.conftest import Api


def test_a_group_and_a_route_are_made_changed_on_what_was_read_and_removed(nadia_api: Api, bob: User) -> None:
    made = nadia_api.post("approver-groups", {"name": "Desk", "member_ids": [str(bob.pk)]})
    group = made.json()["id"]
    later = {"name": "Night desk", "member_ids": [str(bob.pk)]}
    assert nadia_api.post(f"approver-groups/{group}:change", later, if_match=made["ETag"]).status_code == 200
    stale = nadia_api.post(f"approver-groups/{group}:change", {**later, "name": "Day desk"}, if_match=made["ETag"])
    assert (stale.status_code, ApproverGroup.objects.get().name) == (412, "Night desk")
    route = nadia_api.post("approval-routes", {"name": "Dear", "amount_above": "100.00", "group_id": group}).json()
    assert "Night desk" in route["sentence"]
    held = nadia_api.post(f"approver-groups/{group}:retire")
    assert (held.status_code, held.json()["code"]) == (409, "group.in_use")
    assert nadia_api.post(f"approval-routes/{route['id']}:remove").status_code == 204
    assert nadia_api.post(f"approver-groups/{group}:retire").status_code == 204
    assert not ApprovalRoute.objects.exists()
    assert Entry.objects.filter(event__startswith="approval_route.").count() == 2


def test_a_route_is_changed_on_what_was_read_and_by_administrators_alone(
    nadia_api: Api, alice_api: Api, api_of: Callable[..., Api], bob: User, charlie: User
) -> None:
    made = nadia_api.post("approval-routes", {"name": "Dear", "amount_above": "100.00"})
    path = f"approval-routes/{made.json()['id']}"
    later = {"name": "Dearer", "amount_above": "200.00", "needed": 2}
    for other, status in ((alice_api, 403), (api_of(bob), 403), (api_of(charlie), 404)):
        assert other.post(f"{path}:change", later, if_match=made["ETag"]).status_code == status
    assert ApprovalRoute.objects.get().name == "Dear"
    changed = nadia_api.post(f"{path}:change", later, if_match=made["ETag"])
    assert (changed.status_code, changed.json()["position"]) == (200, made.json()["position"])
    stale = nadia_api.post(f"{path}:change", {**later, "name": "Dearest"}, if_match=made["ETag"])
    assert (stale.status_code, ApprovalRoute.objects.get().name) == (412, "Dearer")
    assert Entry.objects.filter(event="approval_route.changed").count() == 2


@pytest.mark.parametrize("amount", ["much", "1e3", "-1", "0x10", "NaN", "1_000", ""])
def test_an_amount_that_is_no_number_is_refused_with_its_place(nadia_api: Api, team: Team, amount: str) -> None:
    query = urlencode({"kind": "tool.call", "team": team.pk, "amount": amount})
    asked = nadia_api.get(f"approval-routes:try?{query}")
    made = nadia_api.post("approval-routes", {"name": "Dear", "amount_above": amount})
    assert [asked.status_code, made.status_code] == [422, 422], (asked.json(), made.json())
    assert not ApprovalRoute.objects.exists()


def test_of_a_team_or_a_kind_that_there_is_not_no_way_is_told(nadia_api: Api, charlie_api: Api, team: Team) -> None:
    def tried(api: Api, **changes: Any) -> Any:
        return api.get(f"approval-routes:try?{urlencode({'kind': 'tool.call', 'team': team.pk, **changes})}")

    assert tried(nadia_api).json()["way"]["needed"] == 1
    for api, changes in ((nadia_api, {"team": uuid.uuid4()}), (charlie_api, {})):
        answer = tried(api, **changes)
        assert (answer.status_code, answer.json()["code"]) == (404, "team.not_found")
    answer = tried(nadia_api, kind="tool.cal")
    assert (answer.status_code, answer.json()["code"]) == (422, "action.unknown_kind")


def test_a_builder_arranges_nothing(alice_api: Api, bob: User) -> None:
    answer = alice_api.post("approver-groups", {"name": "Desk", "member_ids": [str(bob.pk)]})
    assert answer.status_code == 403
    assert not ApproverGroup.objects.exists()


def test_settings_are_changed_on_what_was_read(nadia_api: Api, northwind: Organisation) -> None:
    shown = nadia_api.get("organisation")
    names = ("name", "time_zone", "sign_off_above", "token_days_max", "second_factor_required")
    body = {**{name: shown.json()[name] for name in names}, "name": "Northwind Traders"}
    assert nadia_api.post("organisation:change", body, if_match=shown["ETag"]).json()["name"] == "Northwind Traders"
    assert nadia_api.post("organisation:change", body, if_match=shown["ETag"]).status_code == 412
    assert Entry.objects.filter(event="organisation.changed").count() == 1


def test_an_invitation_is_mailed_as_the_page_mails_it(nadia_api: Api, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"email_url": "smtp://mail.example"})
    made = nadia_api.post("invitations", {"email": "ines@northwind.example", "roles": [{"role": "auditor"}]}).json()
    (message,) = mail.outbox
    assert (made["mailed"], message.to) == (True, ["ines@northwind.example"])
    assert made["link"] in message.body


def test_a_servers_secret_goes_in_and_never_comes_out(nadia_api: Api, northwind: Organisation, nadia: User) -> None:
    fields = {"transport": "http", "url": "https://books.example/mcp", "created_by": nadia}
    server = McpServer.objects.create(organisation=northwind, name="Books", slug="books", **fields)
    secret = "0123456789abcdef"
    answer = nadia_api.post(f"mcp-servers/{server.pk}:set-credential", {"kind": "bearer", "secret": secret})
    assert (answer.status_code, answer.json()["credential"]) == (200, "bearer")
    for path in (f"mcp-servers/{server.pk}", "mcp-servers", "audit-entries"):
        assert secret not in nadia_api.get(path).content.decode()


def test_views_and_search_are_ones_own(alice_api: Api, api_of: Callable[..., Api], charlie: User, mission: Any) -> None:
    made = alice_api.post("saved-views", {"list": "missions", "name": "Mine", "query": "state=active"}).json()
    assert [view["name"] for view in alice_api.get("saved-views?list=missions").json()["items"]] == ["Mine"]
    other = alice_api.post("saved-views", {"list": "agents", "name": "Own", "query": "state=active"}).json()
    listed = [(view["list"], view["id"]) for view in alice_api.get("saved-views").json()["items"]]
    assert listed == [("missions", made["id"]), ("agents", other["id"])]
    assert [hit["id"] for hit in alice_api.get(f"search?q={mission.pk}").json()["items"]] == [str(mission.pk)]
    stranger = api_of(charlie)
    assert stranger.get(f"search?q={mission.pk}").json() == {"items": []}
    assert stranger.post(f"saved-views/{made['id']}:remove").status_code == 404
    assert alice_api.post(f"saved-views/{made['id']}:remove").status_code == 204
