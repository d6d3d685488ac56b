"""The Receivables clerk at work while every process around it is killed: all of it gets done, and nothing twice."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import psutil
import pytest

from agents.servers.environments import environment
from tests.end_to_end.faults.site import Mission, Site, wait_until

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(400)]

# A whole run takes some 20 s here; each death costs it a few more.
RUN_SECONDS = 240.0

REMINDERS = "SELECT count(*) FROM outbox"
OVERDUE_AND_NOT_REMINDED = """
SELECT count(*) FROM invoices JOIN balances ON balances.invoice = invoices.id
WHERE open_cents > 0 AND due < date('now', '-30 days') AND id NOT IN (SELECT invoice FROM outbox)
"""
# Calls that change the book, made although the same one is known to have worked: twice, or once more in vain.
DONE_AGAIN = """
SELECT tool, arguments->>'invoice', array_agg(state) FROM governance_action
WHERE mission_id = %s AND tool IN ('books__write_reminder', 'books__apply_credit') AND executing_at IS NOT NULL
GROUP BY 1, 2
HAVING count(*) FILTER (WHERE state = 'succeeded') > 1
    OR count(*) FILTER (WHERE state = 'failed') > 0 AND count(*) FILTER (WHERE state = 'unknown') = 0
"""


@pytest.fixture(scope="module")
def _samples(shared: Site) -> None:
    for name in ("agent", "sqlite"):
        environment(name, state_dir=shared.folder)
    shared.wait_recovered()
    shared.do("register_samples")


@pytest.fixture
def run(site: Site, _samples: None) -> Iterator[str]:
    """A Receivables mission that has just written its first reminders."""
    mission = site.do("start_receivables")
    wait_progress(site, mission, 3)
    yield mission
    site.wait_recovered()
    site.do("stop_mission", mission)


def count(site: Site, mission: str, query: str) -> int:
    """From the book itself: what really happened."""
    book = site.state / "missions" / mission / "book" / "ledger" / "receivables.sqlite"
    if not book.exists():
        return 0
    with closing(sqlite3.connect(f"file:{book}?mode=ro", uri=True)) as connection:
        return int(connection.execute(query).fetchone()[0])


def wait_progress(site: Site, mission: str, reminders: int) -> None:
    """Until so many more reminders than now are written, or all of them."""
    wanted = count(site, mission, REMINDERS) + reminders
    wait_until(
        lambda: count(site, mission, REMINDERS) >= wanted or claimed(site, mission),
        f"{reminders} more reminders: {story(site, mission)}",
        seconds=RUN_SECONDS,
    )


def claimed(site: Site, mission: str) -> bool:
    return bool(site.value("SELECT outcome = 'claimed' FROM agents_mission WHERE id = %s", mission))


def story(site: Site, mission: str) -> str:
    return str(site.rows("SELECT attempt, state, reason FROM agents_run WHERE mission_id = %s ORDER BY 1", mission))


def finish(site: Site, mission: str) -> None:
    """Approve what waits, until the outcome is claimed. Then the book and the database have to agree."""
    waiting = "SELECT id::text FROM governance_action WHERE mission_id = %s AND state = 'waiting'"
    deadline = time.monotonic() + RUN_SECONDS
    while not claimed(site, mission):
        assert time.monotonic() < deadline, story(site, mission)
        for (action,) in site.rows(waiting, mission):
            site.do("approve", action)
        time.sleep(0.5)

    assert count(site, mission, REMINDERS) > 20
    assert count(site, mission, OVERDUE_AND_NOT_REMINDED) == 0
    assert count(site, mission, "SELECT count(*) - count(DISTINCT invoice) FROM outbox") == 0
    assert count(site, mission, "SELECT count(*) - count(DISTINCT invoice) FROM credits") == 0
    states = site.wait_ended(Mission(mission), seconds=90)  # a permit that nobody came back for lives a minute
    assert site.rows(DONE_AGAIN, mission) == []
    unknown = "SELECT id::text FROM governance_action WHERE mission_id = %s AND state = 'unknown'"
    site.reconcile(*(action for (action,) in site.rows(unknown, mission)))
    assert states["waiting"] == 0
    wait_until(lambda: site.open_holds(Mission(mission)) == 0, "every hold's end")
    site.check_sums()
    site.check_audit()


def test_a_mission_outlives_the_database_the_broker_the_worker_and_the_web_process(site: Site, run: str) -> None:
    site.kill("postgres")
    wait_progress(site, run, 3)
    with site.away("valkey-server"):
        shutil.rmtree(site.state / "valkey" / "appendonlydir")
        wait_progress(site, run, 2)
    site.kill("worker")
    wait_progress(site, run, 3)
    site.kill("web")
    wait_progress(site, run, 3)
    site.child("postgres").send_signal(signal.SIGINT)
    finish(site, run)
    assert site.value("SELECT max(attempt) FROM agents_run WHERE mission_id = %s", run) == 1


def test_a_mission_whose_node_and_whose_supervisor_were_killed_goes_on_in_new_attempts(site: Site, run: str) -> None:
    site.kill("node")
    wait_progress(site, run, 3)
    assert site.process is not None
    everything = psutil.Process(site.process.pid).children(recursive=True)
    site.process.kill()
    site.process.wait()
    assert psutil.wait_procs(everything, timeout=20)[1] == []  # nothing is left behind
    site.start()
    wait_progress(site, run, 3)
    finish(site, run)
    attempts = site.rows("SELECT attempt, state, reason FROM agents_run WHERE mission_id = %s ORDER BY 1", run)
    assert [state for _, state, _ in attempts[:2]] == ["lost", "lost"]
    assert attempts[0][2] == "The node that ran it was lost"
    assert len(attempts) == 3
