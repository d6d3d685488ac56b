"""The regular look at servers, tests that people ask for, and which teams a server is for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from agents import services as missions
from agents.choices import ServerState, ServerTestState, StopScope, ToolState, Transport
from agents.gateways.catalogue import granted_tools, pinned_tool
from agents.models import McpServer, McpTool, ServerHour, ServerTest
from agents.servers import checking, health, selectors, services
from agents.servers.health import Health, Use
from agents.servers.types import MountRequest, ToolTraits
from controlplane.audit.models import Entry
from controlplane.common.canonical import digest
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Membership, Team
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


def tried(actor: Principal, row: McpServer, **before_the_worker: Callable[[], Any]) -> ServerTest:
    """A call asked for, then something happens, then a worker takes it up."""
    tool = McpTool.objects.get(server=row)
    test = checking.ask_for_test(actor=actor, server_id=row.pk, tool_id=tool.pk, arguments={"pay": "everything"})
    for happens in before_the_worker.values():
        happens()
    checking.run_test(test.pk)
    test.refresh_from_db()
    return test


def describe(actor: Principal, row: McpServer) -> None:
    traits = ToolTraits(read_only=True, reversible=False, effects=())
    services.describe_tool(actor=actor, tool_id=McpTool.objects.get(server=row).pk, traits=traits)


def test_nobody_calls_a_tool_by_saying_themselves_that_it_only_reads(
    as_nadia: Principal, as_alice: Principal, far: McpServer, upstream: Any
) -> None:
    upstream.annotations = {"readOnlyHint": False}
    listed(as_nadia, far)
    describe(as_nadia, far)
    for actor in (as_alice, as_nadia):
        with pytest.raises(RemitError) as caught:
            tried(actor, far)
        assert caught.value.code == "server.test"
    assert upstream.calls == []
    assert Entry.objects.filter(event="server.tested").count() == 1  # the listing


def test_the_trail_says_what_was_called_and_with_which_arguments(
    as_nadia: Principal, as_alice: Principal, far: McpServer, upstream: Any
) -> None:
    listed(as_nadia, far)
    describe(as_nadia, far)
    assert tried(as_alice, far).state == ServerTestState.PASSED
    assert [call["arguments"] for call in upstream.calls] == [{"pay": "everything"}]
    told = Entry.objects.filter(event="server.tested").latest("pk")
    assert told.payload["tool"] == "far__echo"
    assert told.payload["arguments"] == digest({"pay": "everything"})


@pytest.mark.parametrize("what", ["off", "stop", "gone", "unsaid"])
def test_what_happens_between_asking_and_calling_keeps_the_call_from_being_made(
    what: str, as_nadia: Principal, as_alice: Principal, far: McpServer, upstream: Any
) -> None:
    listed(as_nadia, far)
    describe(as_nadia, far)
    met = len(upstream.seen)
    happens: dict[str, Callable[[], Any]] = {
        "off": lambda: services.switch_server(actor=as_nadia, server_id=far.pk, on=False),
        "stop": lambda: missions.stop(
            actor=as_nadia, scope=StopScope.ORGANISATION, scope_id=as_nadia.organisation_id, reason="x"
        ),
        "gone": lambda: Membership.objects.filter(user_id=as_alice.user_id).delete(),
        "unsaid": lambda: McpTool.objects.update(read_only=False),
    }
    test = tried(as_alice, far, happens=happens[what])
    assert test.state == ServerTestState.FAILED
    assert upstream.calls == []
    if what != "unsaid":
        assert test.steps[-1]["said"].startswith("Not connected: ")
        assert len(upstream.seen) == met


def test_a_server_switched_off_while_the_test_connects_is_not_called(
    as_nadia: Principal, far: McpServer, upstream: Any
) -> None:
    listed(as_nadia, far)
    describe(as_nadia, far)
    test = checking.ask_for_test(
        actor=as_nadia, server_id=far.pk, tool_id=McpTool.objects.get().pk, arguments={"pay": "everything"}
    )
    with switched_off_by_the_listing(far):
        checking.run_test(test.pk)
    test.refresh_from_db()
    assert test.steps[-1]["said"] == "Not called: The server “Far” is switched off."
    assert upstream.calls == []


@contextlib.contextmanager
def switched_off_by_the_listing(row: McpServer) -> Iterator[None]:
    """The database itself does it as soon as the test has written its second step."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION pg_temp.off() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "UPDATE agents_mcpserver SET state = 'disabled' WHERE jsonb_array_length(NEW.steps) = 2 "
            "AND id = NEW.server_id; RETURN NULL; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER off AFTER UPDATE ON agents_servertest FOR EACH ROW EXECUTE FUNCTION pg_temp.off()"
        )
        yield
        cursor.execute("DROP TRIGGER off ON agents_servertest")


def test_a_stop_of_a_team_keeps_those_it_reaches_from_testing(
    as_nadia: Principal, as_alice: Principal, far: McpServer, team: Team, other_team: Team
) -> None:
    listed(as_nadia, far)
    missions.stop(actor=as_nadia, scope=StopScope.TEAM, scope_id=team.pk, reason="x")
    with pytest.raises(RemitError) as caught:
        checking.ask_for_test(actor=as_alice, server_id=far.pk)
    assert caught.value.code == "stop.in_force"
    listed(as_nadia, far)  # whoever writes every team's servers, of a server for every team
    services.set_teams(actor=as_nadia, server_id=far.pk, team_ids=[team.pk, other_team.pk])
    with pytest.raises(RemitError) as caught:
        checking.ask_for_test(actor=as_nadia, server_id=far.pk)
    assert caught.value.code == "stop.in_force"


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
