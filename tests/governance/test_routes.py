"""Groups and routes are set by administrators of their organisation, audited, and make sense."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from controlplane.audit.models import Entry
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import selectors, services
from governance.approval_models import ApprovalRoute, ApproverGroup
from governance.services import Route

from .questions import MakeGroup

pytestmark = pytest.mark.django_db


def test_groups_and_routes_are_set_by_administrators_and_audited(
    as_nadia: Principal, as_bob: Principal, bob: User, charlie: User, make_group: MakeGroup
) -> None:
    with pytest.raises(RemitError, match=r"permission\.denied"):
        services.save_group(actor=as_bob, name="Mine", member_ids=[bob.pk])
    with pytest.raises(RemitError, match=r"permission\.denied"):
        services.save_route(actor=as_bob, route=Route(name="Mine"))
    with pytest.raises(RemitError, match=r"group\.invalid"):
        services.save_group(actor=as_nadia, name="Strangers", member_ids=[charlie.pk])
    assert not ApproverGroup.objects.exists()
    group = make_group("Desk", bob)
    with pytest.raises(RemitError, match=r"group\.name_taken"):
        make_group("Desk", bob)
    row = services.save_route(actor=as_nadia, route=Route(name="All", group_id=group.pk))
    with pytest.raises(RemitError, match=r"group\.in_use"):
        services.retire_group(actor=as_nadia, group_id=group.pk)
    services.remove_route(actor=as_nadia, route_id=row.pk)
    services.retire_group(actor=as_nadia, group_id=group.pk)
    assert list(Entry.objects.order_by("id").values_list("event", flat=True)) == [
        "approver_group.changed",
        "approval_route.changed",
        "approval_route.removed",
        "approver_group.retired",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": " "},
        {"kind": "no.such"},
        {"needed": 0},
        {"needed": 11},
        {"answer_seconds": 5},
        {"next_seconds": 10**9},
        {"amount_above": Decimal("NaN")},
        {"amount_above": Decimal(-1)},
        {"amount_argument": "amount"},
    ],
)
def test_a_route_that_makes_no_sense_is_not_saved(as_nadia: Principal, fields: dict[str, Any]) -> None:
    with pytest.raises(RemitError, match=r"route\.invalid"):
        services.save_route(actor=as_nadia, route=Route(**{"name": "Odd", **fields}))
    assert not ApprovalRoute.objects.exists()


def test_routes_of_another_organisation_do_not_exist(
    as_nadia: Principal, as_charlie: Principal, route: Any, make_group: MakeGroup, bob: User
) -> None:
    row, group = route("Mine"), make_group("Desk", bob)
    for attempt in (
        lambda: services.save_route(actor=as_charlie, route=Route(name="X"), route_id=row.pk),
        lambda: services.remove_route(actor=as_charlie, route_id=row.pk),
        lambda: services.retire_group(actor=as_charlie, group_id=group.pk),
        lambda: services.save_route(actor=as_charlie, route=Route(name="X", group_id=group.pk)),
    ):
        with pytest.raises(RemitError):
            attempt()
    assert selectors.approval_routes(as_charlie) == []
    row.refresh_from_db()
    assert row.name == "Mine"
