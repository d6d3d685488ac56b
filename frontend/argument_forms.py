"""A form for the arguments of a call, made from its tool's JSON schema. What a schema says simply becomes a field; all
else is JSON, read strictly. Nothing that a stranger named becomes a name in HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django import forms

from agents.servers.definitions import argument_errors, schema_problem
from controlplane.common.canonical import parse_strict
from controlplane.common.errors import RemitError
from controlplane.common.plain import plain_line
from frontend.templatetags.plain_text import mark_hidden

_ABSENT: Final = object()
_SCALARS: Final = ("string", "number", "integer", "boolean")
_LONG_TEXT: Final = 80
_MOST_FIELDS: Final = 60


@dataclass(frozen=True)
class Argument:
    """One argument and how it is edited. `field` is its name in the form."""

    field: str
    name: str
    kind: str  # "text", "lines", "integer", "number", "boolean", "choice", "list", "json"
    schema: Mapping[str, Any]
    required: bool
    present: bool


class ArgumentForm(forms.Form):
    """`arguments()` after `is_valid()`: those of the call as edited, what is not in the form unchanged."""

    def __init__(
        self,
        data: Any = None,
        *,
        schema: Mapping[str, Any],
        current: Mapping[str, Any],
        only: Sequence[str] | None = None,
    ) -> None:
        self._current = current
        self._arguments = list(_arguments(schema, current, only))
        initial = {item.field: _shown(item, current.get(item.name)) for item in self._arguments if item.present}
        super().__init__(data, initial=initial, auto_id="edit-%s")
        for item in self._arguments:
            self.fields[item.field] = _field(item)

    def arguments(self) -> dict[str, Any]:
        edited = {name: value for name, value in self._current.items() if name not in self._names}
        for item in self._arguments:
            value = self.cleaned_data[item.field]
            if value is not _ABSENT:
                edited[item.name] = value
        order = {name: number for number, name in enumerate(self._current)}
        return dict(sorted(edited.items(), key=lambda pair: order.get(pair[0], len(order))))

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = dict(super().clean() or {})
        for item in self._arguments:
            if item.field not in cleaned:
                continue
            try:
                cleaned[item.field] = _read(item, cleaned[item.field], self._current.get(item.name, _ABSENT))
            except ValueError as error:
                self.add_error(item.field, str(error))
        return cleaned

    @property
    def _names(self) -> set[str]:
        return {item.name for item in self._arguments}


def _arguments(schema: Mapping[str, Any], current: Mapping[str, Any], only: Sequence[str] | None) -> Sequence[Argument]:
    properties = schema.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    required, others = schema.get("required"), schema.get("additionalProperties")
    names = [*known, *(name for name in current if name not in known)]
    found = []
    for number, name in enumerate(name for name in names if only is None or name in only):
        part = known.get(name, others)
        described = part if isinstance(part, Mapping) else {}
        value = current.get(name, _ABSENT)
        found.append(
            Argument(
                field=f"arg{number}",
                name=str(name),
                kind=_kind(described, value),
                schema=described,
                required=isinstance(required, list) and name in required,
                present=value is not _ABSENT,
            )
        )
    return found[:_MOST_FIELDS]


def _kind(schema: Mapping[str, Any], value: Any) -> str:
    """JSON wherever the value is not what the schema says, or holds characters that a field would hide."""
    choices: Any = schema.get("enum")
    declared = schema.get("type")
    if _is_list_of_scalars(choices) and (value is _ABSENT or value in choices):
        return "choice"
    if value is not _ABSENT and not _fits(declared, value, schema):
        return "json"
    match declared:
        case "string":
            return "lines" if isinstance(value, str) and ("\n" in value or len(value) > _LONG_TEXT) else "text"
        case "integer" | "number" | "boolean":
            return str(declared)
        case "array":
            items = schema.get("items")
            return "list" if isinstance(items, Mapping) and items.get("type") in _SCALARS else "json"
    return "json"


def _fits(declared: Any, value: Any, schema: Mapping[str, Any]) -> bool:
    match declared:
        case "string":
            return isinstance(value, str) and _is_plain(value)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            items = schema.get("items")
            if not isinstance(value, list) or not isinstance(items, Mapping):
                return False
            plain = all(not isinstance(item, str) or (item and "\n" not in item) for item in value)
            return plain and all(_fits(items.get("type"), item, items) for item in value)
    return False


def _is_plain(text: str) -> bool:
    """Whether a text field shows every character that is there, and sends each back as it was."""
    return "\r" not in text and text == text.strip() and 'class="mark"' not in mark_hidden(text)


def _is_list_of_scalars(value: Any) -> bool:
    return (
        isinstance(value, list) and 0 < len(value) <= 200 and not any(isinstance(item, list | dict) for item in value)
    )


def _field(item: Argument) -> forms.Field:
    label, hint = plain_line(item.name), _hint(item)
    match item.kind:
        case "choice":
            given = [(_json(choice), _choice_label(choice)) for choice in item.schema["enum"]]
            return forms.ChoiceField(
                label=label, help_text=hint, required=item.required, choices=_optional(item, given)
            )
        case "boolean":
            yes_no = [("true", "Yes"), ("false", "No")]
            return forms.ChoiceField(
                label=label, help_text=hint, required=item.required, choices=_optional(item, yes_no)
            )
        case "integer" | "number":
            widget: forms.Widget = forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"})
        case "text":
            widget = forms.TextInput(attrs={"autocomplete": "off"})
        case "json":
            widget = forms.Textarea(attrs={"rows": 4, "class": "code", "spellcheck": "false"})
        case _:
            widget = forms.Textarea(attrs={"rows": 4})
    kind = _MayBeEmpty if item.kind in ("text", "lines", "list") else forms.CharField
    return kind(label=label, help_text=hint, required=item.required, strip=False, widget=widget)


class _MayBeEmpty(forms.CharField):
    """An argument that a call has to have may still be the empty text or no lines at all."""

    def validate(self, value: Any) -> None:
        """What was typed is read by `_read`, which knows the argument."""


def _optional(item: Argument, choices: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return choices if item.required else [("", "Left out"), *choices]


def _hint(item: Argument) -> str:
    described = item.schema.get("description")
    words = [plain_line(described, limit=300)] if isinstance(described, str) and described.strip() else []
    limits = [
        f"{word} {limit}"
        for key, word in (("minimum", "at least"), ("maximum", "at most"), ("maxLength", "characters at most"))
        if item.kind != "boolean" and (limit := _limit(item.schema, key)) is not None
    ]
    if item.kind == "list":
        limits.append("one value a line")
    if item.kind == "json":
        limits.append("as JSON")
    if not item.required and item.kind not in ("choice", "boolean"):
        limits.append("empty means left out")
    sentences = [text for text in (*words, ", ".join(limits)) if text]
    return " ".join(f"{text[0].upper()}{text[1:].rstrip('.')}." for text in sentences)


def _shown(item: Argument, value: Any) -> str:
    match item.kind:
        case "text" | "lines":
            return str(value)
        case "list":
            return "\n".join(entry if isinstance(entry, str) else _json(entry) for entry in value)
        case "json":
            return json.dumps(value, ensure_ascii=not _is_plain(json.dumps(value, ensure_ascii=False)), indent=2)
    return _json(value)


def _read(item: Argument, text: str, current: Any) -> Any:
    """The value somebody typed, or _ABSENT. Raises ValueError with a sentence."""
    if item.kind in ("text", "lines"):
        said = text.replace("\r\n", "\n")
        if said == "" and not item.required and current != "":
            return _ABSENT
        if said != current:
            _require_length(item.schema, said)
            if not _has_its_form(item.schema, said):
                raise ValueError(_other_form(current))
        return said
    if item.kind == "list":
        lines = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
        if not lines and not item.required and current is _ABSENT:
            return _ABSENT
        kind = item.schema["items"]["type"]
        return [line if kind == "string" else _scalar(kind, line) for line in lines]
    if not text.strip():
        if item.required:
            raise ValueError("Say a value: the tool needs it.")
        return _ABSENT
    if item.kind in ("json", "choice"):
        return _strict(text)
    value = _scalar(item.kind, text)
    if item.kind != "boolean":
        _require_range(item.schema, value)
    return value


def _require_length(schema: Mapping[str, Any], text: str) -> None:
    most = _limit(schema, "maxLength")
    if most is not None and len(text) > most:
        raise ValueError(f"At most {most} characters: this has {len(text)}.")


def _require_range(schema: Mapping[str, Any], value: Any) -> None:
    least, most = _limit(schema, "minimum"), _limit(schema, "maximum")
    if least is not None and value < least:
        raise ValueError(f"At least {least}.")
    if most is not None and value > most:
        raise ValueError(f"At most {most}.")


def _limit(schema: Mapping[str, Any], key: str) -> int | float | None:
    """None where it is no number; to Python, true and false are."""
    limit = schema.get(key)
    return limit if isinstance(limit, int | float) and not isinstance(limit, bool) else None


def _has_its_form(schema: Mapping[str, Any], text: str) -> bool:
    """False where it is surely another form than the schema's `pattern`; the gate looks at all of the schema."""
    if not isinstance(schema.get("pattern"), str):
        return True
    whole = {"inputSchema": {"type": "object", "properties": {"value": {"pattern": schema["pattern"]}}}}
    return schema_problem(whole) != "" or not argument_errors(whole, {"value": text})


def _other_form(current: Any) -> str:
    """Without the pattern itself: it is for programs."""
    example = f", such as {plain_line(current, limit=80)}" if isinstance(current, str) and current else ""
    return f"Write it in the form that the tool takes{example}."


def _scalar(kind: str, text: str) -> Any:
    value = _strict(text.strip())
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "integer" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        return value
    words = {"integer": "a whole number", "number": "a number, such as 12.5", "boolean": "true or false"}
    raise ValueError(f"Write {words[kind]}.")


def _strict(text: str) -> Any:
    try:
        return parse_strict(text.encode("utf-8", "surrogatepass"))
    except RemitError as error:
        raise ValueError(error.message) from error


def _choice_label(choice: Any) -> str:
    """As it reads; with what would be hidden spelled out, so that no two choices look the same."""
    text = choice if isinstance(choice, str) else _json(choice)
    return text if _is_plain(text) else _json(choice)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
