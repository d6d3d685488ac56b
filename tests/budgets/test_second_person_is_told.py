"""A limit that waits is told to whoever may confirm it, and what became of it to who asked for it."""

from __future__ import annotations

import pytest

from budgets import services
from controlplane.tenancy.types import Principal
from governance import selectors as governance
from tests.budgets.conftest import Tree
from tests.budgets.test_changes import change


def told(person: Principal) -> list[str]:
    """Oldest first; what is unread is marked."""
    notices = reversed(governance.notices_of(person))
    return [f"{notice.kind} {notice.text}{'' if notice.read_at else ' *'}" for notice in notices]


def test_whoever_may_confirm_a_limit_hears_of_it_and_who_asked_hears_the_answer(
    tree: Tree, as_finn: Principal, as_nadia: Principal, as_alice: Principal
) -> None:
    confirmed = change(as_finn, tree.team, "2000").change_id
    assert told(as_nadia) == ["confirm Waits for you: The team, 2000.00 USD in total *"]
    assert told(as_finn) == told(as_alice) == []
    services.confirm_change(actor=as_nadia, change_id=confirmed)
    assert told(as_nadia) == ["confirm Confirmed: The team, 2000.00 USD in total"]
    assert told(as_finn) == ["request Confirmed: The team, 2000.00 USD in total *"]
    refused = change(as_finn, tree.team, "3000").change_id
    services.refuse_change(actor=as_nadia, change_id=refused, reason="Not now")
    assert told(as_nadia)[1:] == ["confirm Refused: The team, 3000.00 USD in total"]
    assert told(as_finn)[1:] == ["request Refused: The team, 3000.00 USD in total *"]


def test_what_is_withdrawn_or_replaced_waits_for_nobody(tree: Tree, as_finn: Principal, as_nadia: Principal) -> None:
    withdrawn = change(as_finn, tree.team, "2000").change_id
    services.withdraw_change(actor=as_finn, change_id=withdrawn)
    change(as_finn, tree.team, "2500")
    change(as_nadia, tree.team, "900")  # takes its place
    assert told(as_nadia) == [
        "confirm Withdrawn: The team, 2000.00 USD in total",
        "confirm Replaced by a later one: The team, 2500.00 USD in total",
    ]
    assert told(as_finn) == ["request Replaced by a later one: The team, 2500.00 USD in total *"]


def test_what_could_not_be_asked_is_told_to_nobody(tree: Tree, as_finn: Principal, as_nadia: Principal) -> None:
    with pytest.raises(Exception, match="meanwhile"):
        change(as_finn, tree.team, "2000", seen="older")
    assert told(as_nadia) == []
