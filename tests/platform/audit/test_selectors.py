"""Reading the trail: who sees which entries, filters, pages, and sentences that never fail."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.audit import selectors
from controlplane.audit.events import Event
from controlplane.audit.selectors import Filters
from controlplane.common.clock import now


def found(principal, **filters):
    return [entry.pk for entry in selectors.entries(principal=principal, filters=Filters(**filters)).items]


def test_the_newest_entry_comes_first_and_pages_join_without_gaps(record, as_finn) -> None:
    written = [record().pk for _ in range(7)]
    seen, cursor = [], None
    while True:
        page = selectors.entries(principal=as_finn, cursor=cursor, limit=3)
        seen += [entry.pk for entry in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == written[::-1]


def test_charlie_a_run_and_a_builder_see_no_entry(record, as_charlie, as_run, as_alice, as_finn) -> None:
    entry = record()
    for principal in (as_charlie, as_run, as_alice):
        assert found(principal) == []
        assert selectors.entry(principal=principal, entry_id=entry.pk) is None
    assert selectors.entry(principal=as_finn, entry_id=entry.pk) == entry


def test_a_role_in_one_team_sees_that_teams_entries_only(record, as_bob, team, other_team) -> None:
    mine = record(team_id=team.pk)
    record(team_id=other_team.pk)
    record(team_id=None)
    assert found(as_bob) == [mine.pk]


def test_filters_narrow(record, as_finn, as_bob) -> None:
    paused = record(actor=as_bob, name="Invoices of May")
    started = record(event=Event.MISSION_STARTED, name="Parcels")
    assert found(as_finn, event="mission.started") == [started.pk]
    assert found(as_finn, actor_id=as_bob.id) == [paused.pk]
    assert found(as_finn, subject_id=started.subject_id) == [started.pk]
    assert found(as_finn, subject_type="mission") == [started.pk, paused.pk]
    assert found(as_finn, text="may bob") == [paused.pk]
    assert found(as_finn, text="started") == [started.pk]
    assert found(as_finn, text="100% \x00'; drop") == []
    assert found(as_finn, since=now() + timedelta(minutes=1)) == []
    assert found(as_finn, until=started.at) == [paused.pk]


@pytest.mark.parametrize("limit", [-1, 0, 10**9])
def test_an_odd_page_size_is_brought_into_bounds(limit, record, as_finn) -> None:
    record()
    assert len(selectors.entries(principal=as_finn, limit=limit).items) == 1


def test_every_event_has_a_sentence_even_with_an_empty_payload(record) -> None:
    entry = record()
    for event in Event:
        entry.event, entry.payload = event.value, {}
        said = selectors.sentence(entry)
        assert said
        assert "{" not in said


def test_a_sentence_is_filled_from_the_payload(record, as_bob) -> None:
    assert selectors.sentence(record(actor=as_bob, reason="lunch")) == "Bob paused Invoices: lunch"


def test_a_refusal_says_why_in_words_and_an_unknown_code_stands_as_it_is(record, as_bob) -> None:
    def said(code):
        return selectors.sentence(record(actor=as_bob, event=Event.ACTION_DENIED, name="books__pay", reason_code=code))

    assert said("grant.missing") == "Bob was refused books__pay: its remit does not have it"
    assert said("moon.full") == "Bob was refused books__pay: moon.full"


def test_what_a_person_approved_is_not_told_as_if_they_had_asked_for_it(record, as_bob) -> None:
    entry = record(actor=as_bob, event=Event.ACTION_ALLOWED, name="books__pay", approved=["large_payments"])
    assert selectors.sentence(entry) == "books__pay was allowed, as Bob approved it"
    late = {"approved": ["large_payments"], "reason_code": "budget.frozen"}
    entry = record(actor=as_bob, event=Event.ACTION_DENIED, name="books__pay", **late)
    assert selectors.sentence(entry) == "books__pay was refused, though Bob approved it: the budget is frozen"


def test_a_reason_nobody_gave_is_left_out_and_one_not_recorded_is_said_to_be(record, as_bob) -> None:
    assert selectors.sentence(record(actor=as_bob, reason="")) == "Bob paused Invoices"
    assert selectors.sentence(record(actor=as_bob)) == "Bob paused Invoices: (not recorded)"


def test_who_sees_an_action_reads_what_the_trail_says_of_it_and_nothing_else(
    record, as_alice, as_charlie, team, other_team
) -> None:
    mine = record(event=Event.ACTION_ALLOWED, subject_type="action", name="books__pay", team_id=team.pk)
    other = record(event=Event.ACTION_ALLOWED, subject_type="action", name="books__pay", team_id=other_team.pk)
    mission = record(team_id=team.pk)

    def about(principal, entry):
        return [told.sentence for told in selectors.entries_about_action(principal, action_id=entry.subject_id)]

    assert about(as_alice, mine) == [selectors.sentence(mine)]
    assert about(as_alice, other) == []
    assert about(as_alice, mission) == []
    assert about(as_charlie, mine) == []


def test_a_sentence_survives_hostile_names_and_payloads(record) -> None:
    entry = record(name="{actor.__class__} {0} %s", reason="{subject}" * 1000, subject="y")
    entry.payload["actor"] = "Somebody else"
    said = selectors.sentence(entry)
    assert said.startswith("Remit paused {actor.__class__} {0} %s: {subject}")
    assert len(said) < 500
    for payload in ([], "text", None, {"reason": {"nested": ["list"]}}, {"reason": ""}):
        entry.payload = payload
        assert selectors.sentence(entry).startswith("Remit paused")


def test_an_event_of_a_newer_version_still_reads(record) -> None:
    entry = record()
    entry.event = "moon.{landed}"
    assert selectors.sentence(entry) == "Remit: moon.landed Invoices"
