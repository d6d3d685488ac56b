"""Hints arrive after the commit, at once and not too often; and again once Valkey is back."""

from __future__ import annotations

import pytest
import redis
from django.conf import settings
from django.db import transaction

from controlplane.live import hub
from controlplane.live.services import announce

from .listening import closed, topic_of

pytestmark = pytest.mark.django_db(transaction=True)


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
