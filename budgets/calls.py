"""One round trip per ledger operation: the functions of migration 0002 as Python calls. No rules, no permissions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db import DataError, OperationalError, connection
from psycopg import errors

from budgets.types import Amounts, Reserve
from controlplane.common.commits import run_alone
from controlplane.common.errors import RemitError, invalid


@dataclass(frozen=True)
class Answer:
    """What `budgets_reserve` says; see the type `budgets_answer`."""

    outcome: str
    state: str | None
    account_id: uuid.UUID | None
    level: str | None
    name: str | None
    kind: str | None
    unit: str | None
    remaining: Decimal | None
    currency: str | None


_RESERVE = "SELECT * FROM budgets_reserve(%s, %s, %s, %s, %s::bigint, %s::bigint, %s, %s, %s, %s, %s, %s)"
_RESERVE_AND_DISPATCH = (
    "SELECT answer.*, CASE answer.outcome WHEN 'held' THEN (budgets_dispatch(hold)).outcome END"
    " FROM (VALUES (%s::uuid)) AS asked (hold),"
    " budgets_reserve(hold, %s, %s, %s, %s::bigint, %s::bigint, %s, %s, %s, %s, %s, %s) AS answer"
)


def reserve(
    *,
    hold_id: uuid.UUID,
    organisation_id: uuid.UUID,
    account_id: uuid.UUID,
    amounts: Amounts,
    currency: str | None,
    signature: bytes,
    ttl_seconds: int,
    action_id: uuid.UUID | None,
    mission_id: uuid.UUID | None,
    note: str,
    dispatched: bool = False,
) -> Answer:
    row = _one(
        _RESERVE_AND_DISPATCH if dispatched else _RESERVE,
        (
            *(hold_id, organisation_id, account_id, amounts.money, amounts.tokens, amounts.steps, currency),
            *(signature, ttl_seconds, action_id, mission_id, note),
        ),
    )
    return Answer(*row[:9])


def reserve_batch(
    *, organisation_id: uuid.UUID, currency: str | None, items: Sequence[Reserve], ttl_seconds: int
) -> list[Answer]:
    """One answer per item, in their order."""
    with _named_failures():
        rows = run_alone(
            "SELECT (answer).* FROM budgets_reserve_batch("
            "%s, %s, %s::uuid[], %s::uuid[], %s::numeric[], %s::bigint[], %s::bigint[], %s::bytea[], %s::uuid[], %s)"
            " ORDER BY item",
            (
                organisation_id,
                currency,
                [item.hold_id for item in items],
                [item.account_id for item in items],
                [item.amounts.money for item in items],
                [item.amounts.tokens for item in items],
                [item.amounts.steps for item in items],
                [item.signature for item in items],
                [item.action_id for item in items],
                ttl_seconds,
            ),
        )
    return [Answer(*row) for row in rows]


def dispatch(*, hold_id: uuid.UUID) -> tuple[str, str | None]:
    """(outcome, state of the hold)."""
    outcome, state = _one("SELECT * FROM budgets_dispatch(%s)", (hold_id,))
    return outcome, state


def extend(*, hold_id: uuid.UUID, ttl_seconds: int) -> tuple[str, str | None]:
    outcome, state = _one("SELECT * FROM budgets_extend(%s, %s)", (hold_id, ttl_seconds))
    return outcome, state


def settle(
    *, hold_id: uuid.UUID, money: Decimal | None, tokens: int | None, steps: int | None
) -> tuple[str, Amounts, list[uuid.UUID], Decimal]:
    """(outcome, charged, accounts that overran, the largest amount of money beyond a limit)."""
    outcome, charged, used, counted, overruns, beyond = _one(
        "SELECT * FROM budgets_settle(%s, %s, %s::bigint, %s::bigint)", (hold_id, money, tokens, steps)
    )
    return outcome, Amounts(charged or Decimal(0), used or 0, counted or 0), list(overruns), beyond


def settle_between(money: Decimal, locked: str, locked_by: Sequence[Any], then: str, then_by: Sequence[Any]) -> bool:
    """Within what is held, so that nothing can overrun; see `governance.types.Ledger`.

    Each row is asked for by the one before it, which is what keeps locks in the order of every other writer; `then` is
    a value of the row that comes out of the last, so it is run last, or never.
    """
    statement = f"""
SELECT ({then}) FROM ({locked}) AS locked,
  LATERAL (
    SELECT id FROM budgets_hold WHERE id = locked.hold_id AND state = 'dispatched' AND money >= %s FOR UPDATE
  ) AS hold,
  LATERAL budgets_settle(hold.id, %s, NULL, NULL)
"""  # noqa: S608 only constant statements
    with _named_queue():
        rows = run_alone(statement, (*then_by, *locked_by, money, money))
    return bool(rows)


def void(*, hold_id: uuid.UUID) -> str:
    return str(_one("SELECT budgets_void(%s)", (hold_id,))[0])


def sweep(*, limit: int) -> tuple[int, int]:
    """(given back, charged provisionally)."""
    expired, provisional = _one("SELECT * FROM budgets_sweep(%s)", (limit,))
    return expired, provisional


def set_limit(
    *, account_id: uuid.UUID, kind: str, money: Decimal | None, tokens: int | None, steps: int | None
) -> None:
    _one("SELECT budgets_set_limit(%s, %s, %s, %s, %s)", (account_id, kind, money, tokens, steps))


def follow_zone(*, organisation_id: uuid.UUID, before: str) -> None:
    _one("SELECT budgets_follow_zone(%s, %s)", (organisation_id, before))


def lock_for_stop(*, hold_ids: Sequence[uuid.UUID], account_id: uuid.UUID | None) -> None:
    """Holds, then windows in the order every writer takes them (see budgets.models.Window), until the transaction ends:
    of several holds, each voided leaf → root, the second would else begin below what the first already has."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM budgets_hold WHERE id = ANY(%s) ORDER BY id FOR UPDATE", [list(hold_ids)])
        cursor.execute(
            "SELECT 1 FROM budgets_window WHERE id IN ("
            " SELECT unnest(window_ids) FROM budgets_hold WHERE id = ANY(%s)"
            " UNION SELECT id FROM budgets_window WHERE account_id = %s AND ends_at > now())"
            " ORDER BY depth DESC, account_id, kind, starts_at FOR UPDATE",
            [list(hold_ids), account_id],
        )


def void_many(*, hold_ids: Sequence[uuid.UUID]) -> int:
    """How many were released by this; those that were released or charged before are left as they are."""
    with _named_failures():
        rows = run_alone(
            "SELECT count(*) FILTER (WHERE budgets_void(id) = 'voided') FROM unnest(%s::uuid[]) AS hold (id)",
            (list(hold_ids),),
        )
    return int(rows[0][0])


def settle_many(
    *, hold_ids: Sequence[uuid.UUID], money: Sequence[Decimal]
) -> list[tuple[uuid.UUID, list[uuid.UUID], Decimal]]:
    """Of those that overran: the hold, the accounts, the largest amount beyond a limit."""
    with _named_failures():
        rows = run_alone(
            "SELECT hold.id, answer.overruns, answer.beyond FROM unnest(%s::uuid[], %s::numeric[]) AS hold (id, money)"
            " CROSS JOIN LATERAL budgets_settle(hold.id, hold.money, NULL, NULL) AS answer"
            " WHERE cardinality(answer.overruns) > 0",
            (list(hold_ids), list(money)),
        )
    return [(row[0], list(row[1]), row[2]) for row in rows]


def keep_overruns_frozen(*, account_id: uuid.UUID) -> None:
    """After an account was released: windows that were charged beyond their limit stay frozen."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE budgets_window SET frozen = true WHERE account_id = %s AND ends_at > now() AND NOT frozen AND ("
            " (overrun_money > 0 AND held_money + spent_money + overrun_money > limit_money)"
            " OR (overrun_tokens > 0 AND held_tokens + spent_tokens + overrun_tokens > limit_tokens)"
            " OR (overrun_steps > 0 AND held_steps + spent_steps + overrun_steps > limit_steps))",
            [account_id],
        )


def set_frozen(*, account_id: uuid.UUID, frozen: bool, reason: str) -> None:
    _one("SELECT budgets_set_frozen(%s, %s, %s)", (account_id, frozen, reason))


def _one(sql: str, parameters: Sequence[Any]) -> tuple[Any, ...]:
    with _named_failures():
        rows = run_alone(sql, parameters)
    if not rows:
        raise RuntimeError("the ledger gave no answer")
    return rows[0]


@contextmanager
def _named_failures() -> Iterator[None]:
    """Of a call of the ledger alone: whatever it can't read is an amount."""
    try:
        with _named_queue():
            yield
    except DataError as error:
        raise invalid(
            "ledger.amount_invalid",
            "Amounts are exact, not negative, below 10^16 and have at most twelve decimals.",
        ) from error


@contextmanager
def _named_queue() -> Iterator[None]:
    """A queue at a hot row is answered after 250 ms, not waited out."""
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.__cause__, errors.LockNotAvailable | errors.DeadlockDetected):
            raise
        raise RemitError(
            "ledger.busy",
            "The budget is busy: too many calls charge it at this moment.",
            503,
            remedies=("Send the same request again in a moment.",),
            retry_after_seconds=1,
        ) from error
