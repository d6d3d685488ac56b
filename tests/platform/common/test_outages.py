"""Which failures are the database's own, and what callers are told of them."""

from __future__ import annotations

import pytest
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from psycopg import errors as pg

from controlplane.common.outages import outage_of


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("error", [OperationalError("the server closed the connection"), InterfaceError("closed")])
def test_a_database_that_is_away_is_said_to_be_and_may_be_asked_again(error: Exception) -> None:
    outage = outage_of(error)
    assert outage is not None
    assert (outage.code, outage.status, outage.retry_after_seconds) == ("database.unavailable", 503, 1)
    assert "closed" not in outage.message


def test_a_full_disk_is_named() -> None:
    outage = outage_of(caused(OperationalError("could not extend file"), pg.DiskFull()))
    assert outage is not None
    assert (outage.code, outage.status) == ("database.disk_full", 503)


@pytest.mark.parametrize("error", [IntegrityError("duplicate"), DataError("too long"), ValueError("no")])
def test_a_wrong_statement_is_no_outage(error: Exception) -> None:
    assert outage_of(error) is None
