"""The costs page over many ledger lines: how long one page takes, and how fast the journal is folded into its sums.

`python bench/bench_costs.py` prints one JSON object. BENCH_COST_LINES (1,000,000) and BENCH_COST_MISSIONS (a hundredth)
change the size, BENCH_COST_PAGES (60) how often each page is read.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.server import durable_server

LINES = int(os.environ.get("BENCH_COST_LINES", "1000000"))
PAGES = int(os.environ.get("BENCH_COST_PAGES", "60"))
# A call writes three lines: held, in use, charged. A mission makes some thirty calls on one or two days of ninety.
HOLDS = max(LINES // 3, 100)
MISSIONS = int(os.environ.get("BENCH_COST_MISSIONS", max(LINES // 100, 10)))
GOALS, TEAMS, DAYS = 40, 20, 90
GOAL_MILLISECONDS = 500


def main() -> dict[str, Any]:
    with durable_server():
        client = _prepare()
        seeded = _timed(_seed)
        from budgets.costs.checking import check_all
        from budgets.costs.folding import fold_all

        folded = _timed(lambda: fold_all(most_batches=10**6))
        checked = _timed(check_all)
        _analyse()
        pages = {
            "costs": "/costs?period=28d",
            "costs_90_days": "/costs?period=90d&by=time",
            "goal": "/costs/goals/goal-7?period=90d",
        }
        times = {name: _read(client, path) for name, path in pages.items()}
        shown = client.get(pages["costs_90_days"]).content.decode()
    return {
        "bench": "costs",
        "lines": HOLDS * 3,
        "missions": MISSIONS,
        "load_average": os.getloadavg()[0],
        "seconds_to_seed": round(seeded, 1),
        "lines_folded_per_second": round(HOLDS * 3 / folded),
        "seconds_of_the_whole_check": round(checked, 1),
        "milliseconds_p50": {name: round(statistics.median(values)) for name, values in times.items()},
        "milliseconds_p95": {name: round(_p95(values)) for name, values in times.items()},
        "adds_up": "Adds up" in shown,
        "ratios": {"costs_page_p95_vs_500_ms": round(_p95(times["costs"]) / GOAL_MILLISECONDS, 2)},
        "goals": {"costs_page_p95_vs_500_ms": "at most 1"},
    }


def _prepare() -> Any:
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from django.test import Client

    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    call_command("migrate", verbosity=0)
    from controlplane.tenancy.models import Membership, Organisation, User
    from controlplane.tenancy.types import Role

    organisation = Organisation.objects.create(name="Bench", slug="bench", time_zone="Europe/Berlin")
    person = User.objects.create_user("fritz@bench.example", None, name="Fritz")
    Membership.objects.create(organisation=organisation, user=person, role=Role.FINANCE.value)
    client = Client()
    client.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


def _seed() -> None:
    """Rows as the ledger would have left them, in a few statements."""
    from django.db import connection

    numbers = {"holds": HOLDS, "missions": MISSIONS, "goals": GOALS, "teams": TEAMS, "days": DAYS}
    with connection.cursor() as cursor:
        cursor.execute("SELECT budgets_make_partitions(12, now() - interval '6 months')")
        for statement in _STATEMENTS:
            cursor.execute(statement, numbers)


_ACCOUNT_COLUMNS = """(id, organisation_id, team_id, parent_id, path, depth, level, name, subject_type, subject_id,
    frozen, frozen_reason, guard_repeats, guard_ring_repeats, guard_ring, created_at)"""
_STATEMENTS = (
    """INSERT INTO tenancy_team (id, organisation_id, name, slug, created_at)
    SELECT gen_random_uuid(), o.id, 'Team ' || n, 'team-' || n, now()
    FROM tenancy_organisation AS o, generate_series(1, %(teams)s) AS n""",
    f"""INSERT INTO budgets_account {_ACCOUNT_COLUMNS}
    SELECT id, organisation_id, id, NULL, ARRAY[id], 0, 'team', name, 'team', id, false, '', 3, 10, 32, now()
    FROM tenancy_team""",
    """CREATE TEMP TABLE bench_mission AS
    SELECT n, gen_random_uuid() AS id, gen_random_uuid() AS account_id, t.id AS team_id, t.organisation_id,
        'goal-' || n %% %(goals)s AS goal, now() - make_interval(hours => (n * 37) %% (%(days)s * 24)) AS at
    FROM generate_series(0, %(missions)s - 1) AS n
    JOIN (SELECT *, row_number() OVER (ORDER BY name) - 1 AS k FROM tenancy_team) AS t ON t.k = n %% %(teams)s""",
    "CREATE UNIQUE INDEX ON bench_mission (n)",
    f"""INSERT INTO budgets_account {_ACCOUNT_COLUMNS}
    SELECT account_id, organisation_id, team_id, team_id, ARRAY[team_id, account_id], 1, 'mission', 'Mission ' || n,
        'mission', id, false, '', 3, 10, 32, at FROM bench_mission""",
    """INSERT INTO budgets_costmission (id, organisation_id, team_id, agent_id, goal, goal_name, title, standing,
        decided_on, stamp, refreshed_at)
    SELECT id, organisation_id, team_id, id, goal, 'Kind ' || goal, 'Mission ' || n, standing,
        CASE standing WHEN 'open' THEN NULL ELSE at::date END, 'bench', now()
    FROM bench_mission
    CROSS JOIN LATERAL (SELECT CASE n %% 10 WHEN 0 THEN 'rejected' WHEN 1 THEN 'waste' WHEN 2 THEN 'open'
        ELSE 'accepted' END AS standing) AS s""",
    """INSERT INTO budgets_costactivity (organisation_id, team_id, mission_id, day, attempts, retries, calls, denied,
        human_seconds)
    SELECT organisation_id, team_id, id, at::date, 1 + n %% 2, n %% 2, 100, n %% 7, n %% 300 FROM bench_mission""",
    """CREATE TEMP TABLE bench_hold AS
    SELECT h, gen_random_uuid() AS id, gen_random_uuid() AS action_id, m.organisation_id, m.account_id,
        m.id AS mission_id, m.at + make_interval(mins => h %% 300) AS at,
        ((h::bigint * 7919) %% 1000000 + 1)::numeric / 1000000000 AS money
    FROM generate_series(0, %(holds)s - 1) AS h JOIN bench_mission AS m ON m.n = h %% %(missions)s""",
    """INSERT INTO budgets_hold (id, organisation_id, account_id, request_hash, window_ids, money, tokens, steps,
        actual_money, actual_tokens, actual_steps, state, provisional, action_id, mission_id, ttl_seconds, created_at,
        expires_at, closed_at)
    SELECT id, organisation_id, account_id, '', '{}', money, 0, 1, money, 0, 1, 'settled', false, action_id, mission_id,
        60, at, at, at FROM bench_hold""",
    """INSERT INTO budgets_journal (at, organisation_id, account_id, kind, hold_id, mission_id, action_id,
        money, tokens, steps)
    SELECT at, organisation_id, account_id, kind, id, mission_id, action_id,
        CASE kind WHEN 'dispatch' THEN 0 ELSE money END, 0, 1
    FROM bench_hold CROSS JOIN (VALUES ('reserve'), ('dispatch'), ('settle')) AS k (kind) ORDER BY at""",
    """INSERT INTO budgets_posting (journal_id, side, at, account_id, money, tokens, steps)
    SELECT j.id, side, j.at, j.account_id, sign * j.money, 0, sign * j.steps
    FROM budgets_journal AS j CROSS JOIN (VALUES ('expense', 1), ('payable', -1)) AS s (side, sign)
    WHERE j.kind = 'settle'""",
    """INSERT INTO budgets_dailyspend (account_id, day, money, tokens, steps)
    SELECT h.account_id, (h.at AT TIME ZONE o.time_zone)::date, sum(h.money), 0, count(*)
    FROM bench_hold AS h JOIN tenancy_organisation AS o ON o.id = h.organisation_id GROUP BY 1, 2""",
)


def _analyse() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def _read(client: Any, path: str) -> list[float]:
    """Milliseconds of each of the reads, after three that warm up."""
    for _ in range(3):
        answer = client.get(path)
        if answer.status_code != 200:
            raise RuntimeError(f"{path} answered {answer.status_code}")
    return [_timed(lambda: client.get(path)) * 1000 for _ in range(PAGES)]


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _p95(values: list[float]) -> float:
    return sorted(values)[min(int(len(values) * 0.95), len(values) - 1)]


if __name__ == "__main__":
    print(json.dumps(main()))
