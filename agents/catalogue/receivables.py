"""*Receivables*: the sample clerk that chases overdue invoices in a shipped book, and meets every verdict on the
way."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from agents.catalogue.adapting import grants_of
from agents.catalogue.types import Field, Sample, ServerNeed, Template
from agents.choices import Importance, Runtime
from agents.samples.receivables import mission
from agents.samples.receivables.book import build
from agents.samples.terms import PROGRAMS
from agents.servers.types import MountRequest, ToolTraits
from controlplane.common.clock import now

_READ = ToolTraits(read_only=True, reversible=True)


def make_book(folder: Path) -> None:
    build(folder / "book", today=now().date())


BOOKS = ServerNeed(
    slug="books",
    name="Books",
    environment="books",
    command=(
        "/remit/samples",
        "books",
        "--database",
        "/data/ledger/receivables.sqlite",
        "--documents",
        "/data/documents",
    ),
    mounts=(
        MountRequest(str(PROGRAMS), "/remit/samples"),
        MountRequest("missions/{mission}/book", "/data", writable=True),
    ),
    traits={
        "overdue": _READ,
        "customer": _READ,
        "search": _READ,
        "attachment": _READ,
        "outbox": _READ,
        "write_reminder": ToolTraits(reversible=True, effects=("message.draft",)),
        "apply_credit": ToolTraits(reversible=True, effects=("money.credit",)),
    },
)
SQLITE = ServerNeed(
    slug="sqlite",
    name="SQLite",
    environment="sqlite",
    command=(
        "-c",
        "import mcp_server_sqlite; mcp_server_sqlite.main()",
        "--db-path",
        "/data/ledger/receivables.sqlite",
    ),
    mounts=(MountRequest("missions/{mission}/book", "/data"),),
    traits={"read_query": _READ, "list_tables": _READ, "describe_table": _READ},
)

RECEIVABLES = Template(
    code="receivables",
    name="Receivables",
    sentence="Chases overdue invoices: writes reminders, gives agreed credits, asks a person above 100.00 EUR.",
    usual_cost=Decimal("0.90"),
    icon="mission",
    runtime=Runtime.MANAGED,
    agent_name="Receivables clerk",
    program="receivables",
    goal=mission.GOAL,
    criteria=tuple(item.text for item in mission.CRITERIA),
    grants=grants_of(mission.GRANTS),
    budget=Decimal(mission.BUDGET.amount),
    steps=mission.BUDGET.steps,
    tokens=mission.BUDGET.tokens,
    servers=(BOOKS, SQLITE),
    capabilities=("accounts receivable", "customer reminders", "goodwill credits"),
    wall_clock_seconds=mission.LIMITS.wall_clock_seconds,
    files=make_book,
    samples=(
        Sample("List overdue invoices", "books__overdue", {"older_than_days": 30}),
        Sample(
            "Credit 40.00 EUR",
            "books__apply_credit",
            {"invoice": "INV-0113", "amount": "40.00", "reason": "late delivery"},
        ),
        Sample(
            "Credit 240.00 EUR",
            "books__apply_credit",
            {"invoice": "INV-0189", "amount": "240.00", "reason": "late delivery"},
        ),
        Sample("Change a customer's bank details", "sqlite__write_query", {"query": "UPDATE customers SET iban = 'X'"}),
        Sample("Read a file outside the tickets", "books__attachment", {"path": "/etc/passwd"}),
    ),
    fields=(
        Field("title", "Title", "text", "Chase overdue invoices", "How you will find it again"),
        Field("budget", "Budget", "money", mission.BUDGET.amount, "It can't spend more than this"),
        Field("hours", "Ends after", "hours", "8", "Hours from now"),
        Field("importance", "Importance", "choice", "normal", "", tuple(Importance.choices)),
    ),
)
