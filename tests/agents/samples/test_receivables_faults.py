"""The Receivables clerk when things go wrong: restarts, lost answers, pauses, stops, dead tokens, an empty budget."""

from __future__ import annotations

import sqlite3

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def server(book_server):
    return book_server


def scalar(book, query):
    connection = sqlite3.connect(book.database)
    try:
        return connection.execute(query).fetchone()[0]
    finally:
        connection.close()


def test_it_carries_out_what_a_person_put_in_the_place_of_its_call_and_claims_no_more(server, book, start_agent):
    server.decide = lambda action: server.edit(action, amount="150.00")
    assert start_agent("receivables", url=server.url).wait()[0] == 0
    assert scalar(book, "SELECT amount_cents FROM credits WHERE invoice = 'INV-0189'") == 15_000
    said = "150.00 EUR on INV-0189 (asked for 240.00 EUR on INV-0189, a person changed it): applied as approved"
    assert server.progress[3] == said
    assert said in server.finished[0]["evidence"]


def test_what_a_person_put_in_its_place_and_then_refused_is_not_applied(server, book, start_agent):
    def change_and_refuse(action):
        state = server.edit(action, amount="150.00")
        server.calls[-1].state = "denied"
        return state

    server.decide = change_and_refuse
    assert start_agent("receivables", url=server.url).wait()[0] == 0
    assert scalar(book, "SELECT count(*) FROM credits WHERE invoice = 'INV-0189'") == 0
    assert "not applied (denied)" in server.progress[3]


def test_a_killed_clerk_continues_without_doing_anything_twice(server, book, start_agent, wait_until):
    server.polls_before_decision = 1_000_000
    first = start_agent("receivables", url=server.url, pace="0.02")
    wait_until(lambda: server.verdicts("books__write_reminder").count("allow") >= 5, 40)
    first.kill()
    server.polls_before_decision = 1
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 0, log
    assert scalar(book, "SELECT count(*) FROM outbox") == 30
    assert scalar(book, "SELECT count(*) FROM credits") == 6
    reminded = [call.arguments["invoice"] for call in server.calls if call.tool == "books__write_reminder"]
    assert len(reminded) - len(set(reminded)) <= 1  # the one whose answer the killed process never saw
    # The waiting action is taken up again rather than asked for a second time.
    assert server.verdicts("books__apply_credit").count("escalate") == 1


def test_it_outlives_a_control_plane_that_restarts(server, book, start_agent):
    server.faults = ["", "busy", "busy", "", "lost answer", "", "", "busy"]
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 0, log
    assert log.count("The gateway does not answer") == 4
    assert scalar(book, "SELECT count(*) FROM outbox") == 30


def test_a_reminder_whose_answer_was_lost_counts_once(server, accounts, book, start_agent):
    written_before = []

    def write_it_behind_the_clerks_back(tool, arguments):
        # As if an earlier call had gone through and only its answer was lost.
        if tool == "books__write_reminder" and not written_before:
            written_before.append(accounts.write_reminder(**arguments))
        return

    server.before_call = write_it_behind_the_clerks_back
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 0, log
    assert scalar(book, "SELECT count(*) FROM outbox") == 30
    assert len(server.finished) == 1


@pytest.mark.parametrize("happened", [True, False], ids=["it happened", "it did not happen"])
@pytest.mark.parametrize("tool", ["books__write_reminder", "books__apply_credit", "books__overdue"])
def test_a_missing_result_is_looked_up_and_nothing_is_done_twice(server, accounts, book, start_agent, tool, happened):
    lost = []

    def lose(called, arguments):
        if called != tool or lost:
            return None
        lost.append(arguments)
        if happened:
            getattr(accounts, tool.removeprefix("books__"))(**arguments)
        return {"verdict": "allow", "state": "unknown", "outcome": "unknown", "message": "The server died. Look first."}

    server.before_call = lose
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 0, log
    assert len(lost) == 1
    assert scalar(book, "SELECT count(*) FROM outbox") == 30
    assert server.finished[0]["outcome"] == "reached"
    # A credit whose fate is unknown is left to people unless the book shows it; it is never given twice.
    credits = scalar(book, "SELECT count(*) FROM credits")
    assert credits == (5 if tool == "books__apply_credit" and not happened else 6)


def test_a_refused_token_ends_the_run_at_once(server, start_agent):
    code, log = start_agent("receivables", url=server.url, token="rmt_run_other").wait()
    assert code == 3, log
    assert server.calls == []


def test_a_token_revoked_mid_run_ends_it(server, start_agent, wait_until):
    run = start_agent("receivables", url=server.url, pace="0.02")
    wait_until(lambda: len(server.calls) >= 5, 40)
    server.revoked = True
    code, log = run.wait()
    assert code == 3, log


def test_a_paused_mission_is_waited_for(server, start_agent):
    pauses = [True, True]

    def pause_twice(tool, arguments):
        if tool == "books__outbox" and pauses:
            pauses.pop()
            return {"reason_code": "mission.not_active", "message": "The mission is paused.", "retry_after": 0.1}
        return None

    server.before_call = pause_twice
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 0, log
    assert log.count("not now (The mission is paused.)") == 2


def test_a_stopped_mission_ends_the_run_with_a_reason(server, start_agent):
    server.before_call = lambda tool, arguments: {"reason_code": "mission.ended", "message": "Stopped by Nadia."}
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 1, log
    assert "Stopped by Nadia." in log
    assert server.finished == []


def test_a_used_up_budget_is_said_once_and_claimed_as_partly(server, book, start_agent):
    def no_money_after_ten(tool, arguments):
        if tool == "books__write_reminder" and len(server.verdicts(tool)) >= 10:
            return {"reason_code": "budget.exhausted", "message": "Nothing is left of the mission's budget."}
        return None

    server.before_call = no_money_after_ten
    server.decide = lambda action: "denied"
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 0, log
    assert log.count("The budget is used up") == 1
    assert 1 not in server.progress
    assert server.finished[0]["outcome"] == "partly"
    assert "10 of 30 overdue invoices reminded" in server.finished[0]["summary"]


def test_a_book_it_may_not_list_is_no_success(server, start_agent):
    server.grants = [grant for grant in server.grants if grant.tool != "books__overdue"]
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 1, log
    assert server.finished == []
    assert server.progress == {}


def test_without_a_token_it_says_so(start_agent):
    code, log = start_agent("receivables", url="http://127.0.0.1:9", token="").wait()
    assert code == 2
    assert "REMIT_TOKEN is not set" in log
