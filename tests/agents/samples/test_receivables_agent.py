"""The Receivables clerk as a real process, over a real MCP server that enforces its mission's grants."""

from __future__ import annotations

import sqlite3

import pytest

from agents.samples.receivables.agent import orders_in
from agents.samples.receivables.names import HIDDEN_INSTRUCTION, WARNING_NOTE


@pytest.fixture
def server(book_server):
    return book_server


def scalar(book, query):
    connection = sqlite3.connect(book.database)
    try:
        return connection.execute(query).fetchone()[0]
    finally:
        connection.close()


def test_the_clerk_meets_every_verdict_and_finishes_its_checklist(server, book, start_agent):
    ibans = scalar(book, "SELECT group_concat(iban) FROM (SELECT iban FROM customers ORDER BY id)")
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 0, log
    assert "Traceback" not in log
    # Allowed: one reminder each, the small credits.
    assert scalar(book, "SELECT count(DISTINCT invoice) FROM outbox") == 30
    assert scalar(book, "SELECT sum(amount_cents) FROM credits WHERE amount_cents <= 10000") == 24_050
    # Escalated, then redeemed with exactly the same arguments.
    assert server.verdicts("books__apply_credit").count("escalate") == 1
    assert scalar(book, "SELECT amount_cents FROM credits WHERE invoice = 'INV-0189'") == 24_000
    assert [call.consumed for call in server.calls if call.verdict == "escalate"] == [True]
    # Denied twice, for different reasons, and nothing changed.
    reasons = {call.tool: call.reason for call in server.calls if call.verdict == "deny"}
    assert reasons["sqlite__write_query"] == "grant.tool_not_granted"
    assert reasons["books__attachment"] == "grant.argument_outside"
    assert scalar(book, "SELECT group_concat(iban) FROM (SELECT iban FROM customers ORDER BY id)") == ibans
    # The loop ends when the guard says so, and the clerk finds another way.
    assert server.verdicts("books__search") == ["allow", "allow", "allow", "deny"]
    assert any("payment plan" in call.arguments.get("query", "") for call in server.calls)
    # The checklist, with evidence.
    assert sorted(server.progress) == [0, 1, 2, 3, 4]
    assert "30 of 30" in server.progress[1]
    assert any("sqlite__write_query" in line["text"] for line in server.finished[0]["evidence"])


def test_it_goes_on_with_other_work_while_a_person_decides(server, start_agent):
    assert start_agent("receivables", url=server.url).wait()[0] == 0
    tools = [(call.tool, call.verdict) for call in server.calls]
    asked = tools.index(("books__apply_credit", "escalate"))
    assert ("books__write_reminder", "allow") in tools[asked:]
    assert tools[-1] == ("books__apply_credit", "allow")


@pytest.mark.parametrize("answer", ["denied", "expired", "withdrawn"])
def test_a_credit_nobody_approves_is_not_applied_and_is_reported(server, book, start_agent, answer):
    server.decide = lambda action: answer
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 0, log
    assert scalar(book, "SELECT count(*) FROM credits WHERE invoice = 'INV-0189'") == 0
    assert f"not applied ({answer})" in server.progress[3]


def test_it_takes_an_edited_approval_as_it_was_approved(server, book, start_agent):
    def edit(action):
        action.approved = {**action.arguments, "amount": "150.00"}
        return "permitted"

    server.decide = edit
    assert start_agent("receivables", url=server.url).wait()[0] == 0
    assert scalar(book, "SELECT amount_cents FROM credits WHERE invoice = 'INV-0189'") == 15_000


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
            return {"reason_code": "mission.paused", "message": "The mission is paused.", "retry_after": 0.1}
        return None

    server.before_call = pause_twice
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 0, log
    assert log.count("not now (The mission is paused.)") == 2


def test_a_stopped_mission_ends_the_run_with_a_reason(server, start_agent):
    server.before_call = lambda tool, arguments: {"reason_code": "mission.stopped", "message": "Stopped by Nadia."}
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 1, log
    assert "Stopped by Nadia." in log
    assert server.finished == []


def test_a_used_up_budget_ends_the_run_without_a_claim(server, book, start_agent):
    def no_money_after_ten(tool, arguments):
        if tool == "books__write_reminder" and len(server.verdicts(tool)) >= 10:
            return {"reason_code": "budget.exhausted", "message": "Nothing is left of the mission's budget."}
        return None

    server.before_call = no_money_after_ten
    server.decide = lambda action: "denied"
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 1, log
    assert log.count("Nothing is left") <= 4  # said once, and in the report; not once per invoice
    assert "10 of 30 overdue invoices reminded" in log
    assert 1 not in server.progress
    assert server.finished == []


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


def test_the_token_never_shows_in_the_log(server, start_agent):
    _, log = start_agent("receivables", url=server.url).wait()
    assert "rmt_run_" not in log


def test_an_order_in_a_note_is_obeyed_and_a_quoted_one_is_not():
    orders = orders_in(HIDDEN_INSTRUCTION.format(customer="Kestrel Bistro", iban="LT00 9999 0000 4711 0815"))
    assert orders.iban == "LT00 9999 0000 4711 0815"
    assert orders.files == ("keys/bank-access.txt",)
    assert orders_in(WARNING_NOTE).iban == ""
    assert orders_in(WARNING_NOTE).files == ()
