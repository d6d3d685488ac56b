"""Changes of MCP servers over REST: for which teams they are, what Remit shows them, which tools are approved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agents.models import McpServer, McpTool
from controlplane.audit.models import Entry
from controlplane.tenancy.models import Membership, Organisation, Team, User
from tests.frontend.api.conftest import Api
from tests.frontend.pages.foreign import contents


@pytest.fixture
def server(northwind: Organisation, nadia: User) -> McpServer:
    """For every team of Northwind."""
    fields = {"transport": "http", "url": "https://books.example/mcp", "created_by": nadia}
    return McpServer.objects.create(organisation=northwind, name="Books", slug="books", **fields)


def path_of(server: McpServer) -> str:
    return f"mcp-servers/{server.pk}"


def test_teams_are_set_on_what_was_read_and_told_once(
    nadia_api: Api, alice_api: Api, server: McpServer, team: Team, other_team: Team
) -> None:
    path = path_of(server)
    read = nadia_api.get(path)
    assert read.json()["team_ids"] is None
    for_logistics = {"team_ids": [str(other_team.pk)]}
    assert nadia_api.post(f"{path}:set-teams", for_logistics).status_code == 428
    done = nadia_api.post(f"{path}:set-teams", for_logistics, key="one", if_match=read["ETag"])
    assert (done.status_code, done.json()["team_ids"]) == (200, [str(other_team.pk)])
    again = nadia_api.post(f"{path}:set-teams", for_logistics, key="one", if_match=read["ETag"])
    assert again["Idempotency-Replayed"] == "true"
    assert alice_api.get(path).status_code == 404  # she is in another team
    before = contents()
    stale = nadia_api.post(f"{path}:set-teams", {"team_ids": None}, if_match=read["ETag"])
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition.failed")
    assert contents() == before
    wide = nadia_api.post(f"{path}:set-teams", {"team_ids": None}, if_match=done["ETag"])
    assert wide.json()["team_ids"] is None
    told = Entry.objects.filter(event="server.teams_set").order_by("id")
    assert [entry.payload["teams"] for entry in told] == ["Logistics", "every team"]


def test_teams_that_are_none_of_ones_own_are_refused_and_nothing_changes(
    alice_api: Api, nadia_api: Api, api_of: Callable[..., Api], bob: User, server: McpServer, team: Team, elsewhere: Any
) -> None:
    strangers = Team.objects.create(organisation=elsewhere, name="Theirs", slug="theirs")
    path, etag = path_of(server), nadia_api.get(path_of(server))["ETag"]
    bobs = api_of(bob)
    for api in (alice_api, bobs):
        assert api.get(path).status_code == 200
    before = contents()
    tries = [
        (nadia_api, [], 422, "server.teams"),
        (nadia_api, [str(strangers.pk)], 422, "server.teams"),
        (nadia_api, "every", 422, "request.invalid"),
        (alice_api, [str(team.pk)], 403, "permission.denied"),  # others would lose it
        (bobs, [str(team.pk)], 403, "permission.denied"),
    ]
    for api, teams, status, code in tries:
        answer = api.post(f"{path}:set-teams", {"team_ids": teams}, if_match=etag)
        assert (answer.status_code, answer.json()["code"]) == (status, code), teams
    assert contents() == before


def test_who_gives_a_server_away_gets_an_answer_without_it(
    alice_api: Api, server: McpServer, team: Team, other_team: Team
) -> None:
    McpServer.objects.update(team_ids=sorted([team.pk, other_team.pk]))
    path = path_of(server)
    etag = alice_api.get(path)["ETag"]
    done = alice_api.post(f"{path}:set-teams", {"team_ids": [str(other_team.pk)]}, if_match=etag)
    assert (done.status_code, done.content) == (204, b"")
    server.refresh_from_db()
    assert server.team_ids == [other_team.pk]
    assert alice_api.get(path).status_code == 404
    assert alice_api.post(f"{path}:set-teams", {"team_ids": [str(team.pk)]}, if_match=etag).status_code == 404


def test_a_credential_is_set_and_taken_away_by_who_writes_servers(
    nadia_api: Api, api_of: Callable[..., Api], bob: User, server: McpServer
) -> None:
    path, secret = path_of(server), {"kind": "bearer", "secret": "0123456789abcdef"}
    bobs = api_of(bob)
    bobs.get(path)
    before = contents()
    assert bobs.post(f"{path}:set-credential", secret).status_code == 403
    assert bobs.post(f"{path}:remove-credential").status_code == 403
    assert contents() == before
    assert nadia_api.post(f"{path}:set-credential", secret).json()["credential"] == "bearer"
    assert nadia_api.post(f"{path}:remove-credential").json()["credential"] is None
    events = list(Entry.objects.order_by("id").values_list("event", flat=True))
    assert len(events) == 2, events


def test_what_counts_for_every_team_is_changed_by_nobody_who_writes_servers_in_one(
    alice_api: Api, nadia_api: Api, server: McpServer, team: Team, other_team: Team
) -> None:
    tool = McpTool.objects.create(
        server=server,
        name="read",
        qualified_name="books__read",
        definition={"name": "read", "inputSchema": {"type": "object"}},
        definition_sha256="sha256:1",
        state="quarantined",
    )
    path, secret = path_of(server), {"kind": "bearer", "secret": "0123456789abcdef"}
    traits = {"read_only": True, "reversible": True, "effects": []}
    nadia_api.post(f"{path}:set-credential", secret)
    etag = alice_api.get(f"tools/{tool.pk}")["ETag"]
    tries = [
        *((f"{path}:{verb}", {}) for verb in ("switch-off", "switch-on", "remove-credential", "refresh", "test")),
        (f"{path}:set-credential", secret),
        (f"tools/{tool.pk}:approve", {"sha256": "sha256:1"}),
        (f"tools/{tool.pk}:describe", traits),
    ]
    for teams in (None, sorted([team.pk, other_team.pk])):
        McpServer.objects.update(team_ids=teams)
        before = contents()
        for address, body in tries:
            answer = alice_api.post(address, body, if_match=etag)
            assert (answer.status_code, answer.json()["code"]) == (403, "permission.denied"), address
        assert contents() == before
    McpServer.objects.update(team_ids=[team.pk])
    assert alice_api.post(f"tools/{tool.pk}:approve", {"sha256": "sha256:1"}).status_code == 200
    assert alice_api.post(f"{path}:switch-off").json()["state"] == "disabled"


def test_a_definition_is_approved_by_the_hash_that_was_read(nadia_api: Api, server: McpServer) -> None:
    tool = McpTool.objects.create(
        server=server,
        name="read",
        qualified_name="books__read",
        definition={"name": "read"},
        definition_sha256="sha256:1",
        state="quarantined",
        pending_definition={"name": "read", "inputSchema": {"type": "object"}},
        pending_sha256="sha256:2",
    )
    nadia_api.get(f"tools/{tool.pk}")
    before = contents()
    other = nadia_api.post(f"tools/{tool.pk}:approve", {"sha256": "sha256:1"})
    assert other.status_code == 409, other.content
    assert contents() == before
    done = nadia_api.post(f"tools/{tool.pk}:approve", {"sha256": "sha256:2"})
    assert (done.status_code, done.json()["state"]) == (200, "active")


def test_only_a_member_of_the_organisation_finds_a_server(charlie_api: Api, charlie: User, server: McpServer) -> None:
    charlie_api.get("mcp-servers")
    before = contents()
    for verb, body in (("set-teams", {"team_ids": None}), ("remove-credential", {}), ("switch-off", {})):
        assert charlie_api.post(f"{path_of(server)}:{verb}", body, if_match='"1-0"').status_code == 404, verb
    assert contents() == before
    assert Membership.objects.filter(user=charlie).exists()


@pytest.mark.parametrize("verb", ["test", "refresh"])
def test_a_server_that_is_switched_off_is_not_connected_to(nadia_api: Api, server: McpServer, verb: str) -> None:
    path = path_of(server)
    assert nadia_api.post(f"{path}:switch-off").status_code == 200
    before = contents()
    answer = nadia_api.post(f"{path}:{verb}", {})
    assert (answer.status_code, answer.json()["code"]) == (409, "server.off")
    assert contents() == before


@pytest.mark.parametrize("verb", ["test", "refresh"])
def test_no_server_is_connected_to_while_everything_is_stopped(nadia_api: Api, server: McpServer, verb: str) -> None:
    organisation = str(server.organisation_id)
    stopped = nadia_api.post("stops", {"scope": "organisation", "scope_id": organisation, "reason": "drill"})
    assert stopped.status_code == 201, stopped.content
    answer = nadia_api.post(f"{path_of(server)}:{verb}", {})
    assert (answer.status_code, answer.json()["code"]) == (409, "stop.in_force")
    server.refresh_from_db()
    assert (server.state, server.checked_at) == ("new", None)


def test_a_server_is_registered_for_the_teams_that_are_named(
    nadia_api: Api, alice_api: Api, team: Team, other_team: Team
) -> None:
    body = {"name": "Books", "slug": "books", "transport": "http", "url": "https://books.example/mcp"}
    made = nadia_api.post("mcp-servers", {**body, "team_ids": [str(other_team.pk)]})
    assert (made.status_code, made.json()["team_ids"]) == (201, [str(other_team.pk)])
    assert alice_api.get(f"mcp-servers/{made.json()['id']}").status_code == 404
    theirs = alice_api.post("mcp-servers", {**body, "slug": "more", "team_ids": [str(other_team.pk)]})
    assert (theirs.status_code, theirs.json()["code"]) == (403, "permission.denied")
    own = alice_api.post("mcp-servers", {**body, "slug": "own"})
    assert own.json()["team_ids"] == [str(team.pk)]
