"""Where a person's names stand in rows of any app, and replacing them there. Works from the models themselves: an app
that adds a text column for people adds nothing here, one that adds a column for programs names it."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from django.apps import apps
from django.contrib.postgres.fields import ArrayField
from django.db import DatabaseError, models, transaction
from django.db.models import Q
from django.db.models.functions import Cast

from controlplane.tenancy.models import Organisation, User

_SHORTEST = 3
_OWN_TABLES = frozenset(
    {
        *("audit_entry", "audit_seal", "audit_unsealed", "audit_checkpoint", "audit_restatement", "audit_signingkey"),
        *("tenancy_user", "tenancy_organisation", "django_session"),
    }
)
# What programs read: rules, names of tools and of settings, identifiers. “Max” is an operator there, not a person, and
# another word in its place another rule. Columns of any table, or of one; hashes and slugs are known by themselves.
_FOR_PROGRAMS = frozenset(
    {
        *("kind", "tool", "tool_name", "qualified_name", "subject_type", "reason_code", "trace_id", "idempotency_key"),
        *("roles", "scopes", "hash", "digest", "seen", "nonce", "audience", "policies", "approved_policies"),
        *("judged_policies", "schema", "golden_cases", "definition", "pending_definition", "effects", "capabilities"),
        *("program", "command", "environment", "mounts", "protocol_version", "residency", "template"),
        *("resources", "desired_resources", "observed_resources", "former_sizes", "applied_under", "exit_reason"),
        *("purpose", "progress", "counts", "key", "token_class", "zone", "stamp", "list", "amount_argument", "header"),
        *("client_id", "scope", "envelope", "clusters_sandbox.name", "agents_mcptool.name", "budgets_costmission.goal"),
    }
)
# Of these only what stands under the named key is for people.
_WORDS_WITHIN = {"agents_missionversion.grants": "sentence", "agents_mission.settings": "values"}


class Counter(Protocol):
    rows: int


@dataclass(frozen=True)
class Names:
    """What a person was called, as it is looked for in texts: whole words, without regard to case. A name of one word
    is looked for as it is written, and with a capital or in capitals: “will” and “grace” are words too.

    A name that somebody else of the organisation bears too, or of fewer than three letters, is not looked for: where
    the person is meant is not to be told. Rows that point to the person by id lose it all the same.
    """

    texts: tuple[str, ...]
    pattern: re.Pattern[str] | None

    @classmethod
    def of(cls, names: Collection[str], *, shared_with: Collection[str]) -> Names:
        texts = sorted(
            {name for name in names if len(name) >= _SHORTEST and name.casefold() not in shared_with},
            key=lambda name: (-len(name), name),
        )
        if not texts:
            return cls((), None)
        alternatives = "|".join(_alternative(text) for text in texts)
        return cls(tuple(texts), re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)"))

    def condition(self, columns: Sequence[str]) -> Q:
        """Rows that may hold one of them; as they stand in a text and as they stand in JSON."""
        found = Q(pk__in=[])
        for text in self.texts:
            for form in {text, json.dumps(text, ensure_ascii=False)[1:-1]}:
                for column in columns:
                    found |= Q(**{f"{column}__icontains": form})
        return found

    def replaced(self, value: Any, by: str) -> Any:
        """The value with every mention replaced, at any depth of JSON. Keys are words of programs and stay."""
        if self.pattern is None:
            return value
        if isinstance(value, str):
            return self.pattern.sub(by, value)
        if isinstance(value, dict):
            return {key: self.replaced(item, by) for key, item in value.items()}
        if isinstance(value, list):
            return [self.replaced(item, by) for item in value]
        return value

    def stand_in(self, value: Any) -> bool:
        """Whether one of them is in the value, keys included."""
        if self.pattern is None:
            return False
        if isinstance(value, str):
            return self.pattern.search(value) is not None
        if isinstance(value, dict):
            return any(self.stand_in(item) for pair in value.items() for item in pair)
        return isinstance(value, list) and any(self.stand_in(item) for item in value)

    def replaced_within(self, value: Any, key: str, by: str) -> Any:
        """The JSON with every mention replaced in what stands under `key`, and nowhere else."""
        if isinstance(value, dict):
            return {
                name: self.replaced(item, by) if name == key else self.replaced_within(item, key, by)
                for name, item in value.items()
            }
        return [self.replaced_within(item, key, by) for item in value] if isinstance(value, list) else value


def _alternative(name: str) -> str:
    """The name in a pattern: one word in the cases that a name has, anything longer in whatever case."""
    if not name.isalpha():
        return f"(?i:{re.escape(name)})"
    return "|".join(re.escape(form) for form in sorted({name, name.capitalize(), name.upper()}))


def replace(names: Names, by: str, *, organisations: Collection[uuid.UUID], done: Counter) -> dict[str, int]:
    """Replace them in every row of these organisations. Returns, by place, how many rows hold one still."""
    kept: dict[str, int] = {}
    for model, columns, path in _places():
        rows = model._base_manager.filter(**{f"{path}__in": list(organisations)})
        texts = {f"{name}_as_text": Cast(name, models.TextField()) for name in columns}
        found = rows.alias(**texts).filter(names.condition(list(texts)))
        for values in list(found.values("pk", *columns)):
            changes = {name: _for_people(model, name, values[name], names, by) for name in columns}
            refused = _update(model, values, changes)
            for name in columns:
                if names.stand_in(changes[name]):
                    refused[name] = f"{model._meta.db_table}.{name}"
            for name, place in refused.items():
                kept[place] = kept.get(place, 0) + 1
                changes.pop(name)
            done.rows += any(changes[name] != values[name] for name in changes)
    return kept


def delete_owned(user: User, tables: Collection[str]) -> None:
    """What only describes the account, in tables of others."""
    for model in apps.get_models():
        if model._meta.db_table in tables:
            model._base_manager.filter(user=user).delete()


def as_json(rows: Sequence[dict[str, Any]]) -> str:
    return json.dumps(rows, default=str)


def _for_people(model: type[models.Model], name: str, value: Any, names: Names, by: str) -> Any:
    """What the column becomes: every mention replaced where people read it, as it is where programs do."""
    place, field = f"{model._meta.db_table}.{name}", model._meta.get_field(name)
    if place in _WORDS_WITHIN:
        return names.replaced_within(value, _WORDS_WITHIN[place], by)
    by_its_name = name in _FOR_PROGRAMS or place in _FOR_PROGRAMS or name.endswith("_sha256")
    if by_its_name or isinstance(field, models.SlugField | models.URLField):
        return value
    return names.replaced(value, by)


def _update(model: type[models.Model], values: dict[str, Any], changes: dict[str, Any]) -> dict[str, str]:
    """Column by column where the row as a whole refuses: triggers guard what was judged. Returns those that did."""
    changes = {name: _fitting(model, name, value) for name, value in changes.items() if value != values[name]}
    attempts = [changes] if len(changes) == 1 else [changes, *({name: value} for name, value in changes.items())]
    refused: dict[str, str] = {}
    for attempt in attempts:
        try:
            with transaction.atomic():
                if attempt:
                    model._base_manager.filter(pk=values["pk"]).update(**attempt)
        except DatabaseError:
            if len(attempt) == 1:
                refused[next(iter(attempt))] = f"{model._meta.db_table}.{next(iter(attempt))}"
        else:
            if len(attempt) == len(changes):
                return {}
    return refused


def _fitting(model: type[models.Model], name: str, value: Any) -> Any:
    longest = getattr(model._meta.get_field(name), "max_length", None)
    return value[:longest] if longest and isinstance(value, str) else value


def _places() -> Iterator[tuple[type[models.Model], list[str], str]]:
    """Every model with text in it that belongs to an organisation, and the path of fields that leads there."""
    for model in apps.get_models():
        if not model._meta.managed or model._meta.db_table in _OWN_TABLES:
            continue
        columns = [field.name for field in model._meta.local_fields if _holds_text(field)]
        path = _path(model, depth=4)
        if columns and path:
            yield model, columns, path


def _holds_text(field: models.Field[Any, Any]) -> bool:
    if isinstance(field, ArrayField):
        return _holds_text(field.base_field)
    if isinstance(field, models.CharField):
        return not field.choices and (field.max_length or 0) > 16 and not field.primary_key
    return isinstance(field, models.TextField | models.JSONField)


def _path(model: type[models.Model], *, depth: int) -> str:
    """`mission__organisation_id`, or empty: rows that belong to nobody, like prices and content types."""
    fields = {field.name: field for field in model._meta.local_fields}
    for name in ("organisation", "organisation_id"):
        if name in fields:
            return "organisation_id"
    if depth:
        for name, field in fields.items():
            target = field.related_model
            if isinstance(field, models.ForeignKey) and isinstance(target, type) and target not in (User, Organisation):
                found = _path(target, depth=depth - 1)
                if found:
                    return f"{name}__{found}"
    return ""
