"""Whoever loses access hears nothing any more: sessions, tokens and open sockets end within a minute, and mostly at
once."""

from __future__ import annotations

import time
from datetime import timedelta
from decimal import Decimal

import pytest
import requests
from django.contrib.sessions.models import Session
from websockets.exceptions import ConnectionClosed

from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.live import consumer
from controlplane.live.services import announce
from controlplane.tenancy import credentials, members, organisations, services, sessions, tokens
from controlplane.tenancy.members import fingerprint
from controlplane.tenancy.models import Membership, Organisation
from controlplane.tenancy.types import Permission, Role

from .listening import closed, topic_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _plain_static_names(settings) -> None:
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


def ends(page, seconds: float) -> tuple[int, float]:
    """The code the socket is closed with, and after how many seconds."""
    started = time.monotonic()
    with pytest.raises(ConnectionClosed) as ended:  # noqa: PT012
        while time.monotonic() - started < seconds:
            page.connection.recv(timeout=max(0.1, seconds - (time.monotonic() - started)))
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, time.monotonic() - started


def opens(address, cookie: str) -> int:
    """The status of a page asked with that cookie."""
    answer = requests.get(f"{address.origin}/missions", headers={"Cookie": cookie}, allow_redirects=False, timeout=10)
    return answer.status_code


def listening(page, mission):
    page.say({"subscribe": [f"mission:{mission.pk}"]})
    assert page.hear() == {"subscribed": [f"mission:{mission.pk}"]}
    return page


def test_deactivation_kills_sessions_tokens_and_sockets_within_60_seconds(
    address, open_page, sign_in, alice, bob, as_nadia, acting, mission
) -> None:
    cookie = sign_in(alice)
    text = credentials.issue_personal_token(
        principal=acting(alice), user=alice, name="Laptop", expires_at=now() + timedelta(days=1)
    )[1]
    by_session = listening(open_page(cookie=cookie), mission)
    by_token = listening(open_page(token=text), mission)
    other = listening(open_page(bob), mission)
    assert (
        requests.get(
            f"{address.origin}/missions", headers={"Cookie": cookie}, allow_redirects=False, timeout=10
        ).status_code
        == 200
    )

    started = time.monotonic()
    ended = members.deactivate(principal=as_nadia, user_id=alice.pk)

    assert (ended["sessions"], ended["tokens"]) == (1, 1)
    for page in (by_session, by_token):
        code, seconds = ends(page, 60)
        assert code == 1008
        assert seconds < 10  # told at once; the minute is for when the hint is lost
    assert (
        requests.get(
            f"{address.origin}/missions", headers={"Cookie": cookie}, allow_redirects=False, timeout=10
        ).status_code
        == 302
    )
    with pytest.raises(RemitError, match=r"token\.revoked"):
        services.principal_of_token(text)
    assert time.monotonic() - started < 60
    assert not Session.objects.exclude(session_key=other.connection.request.headers.get("Cookie", "=").split("=")[1])
    other.say({"unsubscribe": []})
    other.say({"subscribe": [f"mission:{mission.pk}"]})
    assert other.hear() == {"subscribed": [f"mission:{mission.pk}"]}


def test_without_the_hint_the_clock_closes_the_socket(open_page, alice, mission, settings) -> None:
    assert consumer.RECHECK_SECONDS <= 50
    settings.LIVE_RECHECK_SECONDS = 0.5
    page = listening(open_page(alice), mission)
    Membership.objects.filter(user=alice).update(suspended_at=now())  # behind the services' back: nobody is told
    assert ends(page, 20)[0] == 1008


def test_ending_one_session_closes_its_sockets_and_no_other(open_page, sign_in, alice, acting, mission) -> None:
    from allauth.usersessions.models import UserSession

    here, there = sign_in(alice), sign_in(alice)
    for cookie in (here, there):
        UserSession.objects.create(user=alice, ip="192.0.2.1", session_key=cookie.split("=")[1], user_agent="x")
    kept, lost = listening(open_page(cookie=here), mission), listening(open_page(cookie=there), mission)
    assert sessions.end_other_sessions(principal=acting(alice), current_key=here.split("=")[1]) == 1
    assert ends(lost, 20)[0] == 1008
    kept.say({"subscribe": ["mission:nothing"]})
    assert kept.hear() == {"refused": ["mission:nothing"]}


def test_revoking_a_token_closes_its_sockets(open_page, alice, acting, mission) -> None:
    token, text = credentials.issue_personal_token(
        principal=acting(alice), user=alice, name="Laptop", expires_at=now() + timedelta(days=1)
    )
    page = listening(open_page(token=text), mission)
    credentials.revoke_token(principal=acting(alice), token_id=token.pk)
    assert ends(page, 20)[0] == 1008


def test_who_loses_a_role_stops_hearing_of_its_team_at_once(
    open_page, alice, as_nadia, mission, team, other_team
) -> None:
    page = listening(open_page(alice), mission)
    members.set_roles(
        principal=as_nadia,
        user_id=alice.pk,
        wanted={(other_team.pk, Role.BUILDER)},
        seen=fingerprint([(team.pk, Role.BUILDER)]),
    )
    assert page.hear() == {"refused": [f"mission:{mission.pk}"]}


def test_asking_everybody_for_a_second_factor_closes_the_pages_of_those_without(
    open_page, alice, acting, nadia, mission, northwind
) -> None:
    from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret

    TOTP.activate(nadia, generate_totp_secret())
    page, own = listening(open_page(alice), mission), listening(open_page(nadia), mission)
    organisations.change_settings(
        principal=acting(nadia),
        name="Northwind",
        time_zone="UTC",
        sign_off_above=Decimal(5),
        token_days_max=366,
        second_factor_required=True,
        seen=organisations.version_of(Organisation.objects.get(pk=northwind.pk)),
    )
    assert ends(page, 20)[0] == 1008
    own.say({"subscribe": ["mission:nothing"]})
    assert own.hear() == {"refused": ["mission:nothing"]}


def test_nobody_can_listen_to_whose_access_changes_but_their_own(open_page, alice, bob) -> None:
    page = open_page(alice)
    page.say({"subscribe": [f"person:{bob.pk}", f"person:{alice.pk}"]})
    assert page.hear() == {"subscribed": [f"person:{alice.pk}"]}
    assert page.hear() == {"refused": [f"person:{bob.pk}"]}
    assert acting_may(alice)


def acting_may(user) -> bool:
    principal = services.principal_of_user(user=user)
    return principal is not None and principal.has_anywhere(Permission.MISSION_VIEW)


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
