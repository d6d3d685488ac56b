"""Every list at size: how long one page takes, how large it is on its way, and how many statements it costs.

`python bench/bench_lists.py` prints one JSON object. BENCH_LIST_SIZE (10000x1000000) is missions x actions,
BENCH_LIST_ESCALATIONS (5000) the open questions, BENCH_LIST_PAGES (40) how often each page is read.
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

MISSIONS, ACTIONS = (int(part) for part in os.environ.get("BENCH_LIST_SIZE", "10000x1000000").split("x"))
ESCALATIONS = int(os.environ.get("BENCH_LIST_ESCALATIONS", "5000"))
PAGES = int(os.environ.get("BENCH_LIST_PAGES", "40"))
GOAL_MILLISECONDS, GOAL_BYTES = 200, 50_000


def main() -> dict[str, Any]:
    with durable_server():
        clients = _prepare()
        seeded = _timed(_seed)
        _analyse()
        paths = _paths(clients)
        _load(clients, paths)
        results = {name: _measure(clients[who], path) for name, (who, path) in paths.items()}
    slowest = max(row["p95"] for row in results.values())
    largest = max(row["bytes"] for row in results.values())
    return {
        "bench": "lists",
        "missions": MISSIONS,
        "actions": ACTIONS,
        "open_questions": ESCALATIONS,
        "load_average": os.getloadavg()[0],
        "seconds_to_seed": round(seeded, 1),
        "pages": results,
        "ratios": {
            "slowest_page_p95_vs_200_ms": round(slowest / GOAL_MILLISECONDS, 2),
            "largest_page_vs_50_kb": round(largest / GOAL_BYTES, 2),
        },
        "goals": {"slowest_page_p95_vs_200_ms": "at most 1", "largest_page_vs_50_kb": "at most 1"},
    }


def _prepare() -> dict[str, Any]:
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    call_command("migrate", verbosity=0)
    return {}


def _seed() -> None:
    from agents.catalogue.size import Size, seed

    seed(Size(MISSIONS, ACTIONS, ESCALATIONS, ACTIONS // 5), lambda words: print(words, file=sys.stderr))


def _analyse() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def _paths(clients: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Who reads what. The missions and agents looked at are those with the most rows."""
    from django.test import Client

    from agents.models import Mission
    from budgets.models import Account
    from controlplane.tenancy.models import User

    for name in ("nadia", "dana", "finn", "alice"):
        clients[name] = Client()
        clients[name].force_login(
            User.objects.get(email=f"{name}@size.example"),
            backend="allauth.account.auth_backends.AuthenticationBackend",
        )
    mission = Mission.objects.filter(state="active").order_by("-id").first()
    old = Mission.objects.order_by("id")[MISSIONS // 2]
    assert mission is not None
    root = Account.objects.get(depth=0, organisation_id=mission.organisation_id)
    team = Account.objects.get(subject_id=mission.team_id)
    from controlplane.common.cursors import _encode

    return {
        "home": ("nadia", "/"),
        "home_approver": ("dana", "/"),
        "missions": ("nadia", "/missions"),
        "missions_deep": ("nadia", f"/missions?cursor={_encode('older', old)}"),
        "missions_waiting": ("nadia", "/missions?asking=1"),
        "missions_ended": ("nadia", "/missions?state=succeeded&state=failed&state=stopped&state=expired"),
        "missions_text": ("nadia", "/missions?q=region+77"),
        "missions_text_nothing": ("nadia", "/missions?q=nowhere+at+all"),
        "missions_one_team": ("alice", "/missions"),
        "mission": ("nadia", f"/missions/{mission.pk}"),
        "mission_budget": ("nadia", f"/missions/{mission.pk}/budget"),
        "agents": ("nadia", "/agents"),
        "agent": ("nadia", f"/agents/{mission.agent_id}"),
        "approvals_mine": ("dana", "/approvals"),
        "approvals_open": ("nadia", "/approvals?tab=open"),
        "approvals_decided": ("dana", "/approvals?tab=decided"),
        "budgets": ("finn", "/budgets"),
        "budget_of_all": ("finn", f"/budgets/{root.pk}"),
        "budget_of_a_team": ("finn", f"/budgets/{team.pk}"),
        "audit": ("nadia", "/audit"),
        "audit_text": ("nadia", "/audit?q=tool_7"),
        "audit_text_nothing": ("nadia", "/audit?q=nowhere"),
        "audit_one_event": ("nadia", "/audit?event=server.registered"),
        "servers": ("nadia", "/servers"),
        "search": ("nadia", "/search?q=region+12"),
        "search_nothing": ("nadia", "/search?q=nowhere"),
    }


def _load(clients: dict[str, Any], paths: dict[str, tuple[str, str]]) -> None:
    """As a server that is up: templates are loaded, and the collector does not look at them."""
    from controlplane.common.collecting import keep_what_is_loaded

    for who, path in paths.values():
        clients[who].get(path)
    keep_what_is_loaded()


def _measure(client: Any, path: str) -> dict[str, Any]:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    answer = client.get(path)
    if answer.status_code != 200:
        raise RuntimeError(f"{path} answered {answer.status_code}")
    client.get(path)
    with CaptureQueriesContext(connection) as captured:
        client.get(path)
    statements = [query for query in captured.captured_queries if "SAVEPOINT" not in query["sql"]]
    slow = max(statements, key=lambda query: float(query["time"]), default={"sql": "", "time": "0"})
    if float(slow["time"]) * 1000 > GOAL_MILLISECONDS / 2:
        print(f"{path}: {slow['time']} s in {slow['sql'][:3000]}\n", file=sys.stderr)
    times = [_timed(lambda: client.get(path)) * 1000 for _ in range(PAGES)]
    return {
        "p50": round(statistics.median(times)),
        "p95": round(sorted(times)[min(int(len(times) * 0.95), len(times) - 1)]),
        "bytes": len(client.get(path, headers={"accept-encoding": "gzip"}).content),  # as a browser is sent it
        "bytes_before": len(answer.content),
        "statements": len(statements),
    }


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    print(json.dumps(main(), indent=1))
