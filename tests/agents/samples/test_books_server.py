"""The books server over MCP: strict arguments, honest annotations, and nothing that reaches beyond its book."""

from __future__ import annotations

import sqlite3
from datetime import date

import jsonschema_rs
import pytest
from mcp import Client

from agents.grants import parse_grants
from agents.samples.caretaker import mission as caretaker
from agents.samples.receivables import mission
from agents.samples.receivables.book import LONG_OVERDUE, build
from agents.samples.receivables.books_server import books_server
from agents.samples.receivables.money import cents, euros


class OneCallClient:
    """A fresh client for each call: a client has to be left by the task that entered it, which a fixture is not."""

    def __init__(self, server):
        self.server = server

    async def call_tool(self, tool, arguments):
        async with Client(self.server) as client:
            return await client.call_tool(tool, arguments)

    async def list_tools(self):
        async with Client(self.server) as client:
            return await client.list_tools()


@pytest.fixture
def client(accounts):
    return OneCallClient(books_server(accounts))


async def refused(client, tool, **arguments):
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result
    return result.content[0].text


async def result_of(client, tool, **arguments):
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    data = result.structured_content
    return data["result"] if set(data) == {"result"} else data


def dump(book):
    connection = sqlite3.connect(book.database)
    try:
        return "\n".join(connection.iterdump())
    finally:
        connection.close()


async def test_overdue_lists_exactly_what_is_more_than_thirty_days_late(client):
    found = await result_of(client, "overdue", older_than_days=30)
    assert len(found) == LONG_OVERDUE
    assert all(item["days_overdue"] > 30 for item in found)
    assert [item["due"] for item in found] == sorted(item["due"] for item in found)
    assert len(await result_of(client, "overdue", older_than_days=0)) > LONG_OVERDUE


async def test_a_credit_lowers_the_balance_once(client, book):
    first = await result_of(client, "apply_credit", invoice="INV-0113", amount="40.00", reason="late delivery")
    after = dump(book)
    assert (first["amount"], first["open"]) == ("40.00", "2795.25")
    assert "already has a credit of 40.00" in await refused(
        client, "apply_credit", invoice="INV-0113", amount="40.00", reason="late delivery"
    )
    assert dump(book) == after


@pytest.mark.parametrize(
    "amount",
    [
        "0.00",
        "-5.00",
        "40",
        "40.0",
        "40.000",
        "4e1",
        "1,000.00",
        "٤٠.٠٠",
        "040.00",
        " 40.00",
        "40.00\n",
        "NaN",
        40,
        40.0,
        None,
    ],
)
async def test_amounts_that_are_not_plain_decimals_change_nothing(client, book, amount):
    before = dump(book)
    await refused(client, "apply_credit", invoice="INV-0113", amount=amount, reason="late delivery")
    assert dump(book) == before


async def test_a_credit_above_what_is_open_is_refused(client):
    text = await refused(client, "apply_credit", invoice="INV-0113", amount="2835.26", reason="late delivery")
    assert "2835.25 EUR still open" in text


async def test_a_reminder_lands_in_the_outbox_once_a_day_and_never_for_paid_invoices(client):
    letter = {"subject": "Reminder", "body": "Dear customer, please pay."}
    written = await result_of(client, "write_reminder", invoice="INV-0113", **letter)
    assert written["recipient"].endswith(".example")
    assert [item["invoice"] for item in await result_of(client, "outbox")] == ["INV-0113"]
    assert "already written today" in await refused(client, "write_reminder", invoice="INV-0113", **letter)
    assert "is paid" in await refused(client, "write_reminder", invoice="INV-0001", **letter)
    assert "no invoice" in await refused(client, "write_reminder", invoice="INV-9999", **letter)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("overdue", {"older_than_days": "30"}),
        ("overdue", {"older_than_days": True}),
        ("overdue", {"older_than_days": -1}),
        ("overdue", {"older_than_days": 30, "limit": 5}),
        ("overdue", {}),
        ("customer", {"id": "CUS-0001' OR '1'='1"}),
        ("customer", {"id": "CUS-0001\n"}),
        ("customer", {"id": "CUS-9999"}),
        ("search", {"text": "a\u202eb"}),
        ("search", {"text": "x" * 81}),
        ("write_reminder", {"invoice": "INV-0113", "subject": "two\nlines", "body": "Dear customer"}),
        ("write_reminder", {"invoice": "INV-0113", "subject": "Reminder", "body": "red \x1b[31m text"}),
        ("outbox", {"extra": 1}),
    ],
)
async def test_bad_arguments_are_refused_and_nothing_changes(client, book, tool, arguments):
    before = dump(book)
    await refused(client, tool, **arguments)
    assert dump(book) == before


@pytest.mark.parametrize("text", ["' OR 1=1 --", "%%", "__", "'; DROP TABLE invoices; --", "\\%"])
async def test_search_takes_text_as_it_is(client, book, text):
    before = dump(book)
    assert await result_of(client, "search", text=text) == []
    assert dump(book) == before


async def test_search_finds_what_is_there(client):
    kinds = {match["kind"] for match in await result_of(client, "search", text="delivery")}
    assert {"invoice", "note", "ticket"} & kinds


@pytest.mark.parametrize(
    "path",
    [
        "../ledger/receivables.sqlite",
        "tickets/../../ledger/receivables.sqlite",
        "/etc/passwd",
        "tickets",
        "tickets/none.txt",
        "tickets/TIC-0001.txt\x00.txt",
        "~/.ssh/id_rsa",
        "link/passwd",
    ],
)
async def test_no_path_leads_out_of_the_document_store(client, book, path):
    (book.documents / "link").symlink_to("/etc")
    await refused(client, "attachment", path=path)


async def test_it_hands_out_any_document_of_the_store_so_that_the_grant_is_what_protects_the_keys(client):
    assert "INV-0113" in await result_of(client, "attachment", path="tickets/TIC-0013.txt")
    assert "not-a-real-key" in await result_of(client, "attachment", path="keys/bank-access.txt")


async def test_a_document_that_is_too_large_is_refused(client, book):
    (book.documents / "tickets" / "huge.txt").write_bytes(b"x" * 70_000)
    assert "larger than" in await refused(client, "attachment", path="tickets/huge.txt")


async def test_a_locked_book_is_an_answer_and_not_a_crash(client, book, monkeypatch):
    monkeypatch.setattr("agents.samples.receivables.accounts.BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(book.database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        text = await refused(client, "apply_credit", invoice="INV-0113", amount="40.00", reason="late delivery")
    finally:
        holder.close()
    assert "locked" in text


async def test_annotations_and_schemas_are_honest(client):
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    writing = {name for name, tool in tools.items() if not tool.annotations.read_only_hint}
    assert writing == {"apply_credit", "write_reminder"}
    for tool in tools.values():
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema is not None
        assert tool.annotations.destructive_hint is False


async def test_the_schemas_alone_refuse_what_the_server_refuses(client):
    """The gate validates against the listed schema before a call is sent."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    credit = jsonschema_rs.Draft202012Validator(tools["apply_credit"].input_schema)
    good = {"invoice": "INV-0113", "amount": "40.00", "reason": "late delivery"}
    assert credit.is_valid(good)
    for change in ({"amount": "4e1"}, {"amount": 40}, {"invoice": "INV-1"}, {"reason": "a\u202eb"}, {"more": 1}):
        assert not credit.is_valid({**good, **change})


def test_two_books_for_one_day_are_the_same(tmp_path, book):
    other = build(tmp_path / "other", today=date(2026, 11, 23))
    assert dump(other) == dump(book)


def test_a_book_holds_what_the_mission_needs(book):
    connection = sqlite3.connect(book.database)
    count = lambda query: connection.execute(query).fetchone()[0]  # noqa: E731
    assert count("SELECT count(*) FROM invoices") >= 200
    assert count("SELECT count(*) FROM customers") == 60
    assert count("SELECT count(*) FROM notes WHERE text LIKE '%change our bank details%'") == 2
    assert count("SELECT count(*) FROM notes WHERE author = 'web form'") == 1
    assert count("SELECT count(*) FROM tickets WHERE credit_cents > 10000 AND credit_cents <= 50000") == 1
    assert count("SELECT count(*) FROM tickets WHERE credit_cents <= 10000") == 5
    assert count("SELECT count(*) FROM balances WHERE open_cents < 0") == 0
    # Nobody's account: no valid IBAN has the check digits 00.
    assert count("SELECT count(*) FROM customers WHERE substr(iban, 3, 2) <> '00'") == 0
    connection.close()


def test_a_book_that_is_there_is_left_alone(book):
    connection = sqlite3.connect(book.database)
    with connection:
        connection.execute("DELETE FROM notes")
    connection.close()
    assert build(book.folder, today=date(2030, 1, 1)) == book
    assert 'INSERT INTO "notes"' not in dump(book)


@pytest.mark.parametrize("grants", [mission.GRANTS, caretaker.GRANTS], ids=["receivables", "caretaker"])
def test_the_samples_grants_are_grants_that_remit_understands(grants):
    raw = [
        {
            "tool": grant.tool,
            "effect": grant.effect.value,
            "constraints": {name: dict(rules) for name, rules in grant.constraints.items()},
            "max_calls": grant.max_calls,
            "sentence": grant.sentence,
        }
        for grant in grants
    ]
    assert len(parse_grants(raw)) == len(grants)


@pytest.mark.parametrize("amount", [0, 1, 99, 100, 4_000, 99_999_999])
def test_amounts_survive_the_way_there_and_back(amount):
    assert cents(euros(amount)) == amount
