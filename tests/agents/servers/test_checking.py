"""The regular look at servers, tests that people ask for, and which teams a server is for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agents.choices import ServerState, ServerTestState, ToolState, Transport
from agents.gateways.catalogue import granted_tools, pinned_tool
from agents.models import McpServer, McpTool, ServerHour, ServerTest
from agents.servers import checking, health, selectors, services
from agents.servers.health import Health, Use
from agents.servers.types import MountRequest
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Team
from controlplane.tenancy.types import Principal

pytestmark = pytest.mark.django_db


def due(row: McpServer) -> McpServer:
    McpServer.objects.filter(pk=row.pk).update(next_check_at=now() - timedelta(seconds=1))
    return row


def minutes_to_next_check(row: McpServer) -> float:
    row.refresh_from_db()
    assert row.next_check_at is not None
    return (row.next_check_at - now()).total_seconds() / 60


def listed(actor: Principal, row: McpServer) -> None:
    checking.run_test(checking.ask_for_test(actor=actor, server_id=row.pk).pk)


def test_a_server_nobody_has_listed_is_not_looked_at(far: McpServer) -> None:
    """The first listing is approved by whoever asks for it: nobody has."""
    assert checking.check_due_servers() == 0
    far.refresh_from_db()
    assert (far.state, far.next_check_at) == (ServerState.NEW, None)


def test_a_look_finds_it_well_and_says_how_long_it_took(as_nadia: Principal, far: McpServer) -> None:
    listed(as_nadia, far)
    assert checking.check_due_servers() == 0
    assert 4 < minutes_to_next_check(far) < 6
    due(far)
    assert checking.check_due_servers() == 1
    far.refresh_from_db()
    assert far.state == ServerState.OK
    assert far.latency_milliseconds is not None
    assert health.health_of([far.pk])[far.pk] == Health(checks=2)


def test_a_changed_definition_is_found_by_the_look(as_nadia: Principal, far: McpServer, upstream: Any) -> None:
    listed(as_nadia, far)
    upstream.description = "Now it says something else."
    due(far)
    checking.check_due_servers()
    assert McpTool.objects.get().state == ToolState.QUARANTINED


def test_one_that_fails_is_looked_at_less_and_less_and_soon_again_when_it_is_back(
    as_nadia: Principal, far: McpServer, upstream: Any
) -> None:
    listed(as_nadia, far)
    upstream.status = 500
    pauses = []
    for _ in range(9):
        due(far)
        assert checking.check_due_servers() == 1
        pauses.append(minutes_to_next_check(far))
    assert far.state == ServerState.UNREACHABLE
    assert far.failures == 9
    assert pauses[0] < 1.2
    assert 1.5 < pauses[1] < 2.3
    assert 50 < pauses[-1] < 67
    assert health.health_of([far.pk])[far.pk].failed_checks == 9
    assert McpTool.objects.get().state == ToolState.ACTIVE
    upstream.status = 0
    due(far)
    checking.check_due_servers()
    assert 4 < minutes_to_next_check(far) < 6
    assert (far.state, far.failures) == (ServerState.OK, 0)


def test_one_switched_off_or_that_needs_a_missions_folder_is_left_alone(as_nadia: Principal, far: McpServer) -> None:
    listed(as_nadia, far)
    services.switch_server(actor=as_nadia, server_id=far.pk, on=False)
    far.refresh_from_db()
    assert far.next_check_at is None
    program = services.register_server(
        actor=as_nadia, name="Book", slug="book", transport=Transport.STDIO, environment="sqlite",
        mounts=[MountRequest("missions/{mission}/book", "/book", writable=True)],
    )  # fmt: skip
    program.protocol_version = "2025-11-25"
    assert health.next_check(program) is None


def test_two_workers_look_at_a_server_once(as_nadia: Principal, far: McpServer) -> None:
    listed(as_nadia, far)
    due(far)
    assert len(checking._claim_due()) == 1
    assert checking._claim_due() == []


def test_a_test_is_carried_out_once(as_nadia: Principal, far: McpServer, upstream: Any) -> None:
    test = checking.ask_for_test(actor=as_nadia, server_id=far.pk)
    assert checking.ask_for_test(actor=as_nadia, server_id=far.pk).pk == test.pk
    checking.run_test(test.pk)
    seen = len(upstream.seen)
    checking.run_test(test.pk)
    assert len(upstream.seen) == seen
    test.refresh_from_db()
    assert [step["step"] for step in test.steps] == ["Connect", "Read its tools"]
    assert McpTool.objects.get().approved_by_id == as_nadia.user_id
    assert Entry.objects.filter(event="server.tested").count() == 1


def test_no_more_tests_run_at_once_than_leave_the_worker_free(as_nadia: Principal, far: McpServer) -> None:
    for number in range(checking.TESTS_AT_ONCE):
        other = services.register_server(
            actor=as_nadia, name="x", slug=f"x{number}", transport=Transport.HTTP, url="https://x.example/mcp"
        )
        busy = checking.ask_for_test(actor=as_nadia, server_id=other.pk)
        ServerTest.objects.filter(pk=busy.pk).update(state=ServerTestState.RUNNING, started_at=now())
    test = checking.ask_for_test(actor=as_nadia, server_id=far.pk)
    checking.run_test(test.pk)
    test.refresh_from_db()
    assert test.state == ServerTestState.WAITING


def test_a_test_that_was_cut_off_ends_as_failed(as_nadia: Principal, far: McpServer) -> None:
    test = checking.ask_for_test(actor=as_nadia, server_id=far.pk)
    ServerTest.objects.filter(pk=test.pk).update(
        state=ServerTestState.RUNNING, started_at=now() - timedelta(minutes=10)
    )
    checking.sweep_tests()
    test.refresh_from_db()
    assert (test.state, test.steps[-1]["said"]) == (ServerTestState.FAILED, "It was cut off. Test it again.")


def test_uses_add_up_by_the_hour_and_are_forgotten(far: McpServer, nobody: Any) -> None:
    for _ in range(2):
        health.note_use({far.pk: Use(calls=3, failed=1, milliseconds=90), nobody: Use(calls=1)})
    found = health.health_of([far.pk, nobody])
    assert found == {far.pk: Health(calls=6, failed_calls=2, call_milliseconds=180)}
    assert found[far.pk].usual_milliseconds == 30
    ServerHour.objects.update(hour=now() - timedelta(days=8))
    assert health.forget_old_hours() == 1


def test_a_team_that_a_server_is_not_for_neither_sees_nor_reaches_it(
    as_nadia: Principal, as_alice: Principal, far: McpServer, other_team: Team, make_mission: Any, as_run: Principal
) -> None:
    listed(as_nadia, far)
    from agents.models import MissionVersion

    MissionVersion.objects.update(grants=[{"tool": "far__echo", "effect": "allow", "constraints": {}}])
    assert [tool["name"] for tool in granted_tools(as_run)] == ["far__echo"]
    assert pinned_tool(as_run, "far__echo") is not None
    services.set_teams(actor=as_nadia, server_id=far.pk, team_ids=[other_team.pk])
    assert granted_tools(as_run) == []
    assert pinned_tool(as_run, "far__echo") is None
    assert list(selectors.servers(as_alice)) == []
    assert selectors.tool_names(as_alice) == []
    assert Entry.objects.get(event="server.teams_set").payload == {"teams": "Logistics"}


def test_who_writes_servers_in_one_team_changes_only_what_that_team_has(
    as_nadia: Principal, as_alice: Principal, far: McpServer, team: Team, other_team: Team
) -> None:
    own = services.register_server(
        actor=as_alice, name="Own", slug="own", transport=Transport.HTTP, url="https://own.example/mcp"
    )
    assert own.team_ids == [team.pk]
    for server, wanted in ((far, [team.pk]), (own, None), (own, [team.pk, other_team.pk])):
        with pytest.raises(RemitError) as caught:
            services.set_teams(actor=as_alice, server_id=server.pk, team_ids=wanted)
        assert caught.value.status == 403
    far.refresh_from_db()
    own.refresh_from_db()
    assert (far.team_ids, own.team_ids) == (None, [team.pk])


def test_a_team_of_another_organisation_or_none_at_all_is_refused(
    as_nadia: Principal, far: McpServer, elsewhere: Any
) -> None:
    stranger = Team.objects.create(organisation=elsewhere, name="Theirs", slug="theirs")
    for wanted in ([], [stranger.pk]):
        with pytest.raises(RemitError) as caught:
            services.set_teams(actor=as_nadia, server_id=far.pk, team_ids=wanted)
        assert caught.value.code == "server.teams"
    far.refresh_from_db()
    assert far.team_ids is None
