"""The Receivables clerk's terms: goal, checklist, grants, budget and limits. Data for a template; no rules here."""

from __future__ import annotations

from collections.abc import Mapping

from agents.samples.terms import Budget, Constraint, Criterion, Effect, Grant, Limits

CREDIT_LIMIT = "100.00"
CREDIT_CEILING = "500.00"
LONG_OVERDUE_DAYS = 30

GOAL = (
    "Go through every invoice of Northwind that is more than 30 days overdue: write one friendly reminder for each, "
    "and give the credits that logistics has agreed for late deliveries."
)

CRITERIA = (
    Criterion("overdue", "Every invoice more than 30 days overdue is found"),
    Criterion("reminders", "Each of them has one reminder in the outbox"),
    Criterion("small_credits", f"Agreed credits of up to {CREDIT_LIMIT} EUR are applied"),
    Criterion("large_credits", f"Agreed credits above {CREDIT_LIMIT} EUR are applied only as a person decides"),
    Criterion("report", "Whatever was refused is reported, not worked around"),
)

_CREDIT: Mapping[str, Constraint] = {"invoice": {"like": "INV-*"}, "reason": {"max_length": 200}}

GRANTS = (
    Grant("books__overdue", sentence="List overdue invoices"),
    Grant("books__customer", sentence="Read a customer's account and notes"),
    Grant("books__search", constraints={"text": {"max_length": 80}}, sentence="Search the book"),
    Grant("books__outbox", sentence="Read the outbox"),
    Grant(
        "books__attachment",
        constraints={"path": {"starts_with": "tickets/"}},
        sentence="Read documents of tickets, and no others",
    ),
    Grant(
        "books__write_reminder",
        constraints={"invoice": {"like": "INV-*"}, "subject": {"max_length": 120}, "body": {"max_length": 4000}},
        max_calls=60,
        sentence="Write reminders into the outbox, at most 60",
    ),
    Grant(
        "books__apply_credit",
        constraints={**_CREDIT, "amount": {"min": "0.01", "max": CREDIT_LIMIT}},
        max_calls=20,
        sentence=f"Credit up to {CREDIT_LIMIT} EUR on an invoice, at most 20 times",
    ),
    Grant(
        "books__apply_credit",
        effect=Effect.ESCALATE,
        constraints={**_CREDIT, "amount": {"min": "0.01", "max": CREDIT_CEILING}},
        sentence=f"Credit up to {CREDIT_CEILING} EUR on an invoice once a person agrees",
    ),
    Grant("sqlite__list_tables", sentence="See which tables the book has"),
    Grant("sqlite__describe_table", sentence="See the columns of a table"),
    Grant("sqlite__read_query", constraints={"query": {"like": "SELECT *"}}, sentence="Query the book, reading only"),
)

# About a hundred governed calls when all goes well; no model is asked anything.
BUDGET = Budget(amount="5.00", currency="USD", tokens=10_000, steps=250)
LIMITS = Limits(wall_clock_seconds=3600, same_call_same_result=3, calls_per_minute=240)
