"""Whether somebody waits for a lock: when two transactions are to meet at one moment."""

from __future__ import annotations

import time

from django.db import connection


def somebody_waits() -> bool:
    until = time.monotonic() + 15
    with connection.cursor() as cursor:
        while time.monotonic() < until:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone() != (0,):
                return True
            time.sleep(0.02)
    return False
