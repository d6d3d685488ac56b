"""Another size for a running sandbox: what was typed stays, and what can't be is said beside its field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from budgets.services import close_account
from controlplane.audit.models import Entry
from controlplane.clusters.models import Sandbox
from controlplane.clusters.types import MIB
from controlplane.tenancy.models import User
from controlplane.tenancy.types import system_principal

SignIn = Callable[..., Client]


@pytest.fixture
def sandbox(world: Any) -> Sandbox:
    world.run.refresh_from_db()
    assert world.run.sandbox is not None
    return world.run.sandbox


def resize(browser: Client, world: Any, **fields: str) -> Any:
    return browser.post(reverse("mission-resize", args=[world.mission.pk]), fields)


@pytest.mark.parametrize("typed", ["-1", "abc", "0", "999999999", "", "9" * 5000, "1.5"])
@pytest.mark.parametrize("field", ["cpu_millicores", "memory_mib"])
def test_what_is_no_size_is_a_field_error_and_stays_in_the_field(
    world: Any, sandbox: Sandbox, alice: User, signed_in: SignIn, field: str, typed: str
) -> None:
    before = sandbox.desired_resources
    response = resize(signed_in(alice), world, **{"cpu_millicores": "500", "memory_mib": "300", field: typed})
    html = response.content.decode()
    assert response.status_code == 422
    assert "A whole number from " in html
    assert f'value="{typed}"' in html or typed == ""
    other = "300" if field == "cpu_millicores" else "500"
    assert f'value="{other}"' in html
    sandbox.refresh_from_db()
    assert sandbox.desired_resources == before
    assert not Entry.objects.filter(event="sandbox.resized").exists()


def test_a_size_is_asked_for_and_one_below_the_peak_is_said(
    world: Any, sandbox: Sandbox, alice: User, signed_in: SignIn
) -> None:
    Sandbox.objects.filter(pk=sandbox.pk).update(peak_memory_bytes=120 * MIB)
    browser = signed_in(alice)
    page = reverse("mission-tab", args=[world.mission.pk, "runs"])
    assert "Its peak so far is 120 MiB." in browser.get(page).content.decode()
    assert resize(browser, world, cpu_millicores="750", memory_mib="64").status_code == 302
    sandbox.refresh_from_db()
    assert sandbox.desired_resources["memory_bytes"] == 64 * MIB
    assert sandbox.desired_resources["cpu_millicores"] == 750
    assert "below the peak of 120 MiB" in browser.get(page).content.decode()


def test_a_refused_size_is_said_in_the_row(world: Any, sandbox: Sandbox, alice: User, signed_in: SignIn) -> None:
    Sandbox.objects.filter(pk=sandbox.pk).update(resize_error="125829120 bytes of memory are in use")
    html = signed_in(alice).get(reverse("mission-tab", args=[world.mission.pk, "runs"])).content.decode()
    assert "125829120 bytes of memory are in use" in html


def test_a_size_that_the_budget_does_not_pay_for_is_said_and_changes_nothing(
    world: Any, sandbox: Sandbox, alice: User, signed_in: SignIn
) -> None:
    world.mission.refresh_from_db()
    close_account(
        actor=system_principal(organisation_id=world.mission.organisation_id),
        account_id=world.mission.account_id,
        reason="Look first",
    )
    response = resize(signed_in(alice), world, cpu_millicores="4000", memory_mib="2048")
    assert response.status_code == 409
    html = response.content.decode()
    assert "is frozen" in html
    assert 'value="4000"' in html
    before = sandbox.desired_resources
    sandbox.refresh_from_db()
    assert sandbox.desired_resources == before
    assert not Entry.objects.filter(event="sandbox.resized").exists()
