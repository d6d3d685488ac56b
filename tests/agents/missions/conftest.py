"""The company of the folder above in the transaction of one test, with somebody who administers it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from agents.services.onboarding import Person, create_organisation
from budgets.types import Limits
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import Principal, Role


@pytest.fixture
def company(db: None) -> Organisation:
    return create_organisation(
        name="Northwind",
        currency="USD",
        monthly_limit=Limits(money=Decimal(100)),
        teams={"Finance": Limits(money=Decimal(50))},
        people=(
            Person("alice@northwind.example", "Alice", (Role.BUILDER,), "Finance"),
            Person("bob@northwind.example", "Bob", (Role.APPROVER,), "Finance"),
            Person("nadia@northwind.example", "Nadia", (Role.ADMIN,), None),
        ),
    )


@pytest.fixture
def alice(person: Callable[[str], Principal]) -> Principal:
    return person("alice")
