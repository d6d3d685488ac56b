"""Whose sign-in links a start prints: those of the demo's people, and nobody else's."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from django.core.management import call_command

from controlplane.tenancy import invitations, members
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal, Role
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db


def printed() -> list[str]:
    reading, writing = os.pipe()
    call_command("prepare", "--no-demo", "--report", str(writing))
    with os.fdopen(reading) as report:
        return [person["name"] for person in json.load(report)["people"]]


def test_nobody_who_was_invited_or_shut_out_gets_a_link_at_the_next_start(
    nadia: User, dana: User, bob: User, as_nadia: Principal, charlie: Any
) -> None:
    assert printed() == ["Nadia", "Dana", "Bob"]
    _, secret = invitations.invite(principal=as_nadia, email="erik@northwind.example", roles=[(None, Role.AUDITOR)])
    erik = invitations.accept_as_new_person(secret=secret, name="Erik", password=PASSWORD)
    assert printed() == ["Nadia", "Dana", "Bob"]
    for person in (erik, bob):
        members.deactivate(principal=as_nadia, user_id=person.pk)
    assert printed() == ["Nadia", "Dana"]
