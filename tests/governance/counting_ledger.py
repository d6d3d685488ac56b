"""A ledger that counts: one account that fits so many holds, in the database of the test."""

from __future__ import annotations

import uuid
from decimal import Decimal

from django.db import connection, transaction

from controlplane.common.errors import conflict
from controlplane.common.ids import new_id
from controlplane.common.statements import planned
from governance.types import BudgetRequest, HoldRefused, Statement


class CountingLedger:
    """One account that fits `limit` open holds. Its rows are in the database, so they follow the transaction."""

    def __init__(self) -> None:
        self.limit = 1_000_000
        self.refusal: HoldRefused | None = None
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS test_hold (id uuid PRIMARY KEY, state text, price numeric, ttl int)"
            )
            cursor.execute("CREATE TABLE IF NOT EXISTS test_result (signature bytea, result bytea)")
            cursor.execute(
                "CREATE OR REPLACE FUNCTION test_note(bytea, bytea) RETURNS void LANGUAGE sql"
                " AS 'INSERT INTO test_result VALUES ($1, $2)'"
            )
            cursor.execute("DELETE FROM test_hold; DELETE FROM test_result")

    def reserve(
        self,
        *,
        hold_id: uuid.UUID,
        request: BudgetRequest,
        organisation_id: uuid.UUID,
        ttl_seconds: int,
        action_id: uuid.UUID | None = None,
        dispatched: bool = False,
    ) -> HoldRefused | None:
        if self.refusal is not None:
            return self.refusal
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(4711)")
            cursor.execute("SELECT count(*) FROM test_hold WHERE state <> 'voided'")
            if cursor.fetchone()[0] >= self.limit:
                return HoldRefused("budget.exhausted", "Mission: nothing is left.", ("Ask for a top-up.",))
            state = "dispatched" if dispatched else "held"
            cursor.execute(
                "INSERT INTO test_hold VALUES (%s, %s, %s, %s)", [hold_id, state, request.money, ttl_seconds]
            )
        return None

    def dispatch(self, *, hold_id: uuid.UUID) -> None:
        self._move(hold_id, "dispatched", "held")

    def settle(self, *, hold_id: uuid.UUID, money: Decimal | None, tokens: int | None = None) -> Decimal:
        self._move(hold_id, "settled", "dispatched")
        with connection.cursor() as cursor:
            cursor.execute("SELECT price FROM test_hold WHERE id = %s", [hold_id])
            price: Decimal = cursor.fetchone()[0]
        return price if money is None else money

    def settle_between(self, *, money: Decimal, locked: Statement, then: Statement) -> bool:
        with transaction.atomic():
            found = planned(locked.sql, locked.parameters)
            if not found or not self._covers(found[0][0], money):
                return False
            self._move(found[0][0], "settled", "dispatched")
            planned(then.sql, then.parameters)
        return True

    def void(self, *, hold_id: uuid.UUID) -> None:
        self._move(hold_id, "voided", "held")

    def extend(self, *, hold_id: uuid.UUID, ttl_seconds: int) -> None:
        self._move(hold_id, "held", "held")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE test_hold SET ttl = %s WHERE id = %s", [ttl_seconds, hold_id])

    judgements = 1_000_000

    def reserve_judgement(self, *, organisation_id: uuid.UUID, tokens: int) -> uuid.UUID | HoldRefused:
        if self.judgements <= 0:
            return HoldRefused("budget.exhausted", "The judge has no tokens left today.")
        self.judgements -= 1
        hold_id = new_id()
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO test_hold VALUES (%s, 'dispatched', 0, 60)", [hold_id])
        return hold_id

    def noting(self, *, account_id: uuid.UUID, signature: bytes, result: bytes) -> Statement:
        return Statement("SELECT test_note(%s, %s)", (signature, result))

    @property
    def results(self) -> list[tuple[bytes, bytes]]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT signature, result FROM test_result")
            return [(bytes(signature), bytes(result)) for signature, result in cursor.fetchall()]

    @property
    def states(self) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT state FROM test_hold ORDER BY state")
            return [row[0] for row in cursor.fetchall()]

    @property
    def longest_ttl(self) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT max(ttl) FROM test_hold")
            return int(cursor.fetchone()[0])

    def _covers(self, hold_id: uuid.UUID, money: Decimal) -> bool:
        rows = planned(
            "SELECT 1 FROM test_hold WHERE id = %s AND state = 'dispatched' AND price >= %s", (hold_id, money)
        )
        return bool(rows)

    def _move(self, hold_id: uuid.UUID, to: str, source: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE test_hold SET state = %s WHERE id = %s AND state = %s", [to, hold_id, source])
            if cursor.rowcount != 1:
                raise conflict("hold.wrong_state", f"no hold that is {source}")
