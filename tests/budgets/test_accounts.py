"""The tree as people run it: who may open, limit, freeze; what sinks, what lifts; each with its audit entry."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest

from budgets import journal, listing, selectors, services
from budgets.models import Account, Allocation, JournalEntry
from budgets.types import Amounts, Balance, Level, Limits, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.common.errors import RemitError
from controlplane.common.ids import new_id
from controlplane.tenancy.models import Organisation, Team
from controlplane.tenancy.types import Principal
from tests.budgets.conftest import Tree, mission_of, window, wrong_sums

pytestmark = pytest.mark.django_db


def _open(actor: Principal, level: Level, **fields: object) -> uuid.UUID:
    values: dict[str, object] = {
        "organisation_id": actor.organisation_id,
        "team_id": None,
        "parent_id": None,
        "name": "One more",
        "limits": Limits(money=Decimal(5)),
        "window": WindowKind.TOTAL,
        **fields,
    }
    return services.open_account(actor=actor, level=level, **values)  # type: ignore[arg-type]


def test_finance_opens_an_organisations_budget_and_the_audit_trail_says_so(as_finn: Principal) -> None:
    account_id = _open(as_finn, Level.ORGANISATION)
    entry = Entry.objects.get(event=Event.BUDGET_OPENED, subject_id=account_id)
    assert (entry.actor_id, entry.payload["money"]) == (as_finn.id, "5.00")
    assert Allocation.objects.get(account_id=account_id).money == 5


@pytest.mark.parametrize("who", ["as_alice", "as_bob", "as_dana"])
def test_nobody_else_opens_one_and_nothing_is_left(who: str, request: pytest.FixtureRequest) -> None:
    actor = request.getfixturevalue(who)
    with pytest.raises(RemitError) as refused:
        _open(actor, Level.ORGANISATION)
    assert refused.value.status == 403
    assert Account.objects.restrict(actor, "budget.view").count() == 0  # type: ignore[arg-type]
    assert not Entry.objects.filter(event=Event.BUDGET_OPENED).exists()


def test_a_mission_is_given_its_budget_by_whoever_started_it(as_alice: Principal, tree: Tree, team: Team) -> None:
    account_id = _open(
        as_alice, Level.MISSION, team_id=team.pk, parent_id=tree.agent, subject_type="mission", subject_id=new_id()
    )
    assert Account.objects.get(pk=account_id).path == [
        tree.organisation,
        tree.team,
        tree.project,
        tree.agent,
        account_id,
    ]


def test_one_subject_has_one_budget(as_finn: Principal, tree: Tree, team: Team) -> None:
    subject = mission_of(tree.mission)
    with pytest.raises(RemitError, match=r"budget.exists"):
        _open(as_finn, Level.MISSION, team_id=team.pk, parent_id=tree.agent, subject_type="mission", subject_id=subject)
    assert services.account_of(subject_type="mission", subject_id=subject) == tree.mission
    assert services.account_of(subject_type="mission", subject_id=new_id()) is None


def test_a_parent_of_another_organisation_or_team_is_not_found(
    as_charlie: Principal, as_nadia: Principal, tree: Tree, other_team: Team
) -> None:
    with pytest.raises(RemitError, match=r"budget.not_found"):
        _open(as_charlie, Level.MISSION, parent_id=tree.agent)
    with pytest.raises(RemitError, match=r"organisation.not_found"):
        _open(as_charlie, Level.MISSION, organisation_id=tree.organisation_id)
    with pytest.raises(RemitError, match=r"budget.not_found"):
        _open(as_nadia, Level.MISSION, team_id=other_team.pk, parent_id=tree.agent)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(money=Decimal(-1)),
        Limits(money=Decimal("NaN")),
        Limits(money=Decimal("Infinity")),
        Limits(money=Decimal("1e15")),
        Limits(money=Decimal("0.0000000000001")),
        Limits(tokens=-1),
        Limits(steps=10**15),
    ],
)
def test_what_is_no_limit_is_refused(as_finn: Principal, tree: Tree, limits: Limits) -> None:
    with pytest.raises(RemitError, match=r"budget.limit_invalid"):
        services.set_limit(actor=as_finn, account_id=tree.mission, window=WindowKind.TOTAL, limits=limits)
    assert window(tree.mission).limit_money == 1000


def test_a_limit_never_falls_below_what_is_held_and_spent_and_sinks_as_holds_clear(tree: Tree) -> None:
    first, second = tree.held("4"), tree.held("3")
    services.settle(hold_id=tree.held("1"))
    tree.limit(tree.mission, money=Decimal(2))
    assert window(tree.mission).limit_money == 8
    assert tree.reserve("0.01")[1] is not None
    services.void(hold_id=first)
    assert window(tree.mission).limit_money == 4
    assert tree.reserve("0.01")[1] is not None
    services.settle(hold_id=second, amounts=Amounts(Decimal("0.5"), 0, 1))
    row = window(tree.mission)
    assert (row.limit_money, row.lowering) == (2, False)
    tree.held("0.5")
    assert tree.reserve("0.01")[1] is not None
    assert wrong_sums() == []


def test_setting_a_limit_is_finances_and_audited(
    as_finn: Principal, as_alice: Principal, as_charlie: Principal, tree: Tree
) -> None:
    with pytest.raises(RemitError) as refused:
        services.set_limit(actor=as_alice, account_id=tree.mission, window=WindowKind.TOTAL, limits=Limits())
    assert refused.value.status == 403
    with pytest.raises(RemitError) as hidden:
        services.set_limit(actor=as_charlie, account_id=tree.mission, window=WindowKind.TOTAL, limits=Limits())
    assert hidden.value.status == 404
    assert window(tree.mission).limit_money == 1000
    services.set_limit(
        actor=as_finn,
        account_id=tree.mission,
        window=WindowKind.TOTAL,
        limits=Limits(money=Decimal(7)),
        reason="Quarter end",
    )
    entry = Entry.objects.get(event=Event.BUDGET_LIMIT_SET, subject_id=tree.mission)
    assert (entry.payload["money"], entry.payload["reason"], entry.actor_name) == ("7.00", "Quarter end", "Finn")
    assert Allocation.objects.filter(account_id=tree.mission).count() == 2
    assert JournalEntry.objects.filter(account_id=tree.mission, kind="allocation").count() == 2


def test_a_decided_limit_needs_no_permission_but_the_organisation(
    as_dana: Principal, as_charlie: Principal, tree: Tree
) -> None:
    services.apply_limit(
        actor=as_dana,
        account_id=tree.mission,
        window=WindowKind.TOTAL,
        limits=Limits(money=Decimal(9)),
        action_id=new_id(),
    )
    assert window(tree.mission).limit_money == 9
    with pytest.raises(RemitError, match=r"budget.not_found"):
        services.apply_limit(actor=as_charlie, account_id=tree.mission, window=WindowKind.TOTAL, limits=Limits())


def test_a_childs_limit_may_exceed_its_parents_and_the_parent_still_wins(tree: Tree) -> None:
    tree.limit(tree.agent, money=Decimal(2))
    tree.limit(tree.mission, money=Decimal(50))
    _, refusal = tree.reserve("3")
    assert refusal is not None
    assert refusal.account_id == tree.agent


def test_a_second_kind_of_window_counts_from_now_on_at_every_leaf_below(tree: Tree) -> None:
    tree.held("5")
    tree.limit(tree.team, WindowKind.DAY, money=Decimal(3))
    tree.held("2")
    _, refusal = tree.reserve("2")
    assert refusal is not None
    assert (refusal.account_id, refusal.left) == (tree.team, 1)
    assert "for today" in refusal.message
    assert window(tree.team, WindowKind.DAY).held_money == 2
    assert wrong_sums() == []


def test_a_frozen_level_refuses_everything_below_until_released(as_finn: Principal, tree: Tree) -> None:
    running = tree.held("1")
    services.freeze(actor=as_finn, account_id=tree.team, reason="Odd spending")
    _, refusal = tree.reserve("0")
    assert refusal is not None
    assert (refusal.reason_code, refusal.level) == ("budget.frozen", "team")
    services.settle(hold_id=running)
    # A window made while frozen is frozen too.
    tree.limit(tree.team, WindowKind.DAY, money=Decimal(3))
    assert window(tree.team, WindowKind.DAY).frozen
    # Room does not lift what a person froze.
    tree.limit(tree.team, money=Decimal(5000))
    assert tree.reserve("1")[1] is not None
    services.unfreeze(actor=as_finn, account_id=tree.team)
    tree.held("1")
    events = Entry.objects.filter(subject_id=tree.team).values_list("event", flat=True)
    assert {Event.BUDGET_FROZEN, Event.BUDGET_UNFROZEN} <= set(events)


def test_freezing_is_not_for_builders(as_alice: Principal, tree: Tree) -> None:
    with pytest.raises(RemitError) as refused:
        services.freeze(actor=as_alice, account_id=tree.mission, reason="No")
    assert refused.value.status == 403
    tree.held("1")


def test_a_closed_budget_refuses_for_good_but_settles_what_runs(
    as_alice: Principal, as_finn: Principal, tree: Tree
) -> None:
    running = tree.held("1")
    services.close_account(actor=as_alice, account_id=tree.mission, reason="The mission is over")
    services.close_account(actor=as_alice, account_id=tree.mission, reason="The mission is over")
    assert tree.reserve("1")[1] is not None
    with pytest.raises(RemitError, match=r"budget.closed"):
        services.unfreeze(actor=as_finn, account_id=tree.mission)
    services.settle(hold_id=running)
    assert window(tree.mission).spent_money == 1
    assert Entry.objects.filter(event=Event.BUDGET_FROZEN, subject_id=tree.mission).count() == 1


def test_the_tree_is_read_in_three_queries_whatever_its_size(
    as_finn: Principal, tree: Tree, team: Team, django_assert_num_queries: Callable[..., object]
) -> None:
    for _ in range(20):
        _open(as_finn, Level.MISSION, team_id=team.pk, parent_id=tree.agent)
    services.settle(hold_id=tree.held("7"))
    tree.held("2")
    with django_assert_num_queries(3):  # type: ignore[attr-defined]
        (root,) = selectors.tree(as_finn)
    assert root.account_id == tree.organisation
    assert (root.spent.money, root.held.money, root.left.money) == (7, 2, 991)
    assert root.burn_per_day == 7  # all on its first day
    depth, node = 1, root
    while node.children:
        depth, node = depth + 1, max(node.children, key=lambda child: child.spent.money)
    assert (depth, node.account_id) == (5, tree.mission)


def test_those_below_a_budget_come_page_by_page_and_by_name(
    as_finn: Principal, as_bob: Principal, as_charlie: Principal, tree: Tree, team: Team
) -> None:
    more = [
        _open(as_finn, Level.MISSION, team_id=team.pk, parent_id=tree.agent, name=f"Number {number}")
        for number in range(4)
    ]
    agent, first = listing.with_below(as_finn, tree.agent, limit=3)
    assert agent.account_id == tree.agent
    _, second = listing.with_below(as_finn, tree.agent, limit=3, cursor=first.next)
    assert [each.account_id for each in (*first.items, *second.items)] == [*reversed(more), tree.mission]
    assert (second.next, first.previous) == (None, None)
    _, back = listing.with_below(as_finn, tree.agent, limit=3, cursor=second.previous)
    assert back.items == first.items
    _, searched = listing.with_below(as_bob, tree.team, text="number 2")
    assert [each.account_id for each in searched.items] == [more[2]]
    services.close_account(actor=as_finn, account_id=more[2], reason="Over")
    assert not listing.with_below(as_bob, tree.team, text="number 2")[1].items
    assert listing.count_over(as_bob, account_id=tree.agent) == 1
    for with_over, found in ((True, [more[2]]), (False, [])):
        named = listing.named(as_bob, "Number 2", window=WindowKind.MONTH, with_over=with_over, cursor=None)
        assert [each.account_id for each in named.items] == found
    assert not listing.named(as_charlie, "Number", window=None, with_over=True, cursor=None).items
    with pytest.raises(RemitError, match=r"budget.not_found"):
        listing.with_below(as_bob, tree.organisation)


def test_the_outline_shows_whole_levels_as_far_as_they_fit_and_never_missions(
    as_finn: Principal, tree: Tree, team: Team, django_assert_num_queries: Callable[..., object]
) -> None:
    with django_assert_num_queries(4):  # type: ignore[attr-defined]
        found = selectors.outline(as_finn)
    assert (depth_of(found.roots), found.below) == (4, 0)
    for _ in range(selectors.OUTLINE_ROWS):
        _open(as_finn, Level.AGENT, team_id=team.pk, parent_id=tree.team)
    with django_assert_num_queries(4):  # type: ignore[attr-defined]
        found = selectors.outline(as_finn)
    assert (depth_of(found.roots), found.below) == (2, selectors.OUTLINE_ROWS + 2)


def depth_of(roots: Sequence[Balance]) -> int:
    return 1 + max(map(depth_of, (root.children for root in roots)), default=0) if roots else 0


def test_a_team_member_sees_the_budgets_of_the_team_and_nothing_above(
    as_bob: Principal, as_charlie: Principal, tree: Tree
) -> None:
    (root,) = selectors.tree(as_bob)
    assert root.account_id == tree.team
    with pytest.raises(RemitError, match=r"budget.not_found"):
        selectors.balance(as_bob, tree.organisation)
    assert selectors.tree(as_charlie) == []
    with pytest.raises(RemitError, match=r"budget.not_found"):
        selectors.balance(as_charlie, tree.mission)
    with pytest.raises(RemitError, match=r"budget.not_found"):
        selectors.lines(as_charlie, account_id=tree.mission)
    assert selectors.spend_per_day(as_charlie) == []


def test_agents_and_runs_see_no_tree(as_run: Principal, as_agent: Principal, tree: Tree) -> None:
    assert selectors.tree(as_run) == []
    assert selectors.tree(as_agent) == []


def test_what_missions_have_left_is_one_query(tree: Tree, django_assert_num_queries: Callable[..., object]) -> None:
    tree.held("4")
    mission_id = mission_of(tree.mission)
    with django_assert_num_queries(1):  # type: ignore[attr-defined]
        found = selectors.mission_spend(mission_ids=[mission_id, new_id()])
    assert set(found) == {mission_id}
    assert (found[mission_id].left.money, found[mission_id].currency) == (996, "USD")
    assert selectors.mission_spend(mission_ids=[]) == {}


def test_a_new_account_shows_its_limits_before_anything_was_held(as_finn: Principal) -> None:
    account_id = _open(as_finn, Level.ORGANISATION, window=WindowKind.MONTH)
    found = selectors.balance(as_finn, account_id)
    assert (found.left.money, found.window) == (5, WindowKind.MONTH)
    assert found.starts_at is not None
    assert found.ends_at is not None


def test_the_journal_is_read_newest_first_page_by_page(
    as_finn: Principal, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        services.settle(hold_id=tree.held("1"))
    first = selectors.lines(as_finn, account_id=tree.team, limit=4)
    rest = selectors.lines(as_finn, account_id=tree.team, limit=4, cursor=first.next)
    kinds = [line.kind for line in (*first.items, *rest.items)]
    assert kinds[:6] == ["settle", "reserve"] * 3
    assert len({line.id for line in (*first.items, *rest.items)}) == 8
    mission = selectors.lines(as_finn, mission_id=mission_of(tree.mission))
    assert {line.currency for line in mission.items} == {"USD"}
    monkeypatch.setattr(journal, "FEW", 0)  # as if there were very many budgets below
    assert selectors.lines(as_finn, account_id=tree.team, limit=4) == first
    assert selectors.lines(as_finn, account_id=tree.team, limit=4, cursor=first.next) == rest
    assert selectors.lines(as_finn, mission_id=mission_of(tree.mission)) == mission
    for bad in ("x", "-1", "9" * 30, "²"):
        with pytest.raises(RemitError, match=r"cursor.invalid"):
            selectors.lines(as_finn, account_id=tree.team, cursor=bad)


@pytest.mark.parametrize("few", [journal.FEW, 0])
def test_lines_are_narrowed_by_kind_and_window_in_three_queries(
    as_finn: Principal,
    as_bob: Principal,
    tree: Tree,
    elsewhere: Organisation,
    open_tree: Callable[..., Tree],
    monkeypatch: pytest.MonkeyPatch,
    django_assert_num_queries: Callable[..., object],
    few: int,
) -> None:
    monkeypatch.setattr(journal, "FEW", few)
    services.settle(hold_id=tree.held("1"))
    services.settle(hold_id=tree.held("2", account=tree.agent))
    tree.limit(tree.organisation, WindowKind.MONTH, money=Decimal(50))
    tree.held("3")
    strangers = open_tree(elsewhere, Team.objects.create(organisation=elsewhere, name="Theirs", slug="theirs"))
    services.settle(hold_id=strangers.held("4"))

    def money(who: Principal, account: uuid.UUID, **narrowed: Any) -> list[Decimal]:
        with django_assert_num_queries(3):  # type: ignore[attr-defined]
            return [line.amounts.money for line in selectors.lines(who, account_id=account, **narrowed).items]

    assert money(as_finn, tree.organisation, kinds=["settle"]) == [2, 1]
    assert money(as_bob, tree.team, kinds=["settle", "reserve"]) == [3, 2, 2, 1, 1]
    assert money(as_finn, tree.mission, kinds=["settle"]) == [1]
    assert len(money(as_finn, tree.organisation, kinds=["allocation"])) == 6
    root = selectors.balance(as_finn, tree.organisation)
    (month,) = [entry for entry in (root, *root.also) if entry.window == WindowKind.MONTH]
    assert money(as_finn, tree.organisation, within=month) == [3]
    with pytest.raises(RemitError, match=r"budget.not_found"):
        selectors.lines(as_bob, account_id=tree.organisation)


def test_days_of_spend_add_up_over_the_tree(as_finn: Principal, tree: Tree, elsewhere: Organisation) -> None:
    services.settle(hold_id=tree.held("1.25", tokens=5))
    services.settle(hold_id=tree.held("0.25", account=tree.agent))
    (day,) = selectors.spend_per_day(as_finn, account_id=tree.agent)
    assert day.spent == Amounts(Decimal("1.5"), 5, 2)
    (mission,) = selectors.spend_per_day(as_finn, account_id=tree.mission)
    assert mission.spent.money == Decimal("1.25")
