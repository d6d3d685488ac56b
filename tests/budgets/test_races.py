"""Many callers at once: exactly what fits is granted, nothing is charged twice, nobody waits for ever."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from budgets import services
from budgets.models import Hold
from budgets.port import LedgerPort
from budgets.sweeping import sweep_all
from budgets.types import Amounts, Limits, Reserve, WindowKind
from controlplane.common.errors import RemitError
from controlplane.common.ids import new_id
from controlplane.tenancy.models import Organisation, Team
from governance.types import Statement
from tests.budgets.conftest import Tree, window, wrong_sums

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
THREADS = 32


@pytest.fixture
def shared(open_tree: Callable[..., Tree], transactional_db: None) -> Tree:
    organisation = Organisation.objects.create(name="Northwind", slug="northwind")
    return open_tree(organisation, Team.objects.create(organisation=organisation, name="Team", slug="team"))


def _in_threads(work: Callable[[int], object], threads: int = THREADS) -> list[object]:
    results: list[object] = []
    failures: list[BaseException] = []
    start = threading.Barrier(threads)

    def run(number: int) -> None:
        try:
            start.wait()
            results.append(work(number))
        except BaseException as error:  # handed to the test
            failures.append(error)
        finally:
            connection.close()

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    return results


def _patiently(act: Callable[[], object]) -> object:
    """As a client does: the same request again while the ledger says it is busy."""
    while True:
        try:
            return act()
        except RemitError as error:
            if error.retry_after_seconds is None:
                raise


def test_a_budget_for_a_thousand_grants_exactly_a_thousand_of_five_thousand(shared: Tree) -> None:
    services.set_limit(
        actor=shared.system, account_id=shared.team, window=WindowKind.TOTAL, limits=Limits(money=Decimal("10.009"))
    )

    def work(_: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        for _ in range(5000 // THREADS + 1):
            hold_id = new_id()
            _, refusal = _patiently(lambda hold_id=hold_id: shared.reserve("0.01", hold_id=hold_id))  # type: ignore[misc]
            answers[refusal.reason_code if refusal else "held"] += 1
        return answers

    total: Counter[str] = sum(_in_threads(work), Counter())  # type: ignore[arg-type]
    assert total["held"] == 1000
    assert set(total) == {"held", "budget.exhausted"}
    assert all(window(account).held_money == 10 for account in shared.levels)
    assert wrong_sums() == []


def test_thirty_two_at_once_for_half_the_budget_each_grants_two(shared: Tree) -> None:
    services.set_limit(
        actor=shared.system, account_id=shared.mission, window=WindowKind.TOTAL, limits=Limits(money=Decimal(1))
    )
    ids = [new_id() for _ in range(THREADS)]
    answers = _in_threads(lambda number: _patiently(lambda: shared.reserve("0.5", hold_id=ids[number])))
    assert sum(refusal is None for _, refusal in answers) == 2  # type: ignore[misc]
    assert window(shared.organisation).held_money == 1
    assert wrong_sums() == []


def test_one_request_sent_from_everywhere_is_held_and_charged_once(shared: Tree) -> None:
    hold_id = new_id()
    answers = _in_threads(lambda _: _patiently(lambda: shared.reserve("1", hold_id=hold_id)), 16)
    assert all(refusal is None for _, refusal in answers)  # type: ignore[misc]
    settled = _in_threads(lambda _: _patiently(lambda: services.settle(hold_id=hold_id)), 16)
    assert sum(not result.replayed for result in settled) == 1  # type: ignore[attr-defined]
    assert window(shared.organisation).spent_money == 1
    assert wrong_sums() == []


def test_one_report_from_everywhere_in_one_go_is_charged_once(shared: Tree) -> None:
    hold_id, port = shared.held("1"), LedgerPort()
    port.dispatch(hold_id=hold_id)
    locked = Statement("SELECT id AS hold_id FROM budgets_hold WHERE id = %s FOR UPDATE", (hold_id,))
    done = _in_threads(
        lambda _: _patiently(
            lambda: port.settle_between(money=Decimal(1), locked=locked, then=Statement("SELECT 1", ()))
        ),
        16,
    )
    assert sorted(done) == [False] * 15 + [True]  # type: ignore[type-var]
    assert (window(shared.organisation).spent_money, window(shared.organisation).held_money) == (1, 0)
    assert wrong_sums() == []


def test_settle_void_and_sweep_race_for_one_hold_and_one_wins(shared: Tree) -> None:
    holds = [shared.held("1") for _ in range(12)]
    Hold.objects.update(expires_at="2026-01-01T00:00:00Z")

    def work(number: int) -> str:
        for hold_id in holds:
            try:
                match number % 3:
                    case 0:
                        _patiently(lambda hold_id=hold_id: services.void(hold_id=hold_id))  # type: ignore[misc]
                    case 1:
                        _patiently(lambda hold_id=hold_id: services.settle(hold_id=hold_id))  # type: ignore[misc]
                    case _:
                        _patiently(sweep_all)
            except RemitError as error:
                if error.code not in ("ledger.hold_settled", "ledger.hold_closed"):
                    raise
        return "done"

    _in_threads(work, 9)
    assert Hold.objects.filter(closed_at=None).count() == 0
    assert window(shared.organisation).held_money == 0
    assert wrong_sums() == []


def test_batches_over_several_missions_and_single_calls_never_deadlock(
    shared: Tree, team_of: Callable[..., list[uuid.UUID]]
) -> None:
    missions = team_of(4)

    def work(number: int) -> int:
        granted = 0
        for turn in range(6):
            chosen = missions[(number + turn) % 4 :] + missions[: (number + turn) % 4]
            items = [Reserve(new_id(), account, Amounts(Decimal("0.5"), 0, 1)) for account in chosen]
            answers = _patiently(
                lambda items=items: services.reserve_batch(  # type: ignore[misc]
                    organisation_id=shared.organisation_id, items=items, ttl_seconds=60
                )
            )
            granted += sum(answer.refusal is None for answer in answers)  # type: ignore[attr-defined]
            _patiently(lambda hold_id=items[0].hold_id: services.void(hold_id=hold_id))  # type: ignore[misc]
        return granted

    assert sum(_in_threads(work, 12)) == 12 * 6 * 4  # type: ignore[arg-type]
    assert window(shared.organisation).held_money == Decimal("0.5") * 12 * 6 * 3
    assert wrong_sums() == []


@pytest.fixture
def team_of(shared: Tree) -> Callable[[int], list[uuid.UUID]]:
    from budgets.types import Level

    def make(number: int) -> list[uuid.UUID]:
        return [
            services.open_account(
                actor=shared.system,
                organisation_id=shared.organisation_id,
                team_id=None,
                parent_id=shared.organisation,
                level=Level.OTHER,
                name=f"Mission {index}",
                limits=Limits(money=Decimal(1000)),
                window=WindowKind.TOTAL,
            )
            for index in range(number)
        ]

    return make


def test_a_queue_at_a_row_is_answered_busy_and_retryable(shared: Tree) -> None:
    shared.held("1")
    locked, release = threading.Event(), threading.Event()

    def hold_the_row() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT FROM budgets_window WHERE account_id = %s FOR UPDATE", [shared.organisation])
                locked.set()
                release.wait(20)
        finally:
            connection.close()

    other = threading.Thread(target=hold_the_row)
    other.start()
    try:
        assert locked.wait(20)
        with pytest.raises(RemitError) as busy, transaction.atomic():
            shared.reserve("1")
        assert (busy.value.code, busy.value.status, busy.value.retry_after_seconds) == ("ledger.busy", 503, 1)
        # A refusal needs no lock and is not kept waiting.
        _, refusal = shared.reserve("5000")
        assert refusal is not None
    finally:
        release.set()
        other.join()
    shared.held("1")
    assert wrong_sums() == []


def test_a_level_that_fills_up_meanwhile_undoes_the_levels_below(shared: Tree) -> None:
    """Another transaction takes the last money after this one has looked: the second look, under the lock, refuses."""
    services.set_limit(
        actor=shared.system, account_id=shared.organisation, window=WindowKind.TOTAL, limits=Limits(money=Decimal(1))
    )
    shared.held("0")
    taken, commit = threading.Event(), threading.Event()
    answers: list[object] = []

    def take() -> None:
        try:
            with transaction.atomic():
                shared.held("1", account=shared.organisation)
                taken.set()
                commit.wait(20)
        finally:
            connection.close()

    def late() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            answers.append(shared.reserve("0.5"))
        except BaseException as error:  # handed to the test
            answers.append(error)
        finally:
            connection.close()

    first, second = threading.Thread(target=take), threading.Thread(target=late)
    first.start()
    assert taken.wait(20)
    second.start()
    with CaptureQueriesContext(connection), connection.cursor() as cursor:
        for _ in range(2000):  # until it queues at the root
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            if cursor.fetchone() != (0,):
                break
    commit.set()
    first.join()
    second.join()
    ((hold_id, refusal),) = answers  # type: ignore[misc]
    assert refusal.account_id == shared.organisation
    assert not Hold.objects.filter(pk=hold_id).exists()
    assert all(window(account).held_money == 0 for account in shared.levels[:-1])
    assert wrong_sums() == []


@pytest.mark.parametrize("step", ["reserve", "settle", "void"])
def test_levels_are_locked_from_the_leaf_to_the_root(shared: Tree, step: str) -> None:
    """Whoever queues at the leaf has not touched the root: the hottest row is locked last."""
    hold_id = shared.held("1")
    steps: dict[str, Callable[[], object]] = {
        "reserve": lambda: shared.reserve("1"),
        "settle": lambda: services.settle(hold_id=hold_id),
        "void": lambda: services.void(hold_id=hold_id),
    }
    answers: list[object] = []

    def act() -> None:
        try:
            answers.append(steps[step]())
        except RemitError as error:
            answers.append(error.code)
        finally:
            connection.close()

    other = threading.Thread(target=act)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT FROM budgets_window WHERE account_id = %s FOR UPDATE", [shared.mission])
        other.start()
        queued = False
        while not queued and not answers:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            queued = cursor.fetchone() != (0,)
        above = list(shared.levels[1:])
        cursor.execute("SELECT FROM budgets_window WHERE account_id = ANY(%s) FOR UPDATE NOWAIT", [above])
    other.join()
    assert queued
    assert wrong_sums() == []
