"""How servers are: when each is looked at next, and how its calls and checks went, hour by hour."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection
from django.db.models import Sum

from agents.choices import ServerState, Transport
from agents.models import McpServer, ServerHour
from agents.servers.selectors import needs_a_mission
from controlplane.common.clock import now

EVERY: Final = {Transport.HTTP: timedelta(minutes=5), Transport.STDIO: timedelta(minutes=30)}
FIRST_RETRY: Final = timedelta(minutes=1)
LONGEST_PAUSE: Final = timedelta(hours=1)
SHOWN: Final = timedelta(hours=24)
KEPT: Final = timedelta(days=7)
_ADD = """
INSERT INTO agents_serverhour (server_id, hour, calls, failed_calls, call_milliseconds, checks, failed_checks)
SELECT s.id, date_trunc('hour', %(at)s::timestamptz), %(calls)s, %(failed_calls)s, %(milliseconds)s,
       %(checks)s, %(failed_checks)s
FROM agents_mcpserver s WHERE s.id = %(server)s
ON CONFLICT (server_id, hour) DO UPDATE SET
  calls = agents_serverhour.calls + excluded.calls,
  failed_calls = agents_serverhour.failed_calls + excluded.failed_calls,
  call_milliseconds = agents_serverhour.call_milliseconds + excluded.call_milliseconds,
  checks = agents_serverhour.checks + excluded.checks,
  failed_checks = agents_serverhour.failed_checks + excluded.failed_checks
"""


@dataclass(frozen=True)
class Use:
    """Calls made of a server since this was last told. `failed`: it gave no usable answer."""

    calls: int = 0
    failed: int = 0
    milliseconds: int = 0


@dataclass(frozen=True)
class Health:
    """The last 24 hours of one server."""

    calls: int = 0
    failed_calls: int = 0
    call_milliseconds: int = 0
    checks: int = 0
    failed_checks: int = 0

    @property
    def error_percent(self) -> float | None:
        """Of calls where there were any, else of checks; None when nothing is known."""
        if self.calls:
            return 100 * self.failed_calls / self.calls
        return 100 * self.failed_checks / self.checks if self.checks else None

    @property
    def usual_milliseconds(self) -> int | None:
        return round(self.call_milliseconds / self.calls) if self.calls else None

    @property
    def words(self) -> str:
        """ "2 of 40 calls failed", or what is known of checks."""
        if self.calls:
            return f"{self.failed_calls:,} of {self.calls:,} calls failed" if self.failed_calls else "no call failed"
        if self.checks:
            return f"{self.failed_checks} of {self.checks} checks failed" if self.failed_checks else "no check failed"
        return "nothing known"


def next_check(row: McpServer) -> datetime | None:
    """Later with every failure in a row, and never all servers at once. None for what is not checked by itself:
    switched off, never listed by a person, or a program that only makes sense in a mission's folder."""
    if row.state == ServerState.DISABLED or not row.protocol_version or needs_a_mission(row):
        return None
    usual = EVERY[Transport(row.transport)]
    pause = min(FIRST_RETRY * 2 ** min(row.failures - 1, 10), LONGEST_PAUSE) if row.failures else usual
    return now() + pause * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load


def note_use(uses: Mapping[uuid.UUID, Use]) -> None:
    for server_id in sorted(uses):
        use = uses[server_id]
        _add(server_id, calls=use.calls, failed_calls=use.failed, milliseconds=use.milliseconds)


def note_check(server_id: uuid.UUID, *, failed: bool) -> None:
    _add(server_id, checks=1, failed_checks=int(failed))


def health_of(server_ids: list[uuid.UUID]) -> dict[uuid.UUID, Health]:
    """For servers the reader was already found to see. One query."""
    sums: dict[str, Any] = {name: Sum(name) for name in Health.__dataclass_fields__}
    rows = ServerHour.objects.filter(server_id__in=server_ids, hour__gt=now() - SHOWN)
    found: Any = rows.order_by().values("server_id").annotate(**sums)
    return {row["server_id"]: Health(**{name: row[name] for name in sums}) for row in found}


def forget_old_hours() -> int:
    removed, _ = ServerHour.objects.filter(hour__lt=now() - KEPT).delete()
    return removed


def _add(
    server_id: uuid.UUID,
    *,
    calls: int = 0,
    failed_calls: int = 0,
    milliseconds: int = 0,
    checks: int = 0,
    failed_checks: int = 0,
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            _ADD,
            {
                "at": now(),
                "server": server_id,
                "calls": calls,
                "failed_calls": failed_calls,
                "milliseconds": milliseconds,
                "checks": checks,
                "failed_checks": failed_checks,
            },
        )
