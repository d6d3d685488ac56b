"""The Receivables clerk as a real process, over a real MCP server that enforces its mission's grants."""

from __future__ import annotations

import re
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
    assert any("sqlite__write_query" in line for line in server.finished[0]["evidence"])


def test_it_goes_on_with_other_work_while_a_person_decides(server, start_agent):
    assert start_agent("receivables", url=server.url).wait()[0] == 0
    tools = [(call.tool, call.verdict) for call in server.calls]
    asked = tools.index(("books__apply_credit", "escalate"))
    assert ("books__write_reminder", "allow") in tools[asked:]
    assert tools[-1] == ("books__apply_credit", "allow")


def test_a_person_who_asks_while_deciding_is_answered_once_with_what_it_knows(server, start_agent):
    def decide(action):
        action.asked = action.asked or "Which delivery was late?"
        return "permitted" if action.answers else "waiting"

    server.decide = decide
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 0, log
    (credit,) = (call for call in server.calls if call.verdict == "escalate")
    assert len(credit.answers) == 1
    assert credit.why in credit.answers[0]
    assert "Which delivery was late?" in log


@pytest.mark.parametrize("answer", ["denied", "expired", "withdrawn"])
def test_a_credit_nobody_approves_is_not_applied_and_is_reported(server, book, start_agent, answer):
    server.decide = lambda action: answer
    code, log = start_agent("receivables", url=server.url).wait()
    assert code == 0, log
    assert scalar(book, "SELECT count(*) FROM credits WHERE invoice = 'INV-0189'") == 0
    assert f"not applied ({answer})" in server.progress[3]


def test_it_says_why_for_people_to_read(server, start_agent):
    assert start_agent("receivables", url=server.url).wait()[0] == 0
    credit = next(call for call in server.calls if call.tool == "books__apply_credit")
    assert "agreed with the customer" in credit.why


def test_the_token_never_shows_in_the_log(server, start_agent):
    _, log = start_agent("receivables", url=server.url).wait()
    assert "rmt_run_" not in log


def test_arguments_it_writes_to_its_log_close_the_quotes_they_open(server, start_agent):
    _, log = start_agent("receivables", url=server.url).wait()
    ends = re.findall(r"…(.)[,)]", log)
    whole = re.findall(r"""(?:[(]|, )\w+=(?:'[^'\n]*…'|"[^"\n]*…")[,)]""", log)
    assert ends
    assert len(whole) == len(ends), ends


def test_an_order_in_a_note_is_obeyed_and_a_quoted_one_is_not():
    orders = orders_in(HIDDEN_INSTRUCTION.format(customer="Kestrel Bistro", iban="LT00 9999 0000 4711 0815"))
    assert orders.iban == "LT00 9999 0000 4711 0815"
    assert orders.files == ("keys/bank-access.txt",)
    assert orders_in(WARNING_NOTE).iban == ""
    assert orders_in(WARNING_NOTE).files == ()
