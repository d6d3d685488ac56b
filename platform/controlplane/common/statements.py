"""The few statements of every decision, planned once a connection instead of once a call.

Django quotes parameters into a statement's text, so the server reads and plans it anew each time; for a small statement
of many tables that costs more than its work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from django.db import connection


def planned(sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of a constant statement; its parameters travel beside it. In the caller's transaction, if there is one.

    From its fifth time each `sql` stays planned in its connection, so never build one from data.
    """
    connection.ensure_connection()
    if connection.queries_logged:
        connection.queries_log.append({"sql": f"{sql} -- {parameters}", "time": "0"})
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        return cursor.execute(sql, parameters).fetchall()
