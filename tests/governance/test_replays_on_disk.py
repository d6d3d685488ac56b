"""A replay repeats an answer. What it repeats is on disk by then, whoever committed it and however."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.db import connection

from governance import services
from governance.models import Action

from .gate import Gate

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _own_session() -> Iterator[None]:
    yield
    connection.close()


def _ask(sql: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def _unflushed(write: Callable[[], object]) -> object:
    """What `write` returns, after a commit whose flush nobody waited for: others see its rows, a crash forgets them."""
    _ask("SET synchronous_commit TO off")
    written = write()
    _ask("SET synchronous_commit TO on")
    return written


def _on_disk(place: object) -> bool:
    return bool(_ask(f"SELECT pg_current_wal_flush_lsn() >= '{place}'"))


@pytest.mark.parametrize("amount", [10, 60, 200], ids=["allowed", "waiting", "refused"])
def test_the_answer_to_a_repeated_key_is_on_disk_before_it_is_repeated(gate: Gate, amount: int) -> None:
    first = _unflushed(lambda: gate.propose(amount, idempotency_key="k"))
    place = _ask("SELECT pg_current_wal_insert_lsn()")
    again = gate.propose(amount, idempotency_key="k")
    assert _on_disk(place)
    assert again.replayed
    assert again.action_id == first.action_id  # type: ignore[attr-defined]


def test_a_question_that_is_joined_is_on_disk_before_it_is_named(gate: Gate) -> None:
    _unflushed(lambda: gate.propose(60))
    place = _ask("SELECT pg_current_wal_insert_lsn()")
    assert gate.propose(60).replayed
    assert _on_disk(place)
    assert Action.objects.count() == 1


def test_an_outcome_reported_before_is_on_disk_before_it_is_confirmed(gate: Gate) -> None:
    judgement = gate.propose(10)
    gate.redeem(judgement)

    def report() -> Action:
        return services.record_outcome(
            holder=gate.run, action_id=judgement.action_id, audience="mcp", outcome="success"
        )

    _unflushed(report)
    place = _ask("SELECT pg_current_wal_insert_lsn()")
    report()
    assert _on_disk(place)
