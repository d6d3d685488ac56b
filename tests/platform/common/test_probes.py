"""Probes: red with the reason when something is missing, never hanging, metrics only for who may read them."""

from __future__ import annotations

import threading
import time

import pytest
from django.conf import settings as django_settings
from django.db import connection

from controlplane.common import health, metrics, probes
from controlplane.common.metrics import Sample
from controlplane.tenancy.models import Organisation

LOCAL = ("127.0.0.1", 5000)


@pytest.fixture
def checks(monkeypatch) -> dict[str, health.Check]:
    """The registered checks, of which a test may change its own copy."""
    own = dict(health._CHECKS)
    own.setdefault("policy_loaded", lambda: None)
    monkeypatch.setattr(health, "_CHECKS", own)
    return own


@pytest.fixture
def metrics_token(monkeypatch) -> str:
    monkeypatch.setattr(django_settings.CONFIG, "metrics_token", "scrape-me-please")
    return "scrape-me-please"


def test_healthz_answers_whatever_else_is_broken(ask, checks) -> None:
    checks["database"] = _raise
    answer = ask(probes.asgi, "/healthz")
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.django_db(transaction=True)
def test_ready_when_database_migrations_broker_and_policy_are(ask, checks) -> None:
    checks["policy_loaded"] = lambda: None
    answer = ask(probes.asgi, "/readyz")
    assert (answer.status, answer.json["status"]) == (200, "ready")
    assert {"database", "migrations", "broker", "policy_loaded"} <= set(answer.json["checks"])


@pytest.mark.django_db(transaction=True)
def test_not_ready_without_a_policy_bundle(ask, checks) -> None:
    checks["policy_loaded"] = lambda: "No policy bundle is loaded."
    answer = ask(probes.asgi, "/readyz")
    assert answer.status == 503
    assert answer.json["checks"]["policy_loaded"] == {"passed": False, "problem": "No policy bundle is loaded."}
    assert answer.json["checks"]["database"]["passed"]


@pytest.mark.django_db(transaction=True)
def test_not_ready_when_nobody_answers_for_a_required_check(ask, checks) -> None:
    del checks["policy_loaded"]
    answer = ask(probes.asgi, "/readyz")
    assert (answer.status, answer.json["checks"]["policy_loaded"]["passed"]) == (503, False)


@pytest.mark.django_db(transaction=True)
def test_not_ready_without_the_broker(ask, checks, settings) -> None:
    settings.REDIS_URL = "unix:///nonexistent/valkey.sock"
    answer = ask(probes.asgi, "/readyz")
    assert answer.status == 503
    assert not answer.json["checks"]["broker"]["passed"]
    assert "nonexistent" not in answer.body.decode()  # what is public names no addresses


@pytest.mark.django_db(transaction=True)
def test_not_ready_while_a_migration_is_missing(ask, checks) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'audit' AND name = '0003_append_only'")
    try:
        answer = ask(probes.asgi, "/readyz")
    finally:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO django_migrations (app, name, applied) VALUES ('audit', '0003_append_only', now())"
            )
    assert answer.status == 503
    assert "1 migrations are not applied" in answer.json["checks"]["migrations"]["problem"]


@pytest.mark.parametrize("answer_of_check", [False, True, 0, 1, [], {}, object()])
def test_a_check_that_answers_nonsense_is_red(answer_of_check, checks) -> None:
    checks.clear()
    checks["odd"] = lambda: answer_of_check
    assert not [result for result in health.readiness() if result.name == "odd" and result.passed]


@pytest.mark.django_db(transaction=True)
def test_a_check_that_hangs_is_red_and_does_not_hold_up_the_answer(ask, checks) -> None:
    release = threading.Event()
    checks["database"] = lambda: release.wait(30) and None
    started = time.monotonic()
    try:
        answer = ask(probes.asgi, "/readyz")
    finally:
        release.set()
    assert time.monotonic() - started < 15
    assert answer.status == 503
    assert answer.json["checks"]["database"]["problem"] == "No answer in time."
    assert answer.json["checks"]["broker"]["passed"]


def test_a_check_that_fails_tells_its_kind_and_no_secret(ask, checks) -> None:
    checks["database"] = _raise
    answer = ask(probes.asgi, "/readyz")
    assert answer.json["checks"]["database"]["problem"] == "Failed with OSError."
    assert "hunter2" not in answer.body.decode()


@pytest.mark.parametrize(
    ("client", "headers", "status"),
    [
        (LOCAL, [], 200),
        (("::1", 5000), [], 200),
        (("10.0.0.7", 5000), [], 401),
        (None, [], 401),  # the unix socket that sandboxes reach
        (LOCAL, [("x-forwarded-for", "127.0.0.1")], 401),  # a proxy on this machine speaks for someone
        (LOCAL, [("forwarded", "for=1.2.3.4")], 401),
        (("10.0.0.7", 5000), [("authorization", "Bearer scrape-me-please")], 200),
        (None, [("authorization", "Bearer scrape-me-please")], 200),
        (("10.0.0.7", 5000), [("authorization", "Bearer wrong")], 401),
        (LOCAL, [("authorization", "Bearer wrong")], 401),
        (("10.0.0.7", 5000), [("authorization", "Bearer \xe9")], 401),
    ],
)
def test_who_may_read_the_metrics(client, headers, status, ask, metrics_token, db) -> None:
    assert ask(probes.asgi, "/metrics", client=client, headers=headers).status == status


def test_an_empty_token_is_no_token(ask, db) -> None:
    assert not django_settings.CONFIG.metrics_token
    for sent in ("Bearer ", "Bearer", "Bearer x"):
        assert ask(probes.asgi, "/metrics", client=None, headers=[("authorization", sent)]).status == 401


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_probes_are_only_read(method, ask) -> None:
    assert ask(probes.asgi, "/healthz", method=method).status == 405


@pytest.mark.django_db(transaction=True)
def test_metrics_carry_process_and_database_gauges(ask, monkeypatch, northwind) -> None:
    monkeypatch.setitem(
        metrics._GAUGES,
        "tests",
        lambda: [
            Sample("remit_test_organisations", "Organisations.", Organisation.objects.count(), {"state": "live"}),
            Sample("remit_test_organisations", "Organisations.", 0, {"state": "gone"}),
        ],
    )
    text = ask(probes.asgi, "/metrics").body.decode()
    assert 'remit_test_organisations{state="live"} 1.0' in text
    assert 'remit_test_organisations{state="gone"} 0.0' in text
    assert "remit_audit_sealer_lag_seconds" in text
    assert "process_resident_memory_bytes" in text
    assert "remit_gate_stage_seconds" in text
    assert 'remit_gauges_failed{gauges="tests"} 0.0' in text


@pytest.mark.django_db(transaction=True)
def test_gauges_that_fail_are_left_out_and_said(ask, monkeypatch) -> None:
    monkeypatch.setitem(metrics._GAUGES, "tests", _raise)
    answer = ask(probes.asgi, "/metrics")
    assert answer.status == 200
    assert 'remit_gauges_failed{gauges="tests"} 1.0' in answer.body.decode()
    assert "remit_audit_unsealed" in answer.body.decode()


def _raise() -> None:
    raise OSError("postgresql://remit:hunter2@db.internal/remit refused")
