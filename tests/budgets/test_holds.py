"""What becomes of a hold: reserve, dispatch, settle, void, extend, sweep; each refused, repeated, late or too large."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.db.utils import IntegrityError, ProgrammingError

from budgets import calls, services
from budgets.models import Hold, JournalEntry, Window
from budgets.port import LedgerPort
from budgets.sweeping import sweep_all
from budgets.types import Amounts, HoldState, Reserve, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.common.ids import new_id
from governance.types import BudgetRequest, HoldRefused
from tests.budgets.conftest import Tree, window, wrong_sums

pytestmark = pytest.mark.django_db
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def _expire(hold_id: uuid.UUID) -> None:
    Hold.objects.filter(pk=hold_id).update(expires_at=LONG_AGO)


def _state(hold_id: uuid.UUID) -> str:
    return Hold.objects.values_list("state", flat=True).get(pk=hold_id)


def test_a_reserve_holds_the_whole_vector_at_every_level(tree: Tree) -> None:
    tree.held("2.5", tokens=300, steps=2)
    for account in tree.levels:
        row = window(account)
        assert (row.held_money, row.held_tokens, row.held_steps) == (Decimal("2.5"), 300, 2)
    assert wrong_sums() == []


def test_the_gates_reserve_is_exactly_one_statement(tree: Tree, django_assert_num_queries: object) -> None:
    request = BudgetRequest(account_id=tree.mission, money=Decimal(1), currency="USD", signature=b"x")
    with django_assert_num_queries(1):  # type: ignore[operator]
        refused = LedgerPort().reserve(
            hold_id=new_id(), request=request, organisation_id=tree.organisation_id, ttl_seconds=60
        )
    assert refused is None


@pytest.mark.parametrize("position", range(5))
def test_the_tight_level_is_named_and_no_other_keeps_anything(tree: Tree, position: int) -> None:
    tight = tree.levels[position]
    tree.limit(tight, money=Decimal("0.40"))
    hold_id, refusal = tree.reserve("0.50")
    assert refusal is not None
    assert refusal.reason_code == "budget.exhausted"
    assert refusal.account_id == tight
    assert refusal.unit == "money"
    assert refusal.left == Decimal("0.40")
    assert "0.40 USD left in total; this needs 0.50" in refusal.message
    assert refusal.remedies
    assert not Hold.objects.filter(pk=hold_id).exists()
    assert not JournalEntry.objects.filter(hold_id=hold_id).exists()
    assert all(window(account).held_money == 0 for account in tree.levels)


@pytest.mark.parametrize(("unit", "limits"), [("tokens", {"tokens": 99}), ("steps", {"steps": 0})])
def test_tokens_and_steps_are_limits_like_money(tree: Tree, unit: str, limits: dict[str, int]) -> None:
    tree.limit(tree.agent, **limits)
    _, refusal = tree.reserve("1", tokens=100, steps=1)
    assert refusal is not None
    assert (refusal.unit, refusal.level) == (unit, "agent")


def test_a_limit_is_used_up_to_its_last_unit(tree: Tree) -> None:
    tree.limit(tree.mission, money=Decimal("0.3"))
    for _ in range(3):
        tree.held("0.1")
    _, refusal = tree.reserve("0.000000000001")
    assert refusal is not None
    assert refusal.left == 0


def test_ten_replays_are_charged_once(tree: Tree) -> None:
    hold_id = new_id()
    for _ in range(10):
        assert tree.reserve("1", hold_id=hold_id)[1] is None
    services.dispatch(hold_id=hold_id)
    charged = [services.settle(hold_id=hold_id, amounts=Amounts(Decimal("0.75"), 0, 1)) for _ in range(10)]
    assert [result.replayed for result in charged] == [False] + [True] * 9
    assert {result.charged.money for result in charged} == {Decimal("0.75")}
    assert window(tree.organisation).spent_money == Decimal("0.75")
    assert JournalEntry.objects.filter(hold_id=hold_id).count() == 3
    assert wrong_sums() == []


def test_a_replay_is_answered_even_when_nothing_is_left(tree: Tree) -> None:
    tree.limit(tree.mission, money=Decimal(1))
    hold_id = tree.held("1")
    assert tree.reserve("1")[1] is not None
    assert tree.reserve("1", hold_id=hold_id)[1] is None


@pytest.mark.parametrize("other", [{"money": "2"}, {"steps": 2}, {"tokens": 1}, {"signature": b"other"}])
def test_another_request_under_the_same_id_conflicts(tree: Tree, other: dict[str, object]) -> None:
    hold_id = tree.held("1")
    with pytest.raises(RemitError) as refused:
        tree.reserve(hold_id=hold_id, **{"money": "1", **other})  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.status) == ("ledger.hold_conflict", 409)
    assert window(tree.mission).held_money == 1


def test_another_organisations_hold_id_conflicts_and_tells_nothing(
    tree: Tree, open_tree: object, elsewhere: object, make_person: object
) -> None:
    from controlplane.tenancy.models import Team

    theirs = open_tree(elsewhere, Team.objects.create(organisation=elsewhere, name="T", slug="t"))  # type: ignore[operator]
    hold_id = tree.held("1")
    with pytest.raises(RemitError, match=r"ledger.hold_conflict"):
        theirs.reserve("1", hold_id=hold_id)
    refused = services.reserve(
        hold_id=new_id(),
        account_id=tree.mission,
        organisation_id=theirs.organisation_id,
        amounts=Amounts(Decimal(1)),
        ttl_seconds=60,
    )
    assert refused is not None
    assert refused.reason_code == "budget.unknown_account"


@pytest.mark.parametrize(
    "amounts",
    [
        Amounts(Decimal(-1)),
        Amounts(Decimal("NaN")),
        Amounts(Decimal("Infinity")),
        Amounts(Decimal("1e16")),
        Amounts(Decimal("0.0000000000001")),
        Amounts(Decimal(0), -1),
        Amounts(Decimal(0), 0, -1),
        Amounts(Decimal(0), 2**63),
    ],
)
def test_amounts_that_are_no_amounts_are_refused(tree: Tree, amounts: Amounts) -> None:
    with pytest.raises(RemitError) as refused, transaction.atomic():
        services.reserve(
            hold_id=new_id(),
            account_id=tree.mission,
            organisation_id=tree.organisation_id,
            amounts=amounts,
            ttl_seconds=60,
        )
    assert refused.value.code == "ledger.amount_invalid"
    assert Hold.objects.count() == 0
    hold_id = tree.held("1")
    with pytest.raises(RemitError, match=r"ledger.amount_invalid"), transaction.atomic():
        services.settle(hold_id=hold_id, amounts=amounts)
    assert _state(hold_id) == HoldState.HELD


def test_another_currency_is_refused(tree: Tree) -> None:
    request = BudgetRequest(account_id=tree.mission, money=Decimal(1), currency="EUR")
    refused = LedgerPort().reserve(
        hold_id=new_id(), request=request, organisation_id=tree.organisation_id, ttl_seconds=60
    )
    assert isinstance(refused, HoldRefused)
    assert refused.reason_code == "budget.currency"
    assert "USD" in refused.message


def test_settling_below_the_hold_gives_the_rest_back(tree: Tree) -> None:
    hold_id = tree.held("5", tokens=100)
    services.dispatch(hold_id=hold_id)
    result = services.settle(hold_id=hold_id, amounts=Amounts(Decimal(2), 40, 1))
    assert result.charged == Amounts(Decimal(2), 40, 1)
    row = window(tree.mission)
    assert (row.held_money, row.spent_money, row.held_tokens, row.spent_tokens) == (0, 2, 0, 40)
    assert wrong_sums() == []


def test_the_gate_settles_at_the_held_price(tree: Tree) -> None:
    hold_id = tree.held("0.05", tokens=7)
    ledger = LedgerPort()
    ledger.dispatch(hold_id=hold_id)
    assert ledger.settle(hold_id=hold_id, money=None) == Decimal("0.05")
    assert window(tree.team).spent_tokens == 7


def test_an_excess_takes_the_room_that_is_left(tree: Tree) -> None:
    hold_id = tree.held("1")
    result = services.settle(hold_id=hold_id, amounts=Amounts(Decimal(3), 0, 1))
    assert result.overrun == ()
    row = window(tree.mission)
    assert (row.spent_money, row.overrun_money, row.frozen) == (3, 0, False)
    assert wrong_sums() == []


def test_an_excess_without_room_is_charged_frozen_and_told(tree: Tree) -> None:
    tree.limit(tree.mission, money=Decimal(1))
    tree.limit(tree.team, money=Decimal("1.5"))
    hold_id = tree.held("1")
    result = services.settle(hold_id=hold_id, amounts=Amounts(Decimal(2), 0, 1))
    assert set(result.overrun) == {tree.mission, tree.team}
    mission, agent, team = (window(account) for account in (tree.mission, tree.agent, tree.team))
    assert (mission.spent_money, mission.overrun_money, mission.frozen) == (1, 1, True)
    assert (agent.spent_money, agent.overrun_money, agent.frozen) == (2, 0, False)
    assert (team.spent_money, team.overrun_money, team.frozen) == (Decimal("1.5"), Decimal("0.5"), True)
    told = Entry.objects.filter(event=Event.BUDGET_OVERRUN)
    assert {entry.subject_id for entry in told} == {tree.mission, tree.team}
    overruns = JournalEntry.objects.filter(hold_id=hold_id, kind="overrun").values_list("account_id", "money")
    assert dict(overruns) == {tree.mission: 1, tree.team: Decimal("0.5")}
    _, refusal = tree.reserve("0")
    assert refusal is not None
    assert refusal.reason_code == "budget.frozen"
    assert wrong_sums() == []


def test_raising_the_limit_over_an_overrun_lifts_its_freeze(tree: Tree) -> None:
    tree.limit(tree.mission, money=Decimal(1))
    services.settle(hold_id=tree.held("1"), amounts=Amounts(Decimal(2)))
    tree.limit(tree.mission, money=Decimal("1.9"))
    assert window(tree.mission).frozen
    tree.limit(tree.mission, money=Decimal(3))
    row = window(tree.mission)
    assert (row.frozen, row.overrun_money) == (False, 1)
    assert tree.reserve("1.1")[1] is not None
    tree.held("1")
    assert wrong_sums() == []


def test_a_void_gives_everything_back_once(tree: Tree) -> None:
    hold_id = tree.held("4", tokens=9)
    services.void(hold_id=hold_id)
    services.void(hold_id=hold_id)
    assert all((window(a).held_money, window(a).held_tokens) == (0, 0) for a in tree.levels)
    with pytest.raises(RemitError, match=r"ledger.hold_closed"):
        services.settle(hold_id=hold_id)
    with pytest.raises(RemitError, match=r"ledger.hold_closed"):
        services.dispatch(hold_id=hold_id)
    with pytest.raises(RemitError, match=r"ledger.hold_closed"):
        services.extend(hold_id=hold_id, ttl_seconds=10)
    _, refusal = tree.reserve("4", tokens=9, hold_id=hold_id)
    assert refusal is not None
    assert refusal.reason_code == "budget.hold_closed"
    assert wrong_sums() == []


def test_a_settled_hold_is_not_voided(tree: Tree) -> None:
    hold_id = tree.held("4")
    services.settle(hold_id=hold_id)
    with pytest.raises(RemitError, match=r"ledger.hold_settled"):
        services.void(hold_id=hold_id)
    assert window(tree.mission).spent_money == 4


@pytest.mark.parametrize("act", ["dispatch", "settle", "void"])
def test_an_unknown_hold_is_not_found(tree: Tree, act: str) -> None:
    with pytest.raises(RemitError) as missing:
        getattr(services, act)(hold_id=new_id())
    assert missing.value.status == 404


def test_dispatch_starts_the_clock_anew(tree: Tree) -> None:
    hold_id = tree.held("1", ttl_seconds=60)
    Hold.objects.filter(pk=hold_id).update(expires_at=now() + timedelta(seconds=1))
    services.dispatch(hold_id=hold_id)
    services.dispatch(hold_id=hold_id)
    assert Hold.objects.get(pk=hold_id).expires_at > now() + timedelta(seconds=50)


def test_extend_keeps_a_hold_from_the_sweep(tree: Tree) -> None:
    hold_id = tree.held("1")
    _expire(hold_id)
    services.extend(hold_id=hold_id, ttl_seconds=60)
    sweep_all()
    assert _state(hold_id) == HoldState.HELD


def test_the_sweep_gives_back_what_was_never_used(tree: Tree) -> None:
    hold_id, kept = tree.held("1"), tree.held("2")
    _expire(hold_id)
    swept = sweep_all()
    assert (swept.expired, swept.provisional) == (1, 0)
    assert (_state(hold_id), _state(kept)) == (HoldState.EXPIRED, HoldState.HELD)
    assert window(tree.organisation).held_money == 2
    assert wrong_sums() == []


def test_the_sweep_charges_what_was_used_and_never_reported_and_a_late_report_corrects_it(tree: Tree) -> None:
    low, high, none = (tree.held("3") for _ in range(3))
    for hold_id in (low, high, none):
        services.dispatch(hold_id=hold_id)
        _expire(hold_id)
    assert sweep_all().provisional == 3
    assert Hold.objects.get(pk=low).provisional
    assert window(tree.mission).spent_money == 9
    assert JournalEntry.objects.get(hold_id=low, kind="settle").note == "provisional"
    services.settle(hold_id=low, amounts=Amounts(Decimal(1), 0, 1))
    services.settle(hold_id=high, amounts=Amounts(Decimal(5), 0, 1))
    services.void(hold_id=none)
    assert window(tree.mission).spent_money == 6
    assert services.settle(hold_id=low, amounts=Amounts(Decimal(2))).replayed
    assert wrong_sums() == []


def test_a_report_on_an_expired_hold_is_charged_all_the_same(tree: Tree) -> None:
    tree.limit(tree.mission, money=Decimal(1))
    hold_id = tree.held("1")
    _expire(hold_id)
    sweep_all()
    tree.held("0.5")
    services.settle(hold_id=hold_id)
    row = window(tree.mission)
    assert (row.held_money, row.spent_money, row.overrun_money, row.frozen) == (
        Decimal("0.5"),
        Decimal("0.5"),
        Decimal("0.5"),
        True,
    )
    assert wrong_sums() == []


def test_a_batch_answers_each_item_in_its_place(tree: Tree) -> None:
    tree.limit(tree.mission, money=Decimal(5))
    seen = tree.held("1")
    items = [
        Reserve(new_id(), tree.mission, Amounts(Decimal(2), 0, 1)),
        Reserve(seen, tree.mission, Amounts(Decimal(1), 0, 1)),
        Reserve(new_id(), tree.mission, Amounts(Decimal(4), 0, 1)),
        Reserve(new_id(), new_id(), Amounts(Decimal(1))),
        Reserve(new_id(), tree.mission, Amounts(Decimal(2), 0, 1)),
        Reserve(new_id(), tree.agent, Amounts(Decimal(4), 0, 1)),
    ]
    answers = services.reserve_batch(organisation_id=tree.organisation_id, items=items, ttl_seconds=60)
    codes = [answer.refusal.reason_code if answer.refusal else "" for answer in answers]
    assert codes == ["", "", "budget.exhausted", "budget.unknown_account", "", ""]
    assert [answer.replayed for answer in answers] == [False, True, False, False, False, False]
    assert window(tree.mission).held_money == 5
    assert window(tree.agent).held_money == 9
    assert wrong_sums() == []


def test_a_batch_that_fits_is_one_statement_and_one_row_per_level(
    tree: Tree, django_assert_num_queries: object
) -> None:
    items = [Reserve(new_id(), tree.mission, Amounts(Decimal("0.1"), 10, 1), signature=bytes([n])) for n in range(50)]
    with django_assert_num_queries(1):  # type: ignore[operator]
        calls.reserve_batch(organisation_id=tree.organisation_id, currency="USD", items=items, ttl_seconds=60)
    for account in tree.levels:
        row = window(account)
        assert (row.held_money, row.held_tokens, row.held_steps) == (Decimal(5), 500, 50)
    assert Hold.objects.count() == 50
    assert JournalEntry.objects.filter(kind="reserve", hold_id__in=[item.hold_id for item in items]).count() == 50
    again = services.reserve_batch(organisation_id=tree.organisation_id, items=items, ttl_seconds=60)
    assert all(answer.replayed and answer.refusal is None for answer in again)
    assert wrong_sums() == []


def test_one_id_twice_in_a_batch_is_held_once(tree: Tree) -> None:
    item = Reserve(new_id(), tree.mission, Amounts(Decimal(1), 0, 1))
    answers = services.reserve_batch(organisation_id=tree.organisation_id, items=[item, item], ttl_seconds=60)
    assert [answer.replayed for answer in answers] == [False, True]
    assert window(tree.mission).held_money == 1


def test_a_batch_is_bounded(tree: Tree) -> None:
    items = [Reserve(new_id(), tree.mission, Amounts(Decimal(1)))] * 501
    with pytest.raises(RemitError, match=r"ledger.batch_too_large"):
        services.reserve_batch(organisation_id=tree.organisation_id, items=items, ttl_seconds=60)


def test_a_window_never_goes_beyond_its_limit_even_by_hand(tree: Tree) -> None:
    tree.held("1")
    with pytest.raises(IntegrityError), transaction.atomic():
        Window.objects.filter(account_id=tree.mission).update(held_money=Decimal(1001))
    with pytest.raises(IntegrityError), transaction.atomic():
        Window.objects.filter(account_id=tree.mission).update(spent_money=Decimal(-1))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE budgets_journal SET money = 0",
        "DELETE FROM budgets_journal",
        "TRUNCATE budgets_journal",
        "UPDATE budgets_posting SET money = 0",
        "DELETE FROM budgets_posting",
        "TRUNCATE budgets_posting",
        "UPDATE budgets_allocation SET money = 0",
        "DELETE FROM budgets_allocation",
    ],
)
def test_the_journal_refuses_to_be_changed(tree: Tree, statement: str) -> None:
    services.settle(hold_id=tree.held("1"))
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        with pytest.raises(IntegrityError, match="append-only"):
            cursor.execute(statement)


def test_a_month_of_the_journal_can_not_be_emptied_on_its_own(tree: Tree) -> None:
    services.settle(hold_id=tree.held("1"))
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT tableoid::regclass::text FROM budgets_journal")
        months = [row[0] for row in cursor.fetchall()]
    assert months
    for month in months:
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {month}")


def test_a_posting_without_its_other_side_is_refused_at_commit(tree: Tree) -> None:
    services.settle(hold_id=tree.held("1"))
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO budgets_posting SELECT 0, side, at, account_id, 1, 0, 0 FROM budgets_posting LIMIT 1"
        )
        with pytest.raises(IntegrityError, match="do not balance"):
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def test_the_journals_months_are_made_ahead_and_again_changes_nothing(tree: Tree) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT budgets_make_partitions(12)")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT budgets_make_partitions(1, now() + interval '5 years')")
        assert cursor.fetchone() == (2,)


def test_a_month_without_a_table_refuses_instead_of_losing_a_line(tree: Tree) -> None:
    with pytest.raises((IntegrityError, ProgrammingError)), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT budgets_reserve(%s, %s, %s, 1, 0, 1, 'USD', '', 60, p_at => now() + interval '9 years')",
            [new_id(), tree.organisation_id, tree.mission],
        )
    assert window(tree.mission).held_money == 0


def test_ten_million_fractions_of_a_cent_add_up_exactly(tree: Tree) -> None:
    price, number = Decimal("0.00000015"), 10_000_000
    tree.limit(tree.mission, money=price * number)
    hold_id = tree.held(str(price), steps=0)
    services.settle(hold_id=hold_id)
    with connection.cursor() as cursor:
        # The same increment the functions make, ten million times, summed by the database.
        cursor.execute(
            "UPDATE budgets_window SET spent_money = spent_money"
            " + (SELECT sum(%s::numeric(28, 12)) FROM generate_series(1, %s)) WHERE account_id = %s",
            [price, number - 1, tree.mission],
        )
    assert window(tree.mission).spent_money == Decimal("1.5")
    assert tree.reserve("0.000000000001", steps=0)[1] is not None


def test_a_day_ends_at_midnight_of_the_organisation(northwind: object, tree: Tree) -> None:
    northwind.time_zone = "Europe/Paris"  # type: ignore[attr-defined]
    northwind.save()  # type: ignore[attr-defined]
    tree.limit(tree.mission, WindowKind.DAY, money=Decimal(10))

    def reserve_at(moment: str) -> uuid.UUID:
        hold_id = new_id()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT (budgets_reserve(%s, %s, %s, 4, 0, 1, 'USD', '', 86400, p_at => %s)).outcome",
                [hold_id, tree.organisation_id, tree.mission, moment],
            )
            assert cursor.fetchone() == ("held",)
        return hold_id

    with connection.cursor() as cursor:
        cursor.execute("SELECT budgets_make_partitions(24, '2026-10-01')")
    # 23:59:59 and 00:00:01 in Paris, in summer time; settled long after midnight.
    before, after = reserve_at("2026-10-24T21:59:59Z"), reserve_at("2026-10-24T22:00:01Z")
    for hold_id in (before, after):
        services.settle(hold_id=hold_id)
    days = list(
        Window.objects.filter(account_id=tree.mission, kind="day", spent_money__gt=0)
        .order_by("starts_at")
        .values_list("starts_at", "ends_at", "spent_money")
    )
    assert [(start.isoformat(), end.isoformat(), spent) for start, end, spent in days] == [
        ("2026-10-23T22:00:00+00:00", "2026-10-24T22:00:00+00:00", 4),
        # The clocks go back on the 25th: this day has 25 hours.
        ("2026-10-24T22:00:00+00:00", "2026-10-25T23:00:00+00:00", 4),
    ]
    assert wrong_sums() == []


def test_no_limit_means_the_levels_above_decide(tree: Tree) -> None:
    tree.limit(tree.mission)
    tree.limit(tree.organisation, money=Decimal(2))
    _, refusal = tree.reserve("3")
    assert refusal is not None
    assert refusal.account_id == tree.organisation
    services.settle(hold_id=tree.held("1"), amounts=Amounts(Decimal(5)))
    row = window(tree.mission)
    assert (row.limit_money, row.spent_money, row.overrun_money, row.frozen) == (None, 5, 0, False)
    assert window(tree.organisation).overrun_money == 3
    assert wrong_sums() == []
