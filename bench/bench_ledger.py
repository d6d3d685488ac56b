"""The ledger against pgbench's TPC-B on the same server in the same run, and two races that must not overspend.

`python bench/bench_ledger.py` prints one JSON object. BENCH_SECONDS, BENCH_ROUNDS, BENCH_CLIENTS and BENCH_SCALE change
the effort; TMPDIR=/dev/shm takes a busy disk out of the comparison.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.server import CLIENTS, ROUNDS, SCALE, SECONDS, durable_server

MISSIONS = 64
BATCH = 50
_NUMBER = "\\set n random(1, {missions})\n"
_COMMIT_THEN_FLUSH = (  # of common.commits
    "SET LOCAL synchronous_commit TO off;\nCOMMIT;\nSELECT pg_logical_emit_message(true, 'remit', '')"
    " WHERE pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()"
    " OR current_setting('synchronous_standby_names') <> '';\n"
)
_ACCOUNT = "(SELECT account_id FROM bench_mission WHERE n = :n)"


def main() -> dict[str, Any]:
    with durable_server() as server:
        organisation_id, missions = _prepare()
        server.initialise_tpcb()
        _analyse()
        number = _NUMBER.format(missions=MISSIONS)
        reserve = (
            f"budgets_reserve(uuidv7(), '{organisation_id}', {_ACCOUNT}, 0.01, 100, 1, 'USD', uuid_send(uuidv7()), 600)"
        )
        scripts = {
            "reserve": number + _alone(f"SELECT {reserve};"),
            "batch": number
            + _alone(
                f"SELECT count(*) FROM budgets_reserve_batch('{organisation_id}', 'USD', "
                f"(SELECT array_agg(uuidv7()) FROM generate_series(1, {BATCH})), "
                f"array_fill({_ACCOUNT}, ARRAY[{BATCH}]), array_fill(0.01::numeric, ARRAY[{BATCH}]), "
                f"array_fill(100::bigint, ARRAY[{BATCH}]), array_fill(1::bigint, ARRAY[{BATCH}]), "
                f"array_fill(''::bytea, ARRAY[{BATCH}]), array_fill(NULL::uuid, ARRAY[{BATCH}]), 600);"
            ),
            "cycle": (
                f"{number}SELECT uuidv7() AS hold \\gset\n"
                + _alone(f"SELECT {reserve.replace('uuidv7()', ':hold', 1)};")
                + _alone("SELECT budgets_dispatch(:hold);")
                + f"BEGIN;\nSELECT budgets_settle(:hold, 0.008, 80, 1);\n{_together(_COMMIT_THEN_FLUSH)}"
            ),
            "refusal": _alone(
                f"SELECT budgets_reserve(uuidv7(), '{organisation_id}', '{missions[0]}', 1e12, 0, 1, 'USD', '', 600);"
            ),
        }
        rates: dict[str, list[float]] = {name: [] for name in ("tpcb", *scripts)}
        for _ in range(ROUNDS):
            rates["tpcb"].append(server.rate())
            for name, script in scripts.items():
                rates[name].append(server.rate(script=script))
        medians = {name: statistics.median(values) for name, values in rates.items()}
        medians["batch"] *= BATCH
        wrong, flush = _wrong_sums(), server.flush_microseconds()
        races = {
            "burst": _race(organisation_id, "1.00", "0.50", 32, 32),
            "exact_fit": _race(organisation_id, "10.00", "0.01", 5000, 32),
        }
    return {
        "bench": "ledger",
        "clients": CLIENTS,
        "seconds": SECONDS,
        "rounds": ROUNDS,
        "tpcb_scale": SCALE,
        "flush_microseconds": flush,
        "load_average": os.getloadavg()[0],
        "per_second": {name: round(value) for name, value in medians.items()},
        "ratios": {
            "five_level_reserve_vs_tpcb": _ratio(medians, "reserve"),
            "batch_of_50_holds_vs_tpcb": _ratio(medians, "batch"),
            "reserve_dispatch_settle_vs_tpcb": _ratio(medians, "cycle"),
            "refusal_vs_tpcb": _ratio(medians, "refusal"),
        },
        "goals": {"five_level_reserve_vs_tpcb": 0.5, "batch_of_50_holds_vs_tpcb": 4.0, "overspend": 0},
        "races": races,
        "windows_with_wrong_sums": wrong,
    }


def _alone(statement: str) -> str:
    """As `common.commits.run_alone` sends it."""
    return _together(f"BEGIN;\n{statement}\n{_COMMIT_THEN_FLUSH}")


def _together(statements: str) -> str:
    """One round trip, as a string of several statements is; pgbench can't prepare such a string."""
    return f"\\startpipeline\n{statements}\\endpipeline\n"


def _ratio(medians: dict[str, float], name: str) -> float:
    return round(medians[name] / medians["tpcb"], 2)


def _prepare() -> tuple[uuid.UUID, list[uuid.UUID]]:
    """One organisation, 2 teams, 4 projects, 8 agents, 64 missions: five levels, each with all three limits."""
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0, skip_checks=True)
    from controlplane.tenancy.models import Organisation

    organisation = Organisation.objects.create(name="Northwind", slug="northwind")
    levels = [_open(organisation.pk, None, "organisation", 0)]
    for level, number in (("other", 2), ("other", 4), ("agent", 8), ("mission", MISSIONS)):
        levels = [_open(organisation.pk, levels[index % len(levels)], level, index) for index in range(number)]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_mission (n integer PRIMARY KEY, account_id uuid NOT NULL)")
        cursor.executemany("INSERT INTO bench_mission VALUES (%s, %s)", list(enumerate(levels, start=1)))
    return organisation.pk, levels


def _open(
    organisation_id: uuid.UUID, parent_id: uuid.UUID | None, level: str, index: int, money: Decimal = Decimal(10**9)
) -> uuid.UUID:
    from budgets import services
    from budgets.types import Level, Limits, WindowKind
    from controlplane.tenancy.types import system_principal

    return services.open_account(
        actor=system_principal(organisation_id=organisation_id),
        organisation_id=organisation_id,
        team_id=None,
        parent_id=parent_id,
        level=Level(level),
        name=f"{level} {index}",
        limits=Limits(money=money, tokens=10**14, steps=10**14),
        window=WindowKind.TOTAL,
    )


def _analyse() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def _wrong_sums() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM budgets_window AS w JOIN ("
            " SELECT u.id, sum(h.money) FILTER (WHERE h.closed_at IS NULL) AS held, sum(h.actual_money) AS spent"
            " FROM budgets_hold AS h CROSS JOIN LATERAL unnest(h.window_ids) AS u (id) GROUP BY u.id"
            ") AS s ON s.id = w.id WHERE w.held_money <> coalesce(s.held, 0)"
            " OR w.spent_money + w.overrun_money <> coalesce(s.spent, 0)"
        )
        return int(cursor.fetchone()[0])


def _race(organisation_id: uuid.UUID, budget: str, price: str, tries: int, threads: int) -> dict[str, Any]:
    """`tries` reserves from many threads against a budget for a known number of them."""
    from budgets.models import Window

    root = _open(organisation_id, None, "organisation", tries)
    leaf = _open(organisation_id, root, "mission", tries, money=Decimal(budget))
    fits = int(Decimal(budget) / Decimal(price))
    granted = _in_threads(threads, _tries(organisation_id, leaf, Decimal(price), tries // threads))
    held = Window.objects.get(account_id=leaf).held_money
    return {
        "fits": fits,
        "tries": tries,
        "granted": granted,
        "overspend": str(max(held - Decimal(budget), Decimal(0))),
    }


def _tries(organisation_id: uuid.UUID, account_id: uuid.UUID, price: Decimal, number: int) -> Callable[[], int]:
    from budgets import services
    from budgets.types import Amounts
    from controlplane.common.errors import RemitError
    from controlplane.common.ids import new_id

    def work() -> int:
        granted = 0
        for _ in range(number):
            hold_id = new_id()
            while True:
                try:
                    refusal = services.reserve(
                        hold_id=hold_id,
                        account_id=account_id,
                        organisation_id=organisation_id,
                        amounts=Amounts(price, 0, 1),
                        ttl_seconds=600,
                    )
                except RemitError as error:
                    if error.retry_after_seconds is None:
                        raise
                    continue
                granted += refusal is None
                break
        return granted

    return work


def _in_threads(number: int, work: Callable[[], int]) -> int:
    from django.db import connection

    results: list[int] = []

    def run() -> None:
        results.append(work())
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(results) != number:
        raise RuntimeError("a thread failed")
    return sum(results)


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
