"""Entries to seal, and a database role that owns nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from controlplane.audit import services
from controlplane.audit.checkpoints import sign_head
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.audit.sealing import seal_all
from controlplane.audit.services import Subject
from controlplane.common.ids import new_id
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import Principal, system_principal

from .exported import make_export

_GUARDED = ("audit_entry", "audit_seal", "audit_checkpoint", "audit_restatement")


@pytest.fixture
def record(northwind: Organisation) -> Callable[..., Entry]:
    """`record(payload={…})`: one committed entry of Northwind."""

    def write(
        *, event: Event = Event.MISSION_PAUSED, actor: Principal | None = None, name: str = "Invoices", **facts: Any
    ) -> Entry:
        subject = Subject(
            type=facts.pop("subject_type", "mission"), id=new_id(), name=name, team_id=facts.pop("team_id", None)
        )
        with transaction.atomic():
            return services.record(
                event=event,
                actor=actor or system_principal(organisation_id=northwind.pk),
                subject=subject,
                payload=facts,
            )

    return write


@pytest.fixture
def as_intruder() -> Callable[[str, list[Any]], None]:
    """Runs SQL as the tables' owner who first takes triggers and foreign keys away: the chain must show it."""

    def run(sql: str, parameters: list[Any]) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            for table in _GUARDED:
                cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
                cursor.execute(
                    "SELECT conname FROM pg_constraint"
                    " WHERE contype = 'f' AND conrelid = %s::regclass AND conparentid = 0",
                    [table],
                )
                for (name,) in cursor.fetchall():
                    cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
            cursor.execute(sql, parameters)
            assert cursor.rowcount > 0
            for table in _GUARDED:
                cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")

    return run


@pytest.fixture
def own_key(tmp_path: Path, settings: Any) -> None:
    """A signing key of this test alone."""
    settings.CONFIG = settings.CONFIG.model_copy(update={"state_dir": tmp_path / "state"})


@pytest.fixture
def trail(own_key: None, record: Callable[..., Entry], northwind: Organisation) -> list[Entry]:
    """Twelve sealed entries with signed heads at 4, 8 and 12."""
    written = []
    for number in range(1, 13):
        written.append(record(reason=f"reason {number}", amount=number / 4, name="Müller & Söhne"))
        if number % 4 == 0:
            seal_all()
            sign_head(organisation_id=northwind.pk)
    return written


@pytest.fixture
def export(trail: list[Entry], northwind: Organisation, tmp_path: Path) -> Path:
    return make_export(northwind, tmp_path / "export.zip")
