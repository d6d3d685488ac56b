"""`/api/v1/docs`: the schema as a page, rendered here, without script and without anybody else's assets."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from frontend.api.schema import document
from frontend.pages import PersonRequest, page

_DEEPEST = 4


@dataclass(frozen=True)
class Field:
    """One line of a table: a parameter, or a field of a body. `depth` is how far it stands in."""

    name: str
    kind: str
    required: bool
    text: str
    where: str = ""
    depth: int = 0


@dataclass(frozen=True)
class Answer:
    status: str
    what: str


@dataclass(frozen=True)
class Words:
    """A piece of a paragraph; `exact`: a name that is written just so."""

    text: str
    exact: bool


@dataclass(frozen=True)
class Entry:
    """One operation."""

    name: str
    method: str
    path: str
    summary: str
    paragraphs: list[list[Words]]
    parameters: list[Field]
    body: list[Field]
    answer: list[Field]
    answers: list[Answer]


@dataclass(frozen=True)
class Group:
    tag: str
    entries: list[Entry]


@page
@require_safe
def reference(request: PersonRequest) -> HttpResponse:
    return render(request, "api/reference.html", {"groups": _groups()})


@functools.cache
def _groups() -> list[Group]:
    whole = document()
    found: dict[str, list[Entry]] = {}
    for path, methods in whole["paths"].items():
        for method, described in methods.items():
            found.setdefault(described["tags"][0], []).append(_entry(whole, path, method, described))
    return [Group(tag, entries) for tag, entries in sorted(found.items())]


def _entry(whole: Mapping[str, Any], path: str, method: str, described: Mapping[str, Any]) -> Entry:
    body = described.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    good = next(answer for status, answer in described["responses"].items() if status.startswith("2"))
    returned = good.get("content", {}).get("application/json", {}).get("schema")
    return Entry(
        name=described["operationId"],
        method=method.upper(),
        path=path,
        summary=described.get("summary", ""),
        paragraphs=[_words(text) for text in described.get("description", "").split("\n\n") if text],
        parameters=[
            Field(item["name"], _kind(whole, item["schema"]), item.get("required", False), _text(item), item["in"])
            for item in described.get("parameters", [])
        ],
        body=list(_fields(whole, body)) if body else [],
        answer=list(_fields(whole, returned)) if returned else [],
        answers=[
            Answer(status, "problem" if "application/problem+json" in answer.get("content", {}) else "answer")
            for status, answer in sorted(described["responses"].items())
        ],
    )


def _fields(whole: Mapping[str, Any], schema: Mapping[str, Any], depth: int = 0) -> Iterator[Field]:
    """The fields of an object and of the objects in it, as far as a table can show them."""
    shape, _ = _resolved(whole, schema)
    required = set(shape.get("required", ()))
    for name, inner in shape.get("properties", {}).items():
        yield Field(name, _kind(whole, inner), name in required, _text(inner), depth=depth)
        nested, _ = _resolved(whole, inner)
        if nested.get("type") == "array":
            nested, _ = _resolved(whole, nested["items"])
        if depth < _DEEPEST and nested.get("properties"):
            yield from _fields(whole, nested, depth + 1)


def _resolved(whole: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """What a reference or a choice with null stands for, and whether null is allowed."""
    empty = False
    for word in ("oneOf", "anyOf", "allOf"):
        if word in schema:
            empty = any(item.get("type") == "null" for item in schema[word])
            rest = [item for item in schema[word] if item.get("type") != "null"]
            schema = rest[0] if rest else {}
    if "$ref" in schema:
        shape, inner = _resolved(whole, whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        return shape, empty or inner
    kinds = schema.get("type")
    return schema, empty or (isinstance(kinds, list) and "null" in kinds)


def _words(text: str) -> list[Words]:
    """Names stand between backticks."""
    return [Words(part, bool(index % 2)) for index, part in enumerate(text.split("`")) if part]


def _kind(whole: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    shape, empty = _resolved(whole, schema)
    kinds = shape.get("type", "object")
    kind = next((item for item in kinds if item != "null"), "null") if isinstance(kinds, list) else kinds
    if shape.get("enum"):
        words = ", ".join(str(item) for item in shape["enum"] if item is not None)
    elif kind == "array":
        words = f"list of {_kind(whole, shape.get('items', {}))}"
    else:
        words = {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(kind, kind)
        words = {"uuid": "id", "date-time": "moment"}.get(shape.get("format", ""), words)
    return f"{words}, or null" if empty else words


def _text(described: Mapping[str, Any]) -> str:
    text = str(described.get("description", ""))
    return "" if text.startswith("* `") else text
