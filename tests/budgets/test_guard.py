"""The loop guard: the same call with the same result, again and again, is stopped; real work is not."""

from __future__ import annotations

import pytest

from budgets import services
from budgets.port import LedgerPort
from controlplane.common.errors import RemitError
from controlplane.common.statements import planned
from controlplane.tenancy.types import Principal
from tests.budgets.conftest import Tree

pytestmark = pytest.mark.django_db


def _call(tree: Tree, signature: bytes, result: bytes) -> bool:
    """One governed call and its result; False when the guard refused it."""
    hold_id, refusal = tree.reserve("0.01", signature=signature)
    if refusal is not None:
        assert refusal.reason_code == "guard.no_progress"
        assert refusal.remedies
        return False
    services.settle(hold_id=hold_id)
    noting = LedgerPort().noting(account_id=tree.mission, signature=signature, result=result)
    planned(noting.sql, noting.parameters)
    return True


def test_the_fourth_identical_call_without_news_is_refused(tree: Tree) -> None:
    assert [_call(tree, b"search", b"nothing") for _ in range(5)] == [True, True, True, False, False]


def test_other_calls_go_on_and_something_new_frees_the_blocked_one(tree: Tree) -> None:
    for _ in range(3):
        _call(tree, b"search", b"nothing")
    assert not _call(tree, b"search", b"nothing")
    assert _call(tree, b"create", b"created 1")
    assert _call(tree, b"search", b"found 1")


def test_a_loop_of_two_calls_is_stopped_too(tree: Tree) -> None:
    done = [_call(tree, signature, b"same") for _ in range(10) for signature in (b"a", b"b")]
    assert sum(done) < 10
    assert done[-2:] == [False, False]


def test_a_call_that_gives_something_new_each_time_is_never_stopped(tree: Tree) -> None:
    assert all(_call(tree, b"next page", b"page %d" % number) for number in range(40))


def test_polling_between_real_work_goes_on_for_a_while_but_not_forever(tree: Tree) -> None:
    done = []
    for number in range(14):
        done.append(_call(tree, b"status", b"running"))
        assert _call(tree, b"work %d" % number, b"done %d" % number)
    assert all(done[:9])
    tree.held("0.01", signature=b"other")


def test_one_missions_loop_is_not_another_accounts(tree: Tree) -> None:
    for _ in range(3):
        _call(tree, b"search", b"nothing")
    assert not _call(tree, b"search", b"nothing")
    tree.held("0.01", signature=b"search", account=tree.agent)


def test_calls_without_a_signature_are_not_compared(tree: Tree) -> None:
    for _ in range(6):
        services.settle(hold_id=tree.held("0.01"))


def test_thresholds_are_the_accounts_own_and_audited(tree: Tree, as_finn: Principal, as_alice: Principal) -> None:
    services.set_guard(actor=as_finn, account_id=tree.mission, repeats=1)
    assert [_call(tree, b"search", b"nothing") for _ in range(2)] == [True, False]
    services.set_guard(actor=as_finn, account_id=tree.mission, repeats=0)
    with pytest.raises(RemitError, match=r"budget.guard_invalid"):
        services.set_guard(actor=as_finn, account_id=tree.mission, repeats=3, ring=2)
    with pytest.raises(RemitError) as refused:
        services.set_guard(actor=as_alice, account_id=tree.mission, repeats=9)
    assert refused.value.status == 403


def test_a_batch_refuses_the_blocked_call_and_takes_the_rest(tree: Tree) -> None:
    from decimal import Decimal

    from budgets.types import Amounts, Reserve
    from controlplane.common.ids import new_id

    for _ in range(3):
        _call(tree, b"search", b"nothing")
    items = [
        Reserve(new_id(), tree.mission, Amounts(Decimal("0.01"), 0, 1), signature)
        for signature in (b"search", b"create")
    ]
    blocked, taken = services.reserve_batch(organisation_id=tree.organisation_id, items=items, ttl_seconds=60)
    assert blocked.refusal is not None
    assert blocked.refusal.reason_code == "guard.no_progress"
    assert taken.refusal is None


def test_an_agent_that_only_loops_spends_three_steps(tree: Tree) -> None:
    spent = sum(_call(tree, b"search", b"nothing") for _ in range(50))
    assert spent == 3
