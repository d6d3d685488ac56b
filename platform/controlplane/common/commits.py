"""A transaction that gives its row locks back before it waits for the disk, and still returns only when it is there.

PostgreSQL keeps a transaction's locks until its commit is flushed, so a row that everybody updates is handed over once
a flush. Here the commit itself does not wait, so locks end at once, and an empty transaction right after it does: it
returns when everything up to it is on disk, and those who wait together share one flush. The log is written in order:
what builds on an early released row gets to disk after that row, and nobody is told before their own flush.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from django.db import Error, connection, transaction
from psycopg.pq import TransactionStatus

from controlplane.common.statements import planned

# The setting ends with the transaction it is in. The message, which nobody reads, is there because a transaction that
# writes nothing isn't waited for; it is left out when the disk has everything anyway, as after a refusal on a quiet
# server. A synchronous standby might still lack some of it, so where there is one, it is waited for in any case.
_COMMIT_THEN_FLUSH = """
SET LOCAL synchronous_commit TO off; COMMIT;
SELECT pg_logical_emit_message(true, 'remit', '')
WHERE pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn() OR current_setting('synchronous_standby_names') <> ''
"""  # one string is one round trip


@contextmanager
def early_unlock(*, savepoint: bool = True) -> Iterator[None]:
    """`transaction.atomic()` whose locks end before the flush. On return, and before any `on_commit`, it is durable.

    Inside another atomic block it is an ordinary one, and the outer block commits as it always would. What others read
    between unlock and flush can be lost with the database, so act outside it only after a commit of one's own (claim,
    then act). A replay must be read inside such a block too: only then is the answer it repeats on disk.
    When the connection is lost at the end, nobody knows what came of it, as with any commit: ask again by the same id.
    """
    if _is_inside_another():
        with transaction.atomic(savepoint=savepoint):
            yield
        return
    with transaction.atomic():
        yield
        if not connection.needs_rollback and _in_transaction():
            with connection.cursor() as cursor:
                cursor.execute(_COMMIT_THEN_FLUSH)


def run_alone(sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """One statement as an `early_unlock` of its own, in one round trip: no row waits for the client to say commit.

    Inside another atomic block it is a statement like any other. Returns the rows.
    """
    if _is_inside_another():
        return planned(sql, parameters)
    with connection.cursor() as cursor:
        try:
            cursor.execute(f"BEGIN; {sql}; {_COMMIT_THEN_FLUSH}", parameters)
        except BaseException:
            with suppress(Error):
                connection.rollback()
            raise
        cursor.nextset()  # the first is the empty answer to BEGIN
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _is_inside_another() -> bool:
    return connection.in_atomic_block or not connection.get_autocommit()


def _in_transaction() -> bool:
    """Not before the first statement, and not after a lost connection or a failed statement: Django ends those."""
    status: TransactionStatus = connection.connection.info.transaction_status
    return status == TransactionStatus.INTRANS
