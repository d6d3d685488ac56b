"""`/api/v1/schema`: OpenAPI 3.1 of the whole interface, made from the views; the plain ASGI end is described by hand.

It says nothing about anybody's data, so whoever finds this Remit may read it.
"""

from __future__ import annotations

import functools
import json
from copy import deepcopy
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema

from frontend.api.actions_schema import COMPONENTS, PATHS

_RATE_HEADERS = {
    "RateLimit-Limit": "Requests that this token may make in a minute.",
    "RateLimit-Remaining": "How many of them are left.",
    "RateLimit-Reset": "Seconds until all are there again.",
}


class Described(AutoSchema):
    """Names of components as clients should read them: a serializer `MissionOut` describes a `Mission`."""

    def get_serializer_name(self, serializer: Any, direction: Any) -> Any:
        name = super().get_serializer_name(serializer, direction)
        for ending in ("OutPage", "Out", "Shape"):
            if name.endswith(ending):
                return name.removesuffix(ending) + ending.removeprefix("Out").removeprefix("Shape")
        return name


@require_safe
def schema(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
    return HttpResponse(_as_json(), content_type="application/vnd.oai.openapi+json")


def document() -> dict[str, Any]:
    """The schema as a value, for the page that shows it."""
    return dict(json.loads(_as_json()))


@functools.cache
def _as_json() -> bytes:
    from frontend.api import urls

    generator = SchemaGenerator(patterns=urls.documented)  # type: ignore[no-untyped-call]
    return json.dumps(generator.get_schema(request=None, public=True), indent=1, sort_keys=False).encode()  # type: ignore[no-untyped-call]


def describe_what_is_not_django(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """A hook of drf-spectacular: `/api/v1/actions`, the headers of every answer, no unknown fields in bodies."""
    result["paths"] = dict(sorted({**result["paths"], **deepcopy(PATHS)}.items()))
    for methods in result["paths"].values():
        for described in methods.values():
            for status, answer in described["responses"].items():
                answer.setdefault("headers", {}).update(_headers(status))
    for name, component in result["components"]["schemas"].items():
        if name.endswith(("Body", "In")):
            component["additionalProperties"] = False
    result["components"]["schemas"].update(COMPONENTS)
    _tidy(result)
    result["servers"] = [{"url": "/", "description": "This Remit"}]
    return result


def _headers(status: str) -> dict[str, Any]:
    found = {
        name: {"description": text, "schema": {"type": "integer"}}
        for name, text in _RATE_HEADERS.items()
        if status not in ("401", "406")
    }
    if status in ("429", "503"):
        found["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
    return found


def _tidy(value: Any) -> None:
    """Without what says nothing here: answers are answers, whether or not a field could be written."""
    if isinstance(value, list):
        for item in value:
            _tidy(item)
    if not isinstance(value, dict):
        return
    for name in ("x-spec-enum-id", "readOnly"):
        if not isinstance(value.get(name), dict):  # a field may be called so
            value.pop(name, None)
    if list(value) == ["allOf"] and len(value["allOf"]) == 1:
        value.update(value.pop("allOf")[0])
    for item in value.values():
        _tidy(item)
