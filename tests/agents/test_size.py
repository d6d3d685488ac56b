"""The organisation seeded to try pages at size: whole, in proportion, and never mixed into one that is used."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Sum

from agents.models import Mission
from budgets.models import DailySpend, JournalEntry
from controlplane.audit.models import Entry, Seal
from controlplane.audit.verification import verify_organisation
from controlplane.tenancy.models import Organisation, User
from governance.choices import EscalationState
from governance.models import Action, Escalation

pytestmark = pytest.mark.django_db


def test_it_is_as_large_as_asked_for_and_adds_up() -> None:
    call_command("seed_size", size="60x600", escalations=40, audit=50, verbosity=0)
    organisation = Organisation.objects.get(slug="size")
    assert Mission.objects.filter(organisation=organisation).count() == 60
    assert Action.objects.filter(organisation=organisation).count() == 600
    assert Escalation.objects.filter(organisation=organisation, state=EscalationState.OPEN).count() == 40
    lines = JournalEntry.objects.filter(organisation_id=organisation.pk, kind="settle")
    assert lines.count() == Action.objects.filter(organisation=organisation, cost__isnull=False).count()
    assert lines.aggregate(Sum("money"))["money__sum"] == DailySpend.objects.aggregate(Sum("money"))["money__sum"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(money) FROM budgets_posting")
        assert cursor.fetchone()[0] == Decimal(0)
    assert list(Action.objects.order_by("pk").values_list("pk")) == list(
        Action.objects.order_by("created_at", "pk").values_list("pk")
    )
    entries = Entry.objects.filter(organisation=organisation).count()
    assert Seal.objects.filter(organisation=organisation).count() == entries > 50
    assert verify_organisation(organisation_id=organisation.pk).intact


def test_it_is_seeded_once_and_only_in_a_size_that_is_one() -> None:
    for size in ("x", "10", "0x5", "axb"):
        with pytest.raises(CommandError, match="MISSIONSxACTIONS"):
            call_command("seed_size", size=size)
    assert not Organisation.objects.exists()
    call_command("seed_size", size="20x40", escalations=1)
    with pytest.raises(CommandError, match="already"):
        call_command("seed_size", size="20x40", escalations=1)
    assert Action.objects.count() == 40


def test_it_is_not_seeded_beside_an_organisation_that_people_use(northwind: Organisation) -> None:
    with pytest.raises(CommandError, match="without any"):
        call_command("seed_size", size="20x40", escalations=1)
    assert list(Organisation.objects.all()) == [northwind]
    assert not User.objects.filter(email__endswith="@size.example").exists()
