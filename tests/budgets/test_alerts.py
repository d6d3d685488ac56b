"""Half, four fifths and all of a limit: told of once per window, in the trail, to those who may see it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from budgets import alerts, services
from budgets.costs.folding import fold_all
from budgets.models import Alert, Window
from budgets.types import Amounts, Limits, WindowKind
from controlplane.audit.models import Entry
from controlplane.audit.selectors import sentence
from controlplane.common.clock import now
from controlplane.tenancy.types import Principal
from governance import selectors as governance
from tests.budgets.conftest import Tree


def spend(tree: Tree, money: str) -> None:
    services.settle(hold_id=tree.held(money))
    fold_all()


def told(tree: Tree) -> list[int]:
    return list(Alert.objects.filter(account_id=tree.team).order_by("id").values_list("threshold", flat=True))


def test_each_threshold_is_told_of_once(tree: Tree) -> None:
    tree.limit(tree.team, money=Decimal(10))
    seen = []
    for money in ("4.99", "0.01", "2.00", "0.99", "0.01", "1.00", "1.00"):
        spend(tree, money)
        seen.append(told(tree))
    assert seen == [[], [50], [50], [50], [50, 80], [50, 80], [50, 80, 100]]
    fold_all()
    entries = Entry.objects.filter(event="budget.alert").order_by("id")
    assert [entry.payload["threshold"] for entry in entries] == ["50 %", "80 %", "100 %"]
    assert sentence(entries[1]) == "The team has spent 80 % of its limit: 8.00 USD of 10.00 USD"


def test_a_jump_tells_of_every_threshold_it_passes(tree: Tree) -> None:
    tree.limit(tree.team, money=Decimal(10))
    spend(tree, "9.00")
    assert told(tree) == [50, 80]


def test_a_new_window_tells_anew(tree: Tree) -> None:
    tree.limit(tree.team, WindowKind.DAY, money=Decimal(10))
    spend(tree, "6.00")
    Window.objects.filter(account_id=tree.team, kind="day").update(
        starts_at=now() - timedelta(days=2), ends_at=now() - timedelta(days=1)
    )
    from budgets.models import Chain

    Chain.objects.all().delete()
    spend(tree, "6.00")
    assert told(tree) == [50, 50]


def test_a_lowered_limit_tells_at_once_and_a_raised_one_does_not_tell_again(tree: Tree) -> None:
    spend(tree, "6.00")
    assert told(tree) == []
    tree.limit(tree.team, money=Decimal(10))
    assert told(tree) == [50]
    tree.limit(tree.team, money=Decimal(1000))
    tree.limit(tree.team, money=Decimal(10))
    assert told(tree) == [50]


def test_a_limit_below_what_is_spent_and_held_counts_as_it_was_set(tree: Tree, as_finn: Principal) -> None:
    """The window's own limit comes down to it only as holds clear."""
    tree.limit(tree.team, money=Decimal(10))
    spend(tree, "4.00")
    hold = tree.held("1.00")
    tree.limit(tree.team, money=Decimal(2))
    assert told(tree) == [50, 80, 100]
    assert Alert.objects.latest("id").limit_money == 2
    (shown,) = alerts.standing(as_finn)
    assert (shown.used, shown.allowed) == (4, 2)
    services.void(hold_id=hold)
    (shown,) = alerts.standing(as_finn)
    assert (shown.used, shown.allowed) == (4, 2)


def test_what_was_charged_beyond_the_limit_counts(tree: Tree) -> None:
    tree.limit(tree.team, money=Decimal(10))
    services.settle(hold_id=tree.held("1.00"), amounts=Amounts(Decimal(30), 0, 1))
    fold_all()
    assert told(tree) == [50, 80, 100]


def test_only_what_stands_above_now_is_shown_and_only_to_those_who_see_the_budget(
    tree: Tree, as_finn: Principal, as_alice: Principal, as_charlie: Principal
) -> None:
    tree.limit(tree.team, money=Decimal(10))
    tree.limit(tree.mission, money=Decimal(10))
    spend(tree, "9.00")
    assert [alert.account_id for alert in alerts.standing(as_finn)] == [tree.team]  # a mission may use up its budget
    assert [alert.account_id for alert in alerts.standing(as_alice)] == [tree.team]
    assert alerts.standing(as_charlie) == []
    services.set_limit(actor=as_finn, account_id=tree.team, window=WindowKind.TOTAL, limits=Limits(money=Decimal(100)))
    assert alerts.standing(as_finn) == []
    assert [alert.threshold for alert in alerts.newest(as_finn)] == [80, 80]
    assert alerts.newest(as_charlie) == []


def test_from_four_fifths_on_those_who_set_budgets_are_told_once_of_the_highest(
    tree: Tree, as_finn: Principal, as_nadia: Principal, as_alice: Principal, as_charlie: Principal
) -> None:
    tree.limit(tree.team, money=Decimal(10))
    tree.limit(tree.mission, money=Decimal(12))  # may be used up, so nobody is told
    for money in ("6.00", "3.00", "1.00"):
        spend(tree, money)
    for actor in (as_finn, as_nadia):
        notices = governance.notices_of(actor)
        assert [notice.text for notice in notices] == ["100 % spent: The team", "80 % spent: The team"]
        assert {(notice.kind, notice.subject_type, notice.subject_id) for notice in notices} == {
            ("budget", "budget", tree.team)
        }
    for actor in (as_alice, as_charlie):
        assert governance.notices_of(actor) == []
    tree.limit(tree.organisation, money=Decimal(1))
    assert governance.notices_of(as_finn)[0].text == "100 % spent: The organisation"
    assert governance.count_unread(as_finn) == 3
