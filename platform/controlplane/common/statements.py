"""The few statements of every decision, planned once a connection instead of once a call.

Django quotes parameters into a statement's text, so the server reads and plans it anew each time; for a small statement
of many tables that costs more than its work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.errors import FeatureNotSupported

Parameters = Sequence[Any] | Mapping[str, Any]
Rows = list[tuple[Any, ...]]

_ON: Final = 1  # psycopg prepares nothing while a connection's threshold is None


def planned(sql: str, parameters: Parameters) -> Rows:
    """The rows of a constant statement; its parameters travel beside it. In the caller's transaction, if there is one.

    Each `sql` stays planned in its connection, so never build one from data. `REMIT_PREPARED_STATEMENTS` turns it off.
    """
    database = connections[DEFAULT_DB_ALIAS]  # once: every look through Django's proxy costs some microseconds
    database.ensure_connection()
    database.validate_thread_sharing()
    database.validate_no_broken_transaction()
    if database.queries_logged:
        database.queries_log.append({"sql": f"{sql} -- {parameters}", "time": "0"})
    with database.wrap_database_errors:
        try:
            return _ask(database.connection, sql, parameters)
        except FeatureNotSupported:  # a migration changed the statement's result: these plans are of yesterday's tables
            database.connection.close()
            if database.in_atomic_block:
                raise
            database.close()
            database.ensure_connection()
            return _ask(database.connection, sql, parameters)


def _ask(link: psycopg.Connection[Any], sql: str, parameters: Parameters) -> Rows:
    """Only here is preparing on: of the ORM's statements psycopg would else remember the last hundred texts."""
    link.prepare_threshold = _ON
    try:
        with psycopg.Cursor(link) as cursor:
            return cursor.execute(sql, parameters, prepare=settings.CONFIG.prepared_statements).fetchall()
    finally:
        link.prepare_threshold = None
