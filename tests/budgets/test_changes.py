"""Limits changed by hand: alone up to a point, with a second person beyond it, never over somebody else's change."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets import accounts, changes, selectors, services
from budgets.changes import Changed, wording_of
from budgets.models import AccountLimit, LimitChange
from budgets.types import ChangeState, Limits, WindowKind
from controlplane.audit.models import Entry
from controlplane.audit.sentences import sentence
from controlplane.common.errors import RemitError
from controlplane.common.ids import new_id
from controlplane.tenancy import members
from controlplane.tenancy.models import Membership, Organisation, User
from controlplane.tenancy.types import Principal, Role
from governance import selectors as governance
from tests.budgets.conftest import ROOMY, Tree


def money(account_id: uuid.UUID) -> Decimal | None:
    return AccountLimit.objects.get(account_id=account_id, kind="total").money


def change(
    actor: Principal, account_id: uuid.UUID, to: str | None, *, seen: str | None = None, reason: str = "Month end"
) -> Changed:
    """From a form that was opened just now, unless `seen` says otherwise."""
    row = AccountLimit.objects.get(account_id=account_id, kind="total")
    waiting = LimitChange.objects.filter(account_id=account_id, kind="total", state="open").first()
    return services.change_limit(
        actor=actor,
        account_id=account_id,
        window=WindowKind.TOTAL,
        limits=Limits(None if to is None else Decimal(to), row.tokens, row.steps),
        reason=reason,
        seen=wording_of(Limits(row.money, row.tokens, row.steps)) if seen is None else seen,
        replaces=waiting and waiting.pk,
    )


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(RemitError) as caught:
        call()
    return caught.value.code


def test_lowering_and_small_raises_count_at_once(tree: Tree, as_finn: Principal) -> None:
    assert not change(as_finn, tree.team, "900").waits
    assert not change(as_finn, tree.team, "905").waits  # five is what one person may give here
    assert money(tree.team) == 905
    entry = Entry.objects.filter(event="budget.limit_set").latest("id")
    assert (entry.actor_name, entry.payload["money"], entry.payload["reason"]) == ("Finn", "905.00", "Month end")


def test_small_raises_of_a_day_add_up_whoever_makes_them(tree: Tree, as_finn: Principal, as_nadia: Principal) -> None:
    assert not change(as_finn, tree.team, "1003").waits
    assert change(as_nadia, tree.team, "1005.01").waits
    assert change(as_finn, tree.team, "1008").waits
    assert money(tree.team) == 1003
    assert not change(as_nadia, tree.team, "1005").waits  # five in all is what may be given
    assert not change(as_finn, tree.team, "1001").waits
    assert not change(as_finn, tree.team, "1005").waits  # taken back meanwhile: given once
    assert change(as_finn, tree.team, "1006").waits
    assert selectors.may_give_alone(as_finn, tree.team, WindowKind.TOTAL) == 0
    assert selectors.may_give_alone(as_finn, tree.agent, WindowKind.TOTAL) == 5  # each budget by itself


def test_a_day_later_one_person_may_give_again(tree: Tree, as_finn: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not change(as_finn, tree.team, "1005").waits
    moment = changes.now()
    monkeypatch.setattr(changes, "now", lambda: moment + changes.RAISES_ADD_UP_FOR - timedelta(minutes=1))
    assert change(as_finn, tree.team, "1010").waits
    monkeypatch.setattr(changes, "now", lambda: moment + changes.RAISES_ADD_UP_FOR + timedelta(minutes=1))
    assert not change(as_finn, tree.team, "1010").waits


def test_what_others_agreed_to_is_not_counted_as_given_alone(
    tree: Tree, as_finn: Principal, as_nadia: Principal
) -> None:
    assert not change(as_finn, tree.team, "1002").waits
    asked = change(as_finn, tree.team, "2002").change_id
    assert asked is not None
    services.confirm_change(actor=as_nadia, change_id=asked)
    accounts.raise_limit(actor=as_nadia, account_id=tree.team, money=Decimal(50), action_id=new_id())
    assert change(as_finn, tree.team, "2055.01").waits
    assert not change(as_finn, tree.team, "2055").waits


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(st.integers(min_value=980, max_value=1030), max_size=12))
def test_however_a_limit_is_moved_nobody_alone_lifts_it_by_more_than_one_person_may(
    tree: Tree, as_finn: Principal, as_nadia: Principal, wanted: list[int]
) -> None:
    lowest = Decimal(1000)
    with suppress(_Undone), transaction.atomic():
        for number, amount in enumerate(wanted):
            before = money(tree.team)
            if before == amount:
                continue
            waits = change((as_finn, as_nadia)[number % 2], tree.team, str(amount)).waits
            lowest = min(lowest, money(tree.team) or lowest)
            assert waits is (amount > lowest + 5)
            assert money(tree.team) == (before if waits else amount)
        raise _Undone


class _Undone(Exception):
    """Takes an example's rows back."""


@pytest.mark.parametrize("to", ["1005.000000000001", None])
def test_a_raise_beyond_that_and_no_limit_at_all_wait_for_a_second_person(
    tree: Tree, as_finn: Principal, as_nadia: Principal, to: str | None
) -> None:
    asked = change(as_finn, tree.team, to)
    assert asked.waits
    assert money(tree.team) == 1000
    assert asked.change_id is not None
    assert code_of(lambda: services.confirm_change(actor=as_finn, change_id=asked.change_id)) == "budget.second_person"
    assert money(tree.team) == 1000
    services.confirm_change(actor=as_nadia, change_id=asked.change_id)
    assert money(tree.team) == (None if to is None else Decimal(to))
    events = list(Entry.objects.filter(event__startswith="budget.").order_by("id").values_list("event", "actor_name"))
    assert events[-3:] == [
        ("budget.change_proposed", "Finn"),
        ("budget.change_confirmed", "Nadia"),
        ("budget.limit_set", "Nadia"),
    ]
    assert code_of(lambda: services.confirm_change(actor=as_nadia, change_id=asked.change_id)) == "budget.change_closed"


def test_refused_and_withdrawn_changes_change_nothing(tree: Tree, as_finn: Principal, as_nadia: Principal) -> None:
    first = change(as_finn, tree.team, "2000").change_id
    assert first is not None
    assert (
        code_of(lambda: services.refuse_change(actor=as_nadia, change_id=first, reason=" ")) == "budget.reason_missing"
    )
    services.refuse_change(actor=as_nadia, change_id=first, reason="Not this quarter")
    second = change(as_finn, tree.team, "3000").change_id
    assert second is not None
    assert code_of(lambda: services.withdraw_change(actor=as_nadia, change_id=second)) == "budget.not_yours"
    services.withdraw_change(actor=as_finn, change_id=second)
    assert money(tree.team) == 1000
    assert sorted(LimitChange.objects.values_list("state", flat=True)) == ["refused", "withdrawn"]


def test_a_form_filled_before_somebody_elses_change_overwrites_nothing(
    tree: Tree, as_finn: Principal, as_nadia: Principal
) -> None:
    seen = wording_of(ROOMY)
    change(as_nadia, tree.team, "700")
    with pytest.raises(RemitError, match="Nadia changed this limit meanwhile") as caught:
        change(as_finn, tree.team, "1001", seen=seen)
    assert (caught.value.code, caught.value.status) == ("budget.changed", 409)
    assert money(tree.team) == 700


def test_a_waiting_change_dies_with_the_limit_it_started_from(
    tree: Tree, as_finn: Principal, as_nadia: Principal
) -> None:
    asked = change(as_finn, tree.team, "2000").change_id
    assert asked is not None
    services.apply_limit(
        actor=tree.system, account_id=tree.team, window=WindowKind.TOTAL, limits=Limits(money=Decimal(800))
    )
    assert code_of(lambda: services.confirm_change(actor=as_nadia, change_id=asked)) == "budget.changed"
    assert money(tree.team) == 800
    change(as_nadia, tree.team, "750")
    assert LimitChange.objects.get().state == ChangeState.SUPERSEDED


def test_a_newer_request_takes_the_place_of_the_one_before(tree: Tree, as_finn: Principal) -> None:
    change(as_finn, tree.team, "2000")
    change(as_finn, tree.team, "3000")
    assert [row.money for row in selectors.changes_waiting(as_finn)] == [3000]
    told = Entry.objects.get(event="budget.change_superseded")
    assert sentence(told) == "Finn changed The team in place of the new limit that Finn asked for"


def test_nobody_takes_the_place_of_a_request_they_have_not_seen(
    tree: Tree, as_finn: Principal, as_nadia: Principal
) -> None:
    asked = change(as_finn, tree.team, "2000").change_id
    for limits in (Limits(Decimal(900)), Limits(Decimal(3000))):
        for replaces in (None, new_id()):
            with pytest.raises(RemitError, match=r"Finn asked for 2000\.00 USD in total meanwhile") as caught:
                services.change_limit(
                    actor=as_nadia,
                    account_id=tree.team,
                    window=WindowKind.TOTAL,
                    limits=limits,
                    reason="Month end",
                    seen=wording_of(ROOMY),
                    replaces=replaces,
                )
            assert (caught.value.code, caught.value.status) == ("budget.changed", 409)
    assert money(tree.team) == 1000
    assert [row.pk for row in selectors.changes_waiting(as_finn)] == [asked]
    assert not Entry.objects.filter(event="budget.change_superseded").exists()


def test_who_may_not_set_budgets_changes_nothing(
    tree: Tree, as_alice: Principal, as_charlie: Principal, as_finn: Principal, as_dana: Principal
) -> None:
    for actor, code in (
        (as_alice, "permission.denied"),
        (as_dana, "permission.denied"),
        (as_charlie, "budget.not_found"),
    ):
        assert code_of(lambda actor=actor: change(actor, tree.team, "1")) == code
    asked = change(as_finn, tree.team, "2000").change_id
    for call in (services.confirm_change, services.withdraw_change):
        assert code_of(lambda call=call: call(actor=as_alice, change_id=asked)) == "permission.denied"
        assert code_of(lambda call=call: call(actor=as_charlie, change_id=asked)) == "change.not_found"
    assert money(tree.team) == 1000
    assert LimitChange.objects.get().state == ChangeState.OPEN


@pytest.mark.parametrize("to", ["-1", "1e15", "0.0000000000001", "NaN", "Infinity"])
def test_what_cannot_be_a_limit_is_refused(tree: Tree, as_finn: Principal, to: str) -> None:
    assert code_of(lambda: change(as_finn, tree.team, to)) == "budget.limit_invalid"
    assert money(tree.team) == 1000


def test_reason_same_limit_and_closed_budgets_are_refused_by_name(tree: Tree, as_finn: Principal) -> None:
    assert code_of(lambda: change(as_finn, tree.team, "900", reason="  ")) == "budget.reason_missing"
    assert code_of(lambda: change(as_finn, tree.team, "1000")) == "budget.limit_same"
    services.close_account(actor=tree.system, account_id=tree.mission, reason="Over")
    assert code_of(lambda: change(as_finn, tree.mission, "900")) == "budget.closed"


@pytest.mark.parametrize("left", ["deactivated", "other role", "gone"])
def test_what_somebody_asked_for_who_may_not_set_the_budget_any_more_is_not_confirmed(
    tree: Tree, as_nadia: Principal, as_finn: Principal, finn: User, left: str
) -> None:
    asked = change(as_finn, tree.team, "2000").change_id
    assert asked is not None
    roles = Membership.objects.filter(user=finn)
    if left == "deactivated":
        members.deactivate(principal=as_nadia, user_id=finn.pk)
    elif left == "other role":
        roles.update(role=Role.AUDITOR.value)
    else:
        members.remove_member(principal=as_nadia, membership_id=roles.get().pk)
    assert code_of(lambda: services.confirm_change(actor=as_nadia, change_id=asked)) == "budget.proposer_gone"
    assert money(tree.team) == 1000
    services.refuse_change(actor=as_nadia, change_id=asked, reason="Finn has left")
    assert selectors.changes_waiting(as_nadia) == []


def test_a_budget_that_is_closed_asks_nobody_about_its_limit(
    tree: Tree, as_finn: Principal, as_nadia: Principal
) -> None:
    change(as_finn, tree.mission, "2000")
    change(as_finn, tree.team, "2000")
    services.close_account(actor=tree.system, account_id=tree.mission, reason="The mission is over")
    assert [row.account_id for row in selectors.changes_waiting(as_nadia)] == [tree.team]
    assert [row.state for row in selectors.changes_not_made(as_nadia, tree.mission)] == [ChangeState.WITHDRAWN]
    assert [f"{notice.text}{'' if notice.read_at else ' *'}" for notice in governance.notices_of(as_nadia)] == [
        "Waits for you: The team, 2000.00 USD in total *",
        "Withdrawn: The mission, 2000.00 USD in total",
    ]
    assert [notice.text for notice in governance.notices_of(as_finn)] == [
        "Withdrawn: The mission, 2000.00 USD in total"
    ]
    told = Entry.objects.get(event="budget.change_withdrawn")
    assert (sentence(told), told.payload["reason"]) == (
        "Remit withdrew the new limit of The mission",
        "The mission is over",
    )


def test_a_freeze_needs_a_reason(tree: Tree, as_finn: Principal) -> None:
    assert code_of(lambda: services.freeze(actor=as_finn, account_id=tree.team, reason=" ")) == "budget.reason_missing"
    assert tree.reserve("1")[1] is None


@pytest.mark.django_db(transaction=True)
def test_of_two_people_who_confirm_at_once_one_does(
    tree: Tree,
    northwind: Organisation,
    as_finn: Principal,
    as_nadia: Principal,
    make_person: Callable[..., User],
    acting: Callable[[User], Principal],
) -> None:
    fiona = acting(make_person("Fiona", northwind, Role.FINANCE))
    asked = change(as_finn, tree.team, "2000").change_id
    assert asked is not None
    outcomes: list[str] = []
    barrier = threading.Barrier(2)

    def confirm(actor: Principal) -> None:
        barrier.wait(10)
        try:
            services.confirm_change(actor=actor, change_id=asked)
            outcomes.append("confirmed")
        except RemitError as error:
            outcomes.append(error.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=confirm, args=[actor]) for actor in (fiona, as_nadia)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["budget.change_closed", "confirmed"]
    assert Entry.objects.filter(event="budget.change_confirmed").count() == 1
