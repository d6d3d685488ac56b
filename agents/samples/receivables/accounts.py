"""What may be done with a Receivables book: look things up, apply a credit once, write a reminder once a day.

Knows nothing of MCP; `books_server.py` puts it on the wire.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from agents.samples.receivables.money import cents, euros

BUSY_SECONDS = 5.0
SEARCH_LIMIT = 20
DOCUMENT_BYTES = 64 * 1024


class Refused(Exception):
    """The book says no; the message is one sentence for whoever asked."""


@dataclass(frozen=True)
class OverdueInvoice:
    """`open` is what is left to pay, decimal text in `currency`; dates are ISO 8601."""

    invoice: str
    customer: str
    customer_name: str
    due: str
    days_overdue: int
    open: str
    currency: str


@dataclass(frozen=True)
class Note:
    written: str
    author: str
    text: str


@dataclass(frozen=True)
class Customer:
    id: str
    name: str
    contact: str
    email: str
    city: str
    country: str
    iban: str
    payment_terms_days: int
    notes: list[Note]


@dataclass(frozen=True)
class Match:
    """`kind` says in which table the text was found: customer, invoice, note or ticket."""

    kind: str
    id: str
    text: str


@dataclass(frozen=True)
class Credit:
    """`open` is the invoice's balance after the credit."""

    invoice: str
    amount: str
    reason: str
    applied_on: str
    open: str


@dataclass(frozen=True)
class Reminder:
    invoice: str
    recipient: str
    subject: str
    body: str
    written_on: str


class Accounts:
    """One book, opened for each call: several servers may have it open, and none holds it."""

    def __init__(self, database: Path, documents: Path, *, today: date | None = None) -> None:
        if not database.is_file():
            raise Refused(f"There is no book at {database}.")
        self._database = database.resolve()
        self._documents = documents.resolve()
        self._today = today

    def overdue(self, older_than_days: int) -> list[OverdueInvoice]:
        """Unpaid invoices due more than `older_than_days` ago, oldest first."""
        before = (self._now() - timedelta(days=older_than_days)).isoformat()
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT invoices.id, customer, customers.name AS customer_name, due, open_cents, currency"
                " FROM invoices JOIN balances ON balances.invoice = invoices.id"
                " JOIN customers ON customers.id = customer"
                " WHERE open_cents > 0 AND due < ? ORDER BY due, invoices.id",
                (before,),
            ).fetchall()
        return [
            OverdueInvoice(
                invoice=row["id"],
                customer=row["customer"],
                customer_name=row["customer_name"],
                due=row["due"],
                days_overdue=(self._now() - date.fromisoformat(row["due"])).days,
                open=euros(row["open_cents"]),
                currency=row["currency"],
            )
            for row in rows
        ]

    def customer(self, customer_id: str) -> Customer:
        """Master data with every note, oldest first. Notes are what people and web forms typed: not to be trusted."""
        with self._reading() as connection:
            row = connection.execute("SELECT * FROM customers WHERE id = ?", (customer_id,)).fetchone()
            if row is None:
                raise Refused(f"There is no customer {customer_id}.")
            notes = connection.execute(
                "SELECT written, author, text FROM notes WHERE customer = ? ORDER BY written, id", (customer_id,)
            ).fetchall()
        return Customer(**dict(row), notes=[Note(**dict(note)) for note in notes])

    def search(self, text: str) -> list[Match]:
        """Where `text` occurs, case-insensitively, as written: `%` and `_` mean themselves. At most twenty places."""
        pattern = "%" + re.sub(r"([\\%_])", r"\\\1", text) + "%"
        sources = (
            ("customer", "SELECT id, name AS text FROM customers WHERE name LIKE :text ESCAPE '\\'"),
            ("invoice", "SELECT id, description AS text FROM invoices WHERE description LIKE :text ESCAPE '\\'"),
            ("note", "SELECT id, text FROM notes WHERE text LIKE :text ESCAPE '\\'"),
            ("ticket", "SELECT id, summary AS text FROM tickets WHERE summary LIKE :text ESCAPE '\\'"),
        )
        matches: list[Match] = []
        with self._reading() as connection:
            for kind, query in sources:
                rows = connection.execute(f"{query} ORDER BY id LIMIT {SEARCH_LIMIT}", {"text": pattern})
                matches += [Match(kind, row["id"], row["text"]) for row in rows]
        return matches[:SEARCH_LIMIT]

    def apply_credit(self, invoice: str, amount: str, reason: str) -> Credit:
        """Take `amount` off an invoice. Refused beyond the open balance, and when the invoice has a credit already."""
        wanted = cents(amount)
        if wanted == 0:
            raise Refused("A credit of 0.00 EUR changes nothing.")
        applied_on = self._now().isoformat()
        with self._writing() as connection:
            left = self._open_cents(connection, invoice)
            before = connection.execute("SELECT amount_cents FROM credits WHERE invoice = ?", (invoice,)).fetchone()
            if before is not None:
                raise Refused(f"{invoice} already has a credit of {euros(before['amount_cents'])} EUR.")
            if wanted > left:
                raise Refused(f"{amount} EUR is more than the {euros(left)} EUR still open on {invoice}.")
            connection.execute(
                "INSERT INTO credits (invoice, amount_cents, reason, applied_on) VALUES (?, ?, ?, ?)",
                (invoice, wanted, reason, applied_on),
            )
        return Credit(invoice, euros(wanted), reason, applied_on, euros(left - wanted))

    def write_reminder(self, invoice: str, subject: str, body: str) -> Reminder:
        """Put a reminder to the invoice's customer into the outbox. Refused for paid invoices, and twice on one day."""
        written_on = self._now().isoformat()
        with self._writing() as connection:
            if self._open_cents(connection, invoice) <= 0:
                raise Refused(f"{invoice} is paid; a reminder would be wrong.")
            recipient = connection.execute(
                "SELECT email FROM customers JOIN invoices ON customer = customers.id WHERE invoices.id = ?", (invoice,)
            ).fetchone()["email"]
            try:
                connection.execute(
                    "INSERT INTO outbox (invoice, recipient, subject, body, written_on) VALUES (?, ?, ?, ?, ?)",
                    (invoice, recipient, subject, body, written_on),
                )
            except sqlite3.IntegrityError as error:
                raise Refused(f"A reminder for {invoice} was already written today.") from error
        return Reminder(invoice, recipient, subject, body, written_on)

    def outbox(self) -> list[Reminder]:
        """Every reminder written so far, oldest first."""
        with self._reading() as connection:
            rows = connection.execute("SELECT invoice, recipient, subject, body, written_on FROM outbox ORDER BY id")
            return [Reminder(**dict(row)) for row in rows]

    def attachment(self, path: str) -> str:
        """Text of a document of the company's store, by its path in there. Nothing outside the store is reachable."""
        file = (self._documents / path).resolve()
        # resolve() has followed every link and every `..`: what is left is where the bytes really are.
        if not file.is_relative_to(self._documents) or not file.is_file():
            raise Refused(f"There is no document {path[:200]}.")
        if file.stat().st_size > DOCUMENT_BYTES:
            raise Refused(f"{path[:200]} is larger than {DOCUMENT_BYTES} bytes.")
        return file.read_text(encoding="utf-8", errors="replace")

    def _open_cents(self, connection: sqlite3.Connection, invoice: str) -> int:
        row: Mapping[str, int] | None = connection.execute(
            "SELECT open_cents FROM balances WHERE invoice = ?", (invoice,)
        ).fetchone()
        if row is None:
            raise Refused(f"There is no invoice {invoice}.")
        return row["open_cents"]

    def _now(self) -> date:
        return self._today or date.today()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(f"{self._database.as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
        try:
            connection.row_factory = sqlite3.Row
            yield connection
        finally:
            connection.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that holds the write lock from its first read, so that what was checked stays true."""
        connection = sqlite3.connect(
            f"{self._database.as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()
