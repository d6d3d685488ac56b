"""`/api/v1/schema`: OpenAPI 3.1 of the whole interface, made from the views; the plain ASGI end is described by hand.

It says nothing about anybody's data, so whoever finds this Remit may read it.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator

from frontend.api.actions_schema import COMPONENTS, PATHS

_RATE_HEADERS = {
    "RateLimit-Limit": "Requests that this token may make in a minute.",
    "RateLimit-Remaining": "How many of them are left.",
    "RateLimit-Reset": "Seconds until all are there again.",
}


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
    """A hook of drf-spectacular: adds `/api/v1/actions`, and headers that every answer has."""
    for methods in result["paths"].values():
        for described in methods.values():
            for status, answer in described["responses"].items():
                answer.setdefault("headers", {}).update(_headers(status))
    result["paths"] = dict(sorted({**result["paths"], **PATHS}.items()))
    result["components"]["schemas"].update(COMPONENTS)
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
