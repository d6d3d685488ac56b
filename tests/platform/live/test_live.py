"""Pages hear of what they may see, at once, and of nothing else; who breaks the rules or loses the right is dropped."""

from __future__ import annotations

import json
import socket
import time

import pytest
import redis
from django.conf import settings
from django.db import transaction
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect

from agents.models import Stop
from budgets import services as budgets
from budgets.types import Level, Limits, WindowKind
from controlplane.common import metrics
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.live import hub
from controlplane.live.services import _CHECKS, announce
from controlplane.tenancy import tokens
from controlplane.tenancy.models import Membership, TokenKind
from controlplane.tenancy.types import system_principal
from governance.models import Action

pytestmark = pytest.mark.django_db(transaction=True)


def topic_of(mission) -> str:
    return f"mission:{mission.pk}"


def closed(page, seconds: float = 15) -> tuple[int, str]:
    """Code and reason with which the server ends the connection."""
    deadline = time.monotonic() + seconds
    with pytest.raises(ConnectionClosed) as ended:  # noqa: PT012
        while time.monotonic() < deadline:
            page.connection.recv(timeout=max(0.1, deadline - time.monotonic()))
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason


def test_a_hint_arrives_after_the_commit_and_not_before(open_page, alice, mission) -> None:
    page = open_page(alice)
    page.say({"subscribe": [topic_of(mission)]})
    assert page.hear() == {"subscribed": [topic_of(mission)]}
    with transaction.atomic():
        announce(topic_of(mission), "actions")
        with pytest.raises(TimeoutError):
            page.hear(0.4)
    hint = page.hear()
    assert (hint["topic"], hint["what"]) == (topic_of(mission), "actions")
    assert set(hint) == {"topic", "what", "version"}
    announce(topic_of(mission), "budget")
    assert page.hear()["version"] > hint["version"]


def test_nothing_is_announced_by_a_transaction_that_fails(open_page, alice, mission) -> None:
    page = open_page(alice)
    page.say({"subscribe": [topic_of(mission)]})
    page.hear()
    with pytest.raises(ZeroDivisionError), transaction.atomic():  # noqa: PT012
        announce(topic_of(mission), "actions")
        raise ZeroDivisionError
    with pytest.raises(TimeoutError):
        page.hear(0.5)


def test_what_changed_while_a_page_was_on_its_way_is_told_to_it_once_it_listens(
    open_page, alice, charlie, mission, monkeypatch
) -> None:
    first = open_page(alice)
    first.say({"subscribe": [topic_of(mission)]})
    first.hear()
    announce(topic_of(mission), "actions")
    assert first.hear()["what"] == "actions"
    late, stranger = open_page(alice), open_page(charlie)
    late.say({"subscribe": [topic_of(mission)]})
    heard = [late.hear(), late.hear()]
    assert {"subscribed": [topic_of(mission)]} in heard
    assert [hint["what"] for hint in heard if "what" in hint] == ["actions"]
    stranger.say({"subscribe": [topic_of(mission)]})
    assert stranger.hear() == {"refused": [topic_of(mission)]}
    monkeypatch.setattr(hub, "RECENT_SECONDS", 0.0)  # long ago
    later = open_page(alice)
    later.say({"subscribe": [topic_of(mission)]})
    assert later.hear() == {"subscribed": [topic_of(mission)]}
    for page in (stranger, later):
        with pytest.raises(TimeoutError):
            page.hear(0.3)


def test_charlie_is_refused_a_foreign_topic_and_hears_nothing_of_it(open_page, alice, charlie, mission) -> None:
    page, owner = open_page(charlie), open_page(alice)
    organisation = f"organisation:{mission.organisation_id}"
    page.say({"subscribe": [topic_of(mission), organisation]})
    assert page.hear() == {"refused": [topic_of(mission), organisation]}
    owner.say({"subscribe": [topic_of(mission)]})
    owner.hear()
    announce(topic_of(mission), "actions")
    assert owner.hear()["what"] == "actions"
    with pytest.raises(TimeoutError):
        page.hear(0.5)


@pytest.mark.parametrize(
    "topic", ["mission:nothing", "moon:1", "mission:00000000-0000-0000-0000-000000000000", "mission:MISSION"]
)
def test_topics_of_nothing_are_refused_alike(topic, open_page, alice) -> None:
    page = open_page(alice)
    page.say({"subscribe": [topic]})
    assert page.hear() == {"refused": [topic]}


def test_after_unsubscribing_it_is_quiet(open_page, alice, mission) -> None:
    page = open_page(alice)
    page.say({"subscribe": [topic_of(mission)]})
    page.hear()
    page.say({"unsubscribe": [topic_of(mission)]})
    page.say({"subscribe": ["mission:nothing"]})  # answered after the one before it
    page.hear()
    announce(topic_of(mission), "actions")
    with pytest.raises(TimeoutError):
        page.hear(0.5)


def test_a_run_hears_of_its_own_mission_only(open_page, run_token, mission, make_mission) -> None:
    other = make_mission("Another")
    page = open_page(token=run_token)
    page.say({"subscribe": [topic_of(mission), topic_of(other)]})
    assert page.hear() == {"subscribed": [topic_of(mission)]}
    assert page.hear() == {"refused": [topic_of(other)]}


def test_nobody_gets_in_without_a_session_or_token(open_page, address) -> None:
    for attempt in (
        lambda: open_page(),
        lambda: open_page(cookie=f"{settings.SESSION_COOKIE_NAME}=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        lambda: open_page(cookie=f"{settings.SESSION_COOKIE_NAME}=" + "x" * 3000),
        lambda: open_page(token="rmt_run_" + "A" * 43 + "_00000000"),
        lambda: open_page(token="nonsense"),
    ):
        with pytest.raises(InvalidStatus) as refused:
            attempt()
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        "https://127.0.0.1",
        "http://127.0.0.1.evil.example",
        "file://",
    ],
)
def test_a_page_of_another_site_cannot_use_the_cookie(origin, address, alice, sign_in) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(address.live, origin=origin, additional_headers={"Cookie": sign_in(alice)})
    assert refused.value.response.status_code == 403


def test_a_cookie_without_an_origin_is_refused_and_a_token_from_another_site_too(
    address, alice, sign_in, run_token
) -> None:
    with pytest.raises(InvalidStatus):
        connect(address.live, additional_headers={"Cookie": sign_in(alice)})
    with pytest.raises(InvalidStatus):
        connect(address.live, origin="http://evil.example", additional_headers={"Authorization": f"Bearer {run_token}"})


def test_the_public_address_is_an_origin_of_ours(address, alice, sign_in) -> None:
    with connect(address.live, origin=settings.CONFIG.public_url, additional_headers={"Cookie": sign_in(alice)}):
        pass


def test_a_rebound_host_name_is_refused(address, alice, sign_in) -> None:
    headers = {"Cookie": sign_in(alice), "Host": "evil.example"}
    with pytest.raises(InvalidStatus):
        connect(address.live, origin="http://evil.example", additional_headers=headers)


def test_other_websocket_paths_are_refused(address, alice, sign_in) -> None:
    for path in ("/", "/mcp", "/api/v1/actions", "/live/../x"):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://{address}{path}", origin=address.origin, additional_headers={"Cookie": sign_in(alice)})
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\x00\x01", 1003),
        ("", 1008),
        ("not json", 1008),
        ("[]", 1008),
        ("{}", 1008),
        ('{"subscribe": "mission:1"}', 1008),
        ('{"subscribe": [1]}', 1008),
        ('{"subscribe": ["mission:1\\u0000"]}', 1008),
        ('{"subscribe": ["mission"]}', 1008),
        ('{"subscribe": ["mission:../../etc"]}', 1008),
        ('{"subscribe": ["mission:a b"]}', 1008),
        ('{"subscribe": [], "subscribe": []}', 1008),
        ('{"shout": ["mission:1"]}', 1008),
        ('{"subscribe": [[[[[["mission:1"]]]]]]}', 1008),
        (json.dumps({"subscribe": [f"mission:{number}" for number in range(51)]}), 1008),
        ('"' + "x" * 9000 + '"', 1009),
    ],
)
def test_what_is_not_understood_ends_the_connection_with_a_reason(message, code, open_page, alice) -> None:
    page = open_page(alice)
    page.say(message)
    found, reason = closed(page)
    assert found == code
    assert reason


def test_at_most_fifty_topics(open_page, alice, make_mission) -> None:
    missions = [make_mission(f"Mission {number}") for number in range(51)]
    page = open_page(alice)
    page.say({"subscribe": [topic_of(mission) for mission in missions[:50]]})
    assert len(page.hear()["subscribed"]) == 50
    page.say({"subscribe": [topic_of(missions[0])]})  # has it already
    assert page.hear() == {"subscribed": [topic_of(missions[0])]}
    page.say({"subscribe": [topic_of(missions[50])]})
    assert closed(page) == (1008, "at most 50 topics")


def test_a_flood_of_messages_ends_the_connection(open_page, alice) -> None:
    page = open_page(alice)
    for _ in range(61):
        page.say({"unsubscribe": []})
    assert closed(page) == (1008, "too many messages")


def test_a_deactivated_person_is_dropped_at_the_next_check(open_page, alice, mission, settings) -> None:
    settings.LIVE_RECHECK_SECONDS = 0.3
    page = open_page(alice)
    page.say({"subscribe": [topic_of(mission)]})
    page.hear()
    alice.is_active = False
    alice.save(update_fields=["is_active"])
    assert closed(page) == (1008, "signed out")


def test_someone_who_left_the_team_stops_hearing_of_its_mission(
    open_page, alice, mission, other_team, settings
) -> None:
    settings.LIVE_RECHECK_SECONDS = 0.3
    page = open_page(alice)
    page.say({"subscribe": [topic_of(mission)]})
    page.hear()
    Membership.objects.filter(user=alice).update(team=other_team)
    assert page.hear() == {"refused": [topic_of(mission)]}
    announce(topic_of(mission), "actions")
    with pytest.raises(TimeoutError):
        page.hear(0.5)


def test_a_session_that_ends_by_itself_ends_the_socket_at_that_moment(open_page, alice, sign_in) -> None:
    page = open_page(cookie=sign_in(alice, seconds=2))  # the ordinary check comes once a minute
    assert closed(page) == (1008, "signed out")


def test_signing_out_everywhere_ends_the_socket(open_page, alice, settings) -> None:
    settings.LIVE_RECHECK_SECONDS = 0.3
    page = open_page(alice)
    alice.set_password("another-long-password")
    alice.save(update_fields=["password"])
    assert closed(page) == (1008, "signed out")


def test_a_revoked_token_ends_the_socket(open_page, run_token, run, settings) -> None:
    settings.LIVE_RECHECK_SECONDS = 0.3
    page = open_page(token=run_token)
    assert tokens.revoke(run_id=run.pk) == 1
    assert closed(page) == (1008, "signed out")


def test_hints_go_on_when_valkey_is_wiped(open_page, alice, mission) -> None:
    page = open_page(alice)
    page.say({"subscribe": [topic_of(mission)]})
    page.hear()
    with redis.Redis.from_url(settings.REDIS_URL) as valkey:
        valkey.flushall()
    announce(topic_of(mission), "actions")
    assert page.hear()["what"] == "actions"


def test_a_burst_of_one_kind_of_hint_is_told_a_few_times_and_its_last_is_never_lost(open_page, alice, mission) -> None:
    page = open_page(alice)
    page.say({"subscribe": [topic_of(mission)]})
    page.hear()
    for _ in range(2_000):
        announce(topic_of(mission), "actions")
    announce(topic_of(mission), "budget")
    heard = []
    while not heard or heard[-1] != "budget":
        heard.append(page.hear()["what"])
    assert 1 <= heard.count("actions") < 200


def test_when_valkey_dies_the_socket_closes_and_the_page_can_come_back(own_valkey, open_page, alice, mission) -> None:
    page = open_page(alice)
    page.say({"subscribe": [topic_of(mission)]})
    page.hear()
    own_valkey.stop()
    assert closed(page, 30)[0] == 1013
    announce(topic_of(mission), "actions")  # lost, and nobody's request fails for it
    own_valkey.start()
    own_valkey.wait_ready(seconds=30)
    again = open_page(alice)
    again.say({"subscribe": [topic_of(mission)]})
    assert again.hear() == {"subscribed": [topic_of(mission)]}
    announce(topic_of(mission), "actions")
    assert again.hear()["what"] == "actions"


def test_a_reader_that_does_not_read_is_dropped_and_others_go_on(
    open_page, address, alice, sign_in, mission, settings
) -> None:
    settings.LIVE_SEND_SECONDS = 0.5
    page = open_page(alice)
    page.say({"subscribe": [topic_of(mission)]})
    page.hear()
    before = metrics.SOCKETS._value.get()
    with _listener_that_never_reads(address, sign_in(alice), topic_of(mission)):
        deadline = time.monotonic() + 15  # well before the server's own pings would find out
        while metrics.SOCKETS._value.get() == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert metrics.SOCKETS._value.get() == before + 1
        while metrics.SOCKETS._value.get() == before + 1 and time.monotonic() < deadline:
            announce(topic_of(mission), "x" * 100_000)
            page.hear()
        assert metrics.SOCKETS._value.get() == before
    announce(topic_of(mission), "still here")
    assert page.hear()["what"] == "still here"


def _listener_that_never_reads(address, cookie: str, topic: str) -> socket.socket:
    """Shakes hands, subscribes, and leaves everything after that in its kernel's small buffer."""
    host, port = address.split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    client.sendall(
        f"GET /live HTTP/1.1\r\nHost: {address}\r\nOrigin: {address.origin}\r\nCookie: {cookie}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert client.recv(1024).startswith(b"HTTP/1.1 101")
    wish = json.dumps({"subscribe": [topic]}).encode()
    client.sendall(Frame(Opcode.TEXT, wish).serialize(mask=True))
    return client


def test_open_sockets_are_counted(open_page, alice) -> None:
    before = metrics.SOCKETS._value.get()
    page = open_page(alice)
    assert metrics.SOCKETS._value.get() == before + 1
    page.connection.close()
    deadline = time.monotonic() + 10
    while metrics.SOCKETS._value.get() != before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert metrics.SOCKETS._value.get() == before


def test_a_token_kind_without_live_topics_is_simply_refused(open_page, issue_token, mission) -> None:
    page = open_page(token=issue_token(TokenKind.SERVICE))
    page.say({"subscribe": [topic_of(mission), "approvals:nothing"]})
    assert page.hear() == {"subscribed": [topic_of(mission)]}
    assert page.hear() == {"refused": ["approvals:nothing"]}


# Other organisations --------------------------------------------------------------------------------------------------


def rows_of(mission) -> dict[str, object]:
    """For each kind of topic what a stranger would name in it."""
    common = {"organisation_id": mission.organisation_id, "team_id": mission.team_id}
    action = Action.objects.create(
        **common,
        kind="tool.call",
        title="Call",
        proposer_kind="run",
        proposer_id=new_id(),
        proposer_name="Run",
        state="waiting",
        verdict="escalate",
        digest="sha256:1",
        mission_id=mission.pk,
        created_at=now(),
    )
    stop = Stop.objects.create(
        **common, scope="agent", scope_id=mission.agent_id, name="the agent", by=mission.owner, at=now()
    )
    budget = budgets.open_account(
        actor=system_principal(organisation_id=mission.organisation_id),
        organisation_id=mission.organisation_id,
        team_id=mission.team_id,
        parent_id=None,
        level=Level.TEAM,
        name="Receivables",
        subject_type="team",
        subject_id=mission.team_id,
        limits=Limits(),
        window=WindowKind.MONTH,
    )
    return {
        "mission": mission.pk,
        "agent": mission.agent_id,
        "action": action.pk,
        "stop": stop.pk,
        "budget": budget,
        "organisation": mission.organisation_id,
        "approvals": mission.organisation_id,
        "person": mission.owner_id,
    }


def test_nobody_hears_of_a_row_of_another_organisation(open_page, charlie, nadia, alice, mission) -> None:
    rows = rows_of(mission)
    assert set(rows) == set(_CHECKS), "say in rows_of which row of Northwind a stranger would name"
    topics = [f"{kind}:{identifier}" for kind, identifier in rows.items()]
    page = open_page(charlie)
    page.say({"subscribe": topics})
    assert page.hear() == {"refused": topics}
    with transaction.atomic():
        for topic in topics:
            announce(topic, "everything")
    with pytest.raises(TimeoutError):
        page.hear(1)
    own = open_page(nadia)
    own.say({"subscribe": topics})
    assert own.hear() == {"subscribed": [topic for topic in topics if not topic.startswith("person:")]}
