"""The clerk's reminders: friendlier or firmer with the days an invoice is overdue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIRM_AFTER_DAYS = 60
LAST_AFTER_DAYS = 120


def reminder(invoice: Mapping[str, Any], *, contact: str) -> tuple[str, str]:
    """Subject and body for one overdue invoice as the books server lists it."""
    number, days = invoice["invoice"], int(invoice["days_overdue"])
    owed = f"{invoice['open']} {invoice['currency']}"
    if days > LAST_AFTER_DAYS:
        subject = f"Last reminder: invoice {number}, {owed} open"
        request = f"Please transfer {owed} within seven days, or call us so that we find a way together."
    elif days > FIRM_AFTER_DAYS:
        subject = f"Second reminder: invoice {number}"
        request = f"Please transfer {owed} within the next ten days."
    else:
        subject = f"Reminder: invoice {number}"
        request = f"It may simply have slipped through; please transfer {owed} when you can this week."
    body = (
        f"Dear {contact},\n\n"
        f"our invoice {number} was due on {invoice['due']}, {days} days ago, and {owed} of it is still open.\n"
        f"{request}\n"
        "If your payment has crossed this letter, please disregard it.\n\n"
        "Kind regards\nNorthwind, accounts receivable\n"
    )
    return subject, body
