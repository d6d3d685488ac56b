"""`@operation`: what a method of a resource says of itself, once. Schema and behaviour are both made of that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers

from controlplane.common.http import PROBLEM_TYPE
from controlplane.idempotency import services as idempotency
from controlplane.tenancy.types import Permission
from frontend.api.fields import Body, Query

F = TypeVar("F", bound=Callable[..., Any])
# A compressed answer has its tag marked as weak; the version in it is the same.
ETAG: Final = '^(W/)?"[0-9A-Za-z._]{1,80}-[0-9a-f]{1,64}"$'
_STATUSES: Final = (401, 403, 406, 422, 429, 500, 503)
_STATUSES_OF_POST: Final = (400, 408, 409, 413, 415, 428)


@dataclass(frozen=True)
class Operation:
    """One method of one address. `permission` None: whoever is authenticated. `own_account`: but with no token that
    leaves out some of its person's permissions, since their own account is none of them."""

    name: str
    permission: Permission | None
    query: type[Query]
    body: type[Body]
    if_match: bool
    one_transaction: bool
    own_account: bool


class ProblemField(serializers.Serializer):  # type: ignore[type-arg]
    """What is wrong with one field."""

    pointer = serializers.CharField(allow_blank=True)
    detail = serializers.CharField()


class Problem(serializers.Serializer):  # type: ignore[type-arg]
    """RFC 9457. `code` is stable, `remedies` say what to do next, `errors` point into the request."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    errors = ProblemField(many=True)  # type: ignore[assignment]  # DRF's own attribute of that name is a property
    remedies = serializers.ListField(child=serializers.CharField())
    trace_id = serializers.CharField(allow_blank=True)
    data = serializers.DictField(required=False)  # type: ignore[assignment]


class NoBody(Body):
    """Nothing to send: `{}` or an empty body."""


def operation(
    name: str,
    summary: str,
    *,
    permission: Permission | None,
    answer: Any,
    listed: bool = False,
    status: int | None = None,
    query: type[Query] = Query,
    body: type[Body] = NoBody,
    if_match: bool = False,
    one_transaction: bool = True,
    own_account: bool = False,
    absent: bool = False,
    about: str = "",
) -> Callable[[F], F]:
    """Declare a method of a `Resource`. `answer`: serializer of what it returns, or answers by (status,
    type), None for 204; `listed`: of one item of a page; `absent`: 404 although the address has no id."""

    def declare(method: F) -> F:
        changes = method.__name__ == "post"
        declared = Operation(name, permission, query, body, if_match, one_transaction, own_account)
        method.operation = declared  # type: ignore[attr-defined]
        good = status or (204 if answer is None else 200)
        documented = extend_schema(
            operation_id=name,
            summary=summary,
            description=f"{about}\n\n{_needed(declared)}".strip(),
            parameters=[*([query] if query is not Query else []), *_header_parameters(changes, if_match)],
            request=(body if body is not NoBody else None) if changes else None,
            responses={
                **(answer if isinstance(answer, dict) else {good: _page_of(answer) if listed else answer}),
                **{(code, PROBLEM_TYPE): Problem for code in _possible(method, changes, if_match, absent)},
            },
        )
        return documented(method)

    return declare


def _needed(declared: Operation) -> str:
    if declared.permission is not None:
        return f"Needs the permission `{declared.permission.value}`."
    if declared.own_account:
        return "For people, by their browser or by a token with all of their permissions."
    return "For everyone who is authenticated."


def _possible(method: Callable[..., Any], changes: bool, if_match: bool, absent: bool) -> list[int]:
    code = method.__code__
    addressed = absent or code.co_argcount > 2  # self, request, and something that may be absent
    named_in_body = changes
    return sorted(
        {
            *_STATUSES,
            *(_STATUSES_OF_POST if changes else ()),
            *((404,) if addressed or named_in_body else ()),
            *((412,) if if_match else ()),
        }
    )


def _header_parameters(changes: bool, if_match: bool) -> list[OpenApiParameter]:
    found = []
    if changes:
        found.append(
            OpenApiParameter(
                "Idempotency-Key",
                {"type": "string", "minLength": 1, "maxLength": idempotency.LONGEST_KEY, "pattern": "^[!-~]+$"},
                OpenApiParameter.HEADER,
                required=True,
                description="A value of its own for each request; a repeat with the same one gets the same answer.",
            )
        )
    if if_match:
        found.append(
            OpenApiParameter(
                "If-Match",
                {"type": "string", "pattern": ETAG},
                OpenApiParameter.HEADER,
                required=True,
                description="The ETag of what you read. 412 when it has changed since.",
            )
        )
    return found


def _page_of(item: type[serializers.Serializer[Any]]) -> Any:
    return inline_serializer(
        f"{item.__name__}Page",
        {"items": item(many=True), "next": serializers.CharField(allow_null=True)},
    )
