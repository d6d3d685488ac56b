"""Whatever people, agents and servers write: no page and no file lets it run, steer a terminal or turn a line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib.postgres.fields import ArrayField
from django.db import connection, models
from django.test import Client
from django.urls import reverse

from agents.models import Mission
from controlplane.tenancy.models import User
from tests.frontend.pages import test_access
from tests.frontend.pages.foreign import BY_SECRET, furnish, pages

# A formula, a script, a terminal sequence, a line that is turned around. Short, so that most fields hold all of it.
HOSTILE = "=1+<script>x\x1b[31m\u202e{}"
NEVER = ("<script>x", "\x1b", "\u202e")
OURS = ("agents", "budgets", "governance", "controlplane")
# Rows that only Remit writes, out of its own words, hashes and numbers.
OF_REMIT = {
    *("idempotency.IdempotencyKey", "tenancy.SignInLink", "audit.Seal", "audit.SigningKey", "audit.Checkpoint"),
    *("audit.Restatement", "clusters.Cluster", "governance.Permit", "governance.PolicyBundle", "budgets.Chain"),
    *("budgets.Guard", "budgets.CostState", "budgets.Price", "agents.SavedView.list", "agents.ServerCredential"),
}
# Names of things in code, ids, addresses and digests: checked by pattern or looked up when they come in.
CODE = {
    *("slug", "currency", "time_zone", "password", "email", "hash", "hint", "kind", "tool", "digest", "trace_id"),
    *("event", "actor_kind", "subject_type", "proposer_kind", "reason_code", "idempotency_key", "level", "stamp"),
    *("seen", "template", "program", "environment", "protocol_version", "purpose", "isolation", "applied_under"),
    *("qualified_name", "commitment", "path", "exit_reason", "url", "mounts", "team_ids", "window_ids", "rate_ids"),
    *("key_id", "excluded_user_ids", "scopes", "roles", "preferences", "settings", "resources", "counts", "proofs"),
    *("desired_resources", "observed_resources", "info", "progress", "envelope", "amount_argument", "residency"),
    *("policies", "approved_policies", "judged_policies", "schema", "golden_cases", "grants", "effects", "list"),
    *("query", "token_url"),
}
_ADDRESSES = {"budgets.CostMission.goal"}  # what finds the row


def fields_of(model: type[models.Model]) -> Iterator[models.Field[Any, Any]]:
    for field in model._meta.concrete_fields:
        if field.choices or field.name in CODE or field.name.endswith("sha256"):
            continue
        if f"{model._meta.label}.{field.name}" not in _ADDRESSES and isinstance(
            field, models.CharField | models.TextField | models.JSONField | ArrayField
        ):
            yield field


def written_models() -> list[type[models.Model]]:
    found = [model for model in apps.get_models() if model.__module__.split(".")[0] in OURS]
    return [model for model in found if model._meta.label not in OF_REMIT and any(fields_of(model))]


def spoil(value: Any, field: models.Field[Any, Any], number: int) -> Any:
    """The value with every text in it replaced; keys and shapes stay."""
    text = HOSTILE.format(number)
    if isinstance(value, str) or value is None:
        return text[: field.max_length] if isinstance(field, models.CharField | models.TextField) else value and text
    return _inside(value, text)


def _inside(value: Any, text: str) -> Any:
    if isinstance(value, dict):
        kept = ("type", "state", "verdict", "name", "id", "policies")  # by these the pages find their way
        return {key: inner if key in kept else _inside(inner, text) for key, inner in value.items()}
    if isinstance(value, list):
        return [_inside(inner, text) for inner in value]
    return text if isinstance(value, str) and not re.fullmatch(r"[0-9.:TZ+-]+", value) else value


def spoil_everything() -> set[str]:
    """Every such field of every row, past all checks. The fields that had rows."""
    reached = set()
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for model in written_models():
            fields = list(fields_of(model))
            cursor.execute(f'ALTER TABLE "{model._meta.db_table}" DISABLE TRIGGER USER')
            for number, row in enumerate(model._base_manager.order_by("pk")):
                changed = {field.name: spoil(getattr(row, field.attname), field, number) for field in fields}
                model._base_manager.filter(pk=row.pk).update(**changed)
                reached |= {f"{model._meta.label}.{field.name}" for field in fields}
            cursor.execute(f'ALTER TABLE "{model._meta.db_table}" ENABLE TRIGGER USER')
    return reached


@pytest.fixture
def spoilt(asked: Any, busy: Any) -> Any:
    furnish(asked)
    asked.addresses = addresses(asked)
    asked.reached = spoil_everything()
    return asked


def addresses(world: Any) -> list[str]:
    """Every page there is, with rows of Northwind where it names some."""
    found = {reverse(name) for name in test_access.CLOSED_LISTS}
    words = {"what", "list_name"}
    for route in pages():
        if route.name not in BY_SECRET and not set(route.parameters) & words:
            found |= set(route.addresses(world))
    found |= {f"{reverse(name)}?format=csv" for name in ("missions", "agents", "audit", "approval-health", "servers")}
    return sorted({*found, *test_access.items(world).values()})


def without_what_is_edited(html: str) -> str:
    """A form gives back what it was given, or saving it would change it: boxes to type in are left out."""
    html = re.sub(r"<textarea.*?</textarea>", "", html, flags=re.DOTALL)
    return re.sub(r"<input [^>]*>", lambda tag: tag[0] if "<script" in tag[0] else "", html)


def test_most_fields_that_are_written_were_reached(spoilt: Any) -> None:
    wanted = {"tenancy.User.name", "agents.Agent.name", "agents.Mission.title", "governance.Action.arguments"}
    wanted |= {"governance.Vote.reason", "audit.Entry.payload", "agents.McpTool.definition", "agents.McpServer.error"}
    wanted |= {"budgets.LimitChange.reason", "tenancy.Team.name", "agents.Stop.reason", "governance.BreakGlass.reason"}
    assert wanted <= spoilt.reached
    assert "<script>x" in Mission.objects.get(pk=spoilt.mission.pk).title


def test_no_page_and_no_file_is_turned_by_what_somebody_wrote(
    spoilt: Any, nadia: User, signed_in: Callable[..., Client]
) -> None:
    browser = signed_in(nadia)
    wrong: list[str] = []
    seen = 0
    for path in spoilt.addresses:
        answer = browser.get(path)
        if answer.status_code in (405, 302, 410):
            continue
        text = (b"".join(answer) if answer.streaming else answer.content).decode()
        wrong += [f"{path}: status {answer.status_code}"] if answer.status_code >= 500 else []
        seen += "script&gt;x" in text or "<script>x" in text
        if answer["Content-Type"].startswith("text/csv"):
            wrong += [f"{path}: cell {cell[:60]!r}" for cell in formulas(text)]
            continue
        shown = without_what_is_edited(text)
        wrong += [f"{path}: {what!r}: {around(shown, what)}" for what in NEVER if what in shown]
    assert wrong == []
    assert seen > 30, "the hostile text is shown somewhere"


def formulas(text: str) -> Iterator[str]:
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            bare = cell.strip()
            if bare[:1] in ("=", "+", "-", "@") and not re.fullmatch(r"[+-][0-9.]+", bare) and bare != "-":
                yield cell


def around(text: str, what: str) -> list[str]:
    """What stands before each place that it is in."""
    return [text[max(0, found.start() - 120) : found.end()] for found in re.finditer(re.escape(what), text)]
