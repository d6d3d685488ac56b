"""What every operation of this interface has in common: who may call it, what it reads, how it answers."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final, TypeAlias, TypeVar, cast

from django.db import models
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.common.cursors import page
from controlplane.common.errors import FieldError, RemitError, forbidden, invalid
from controlplane.common.http import PROBLEM_TYPE, problem_headers
from controlplane.common.observability import trace_id
from controlplane.common.rate_limits import limiter
from controlplane.idempotency import services as idempotency
from controlplane.tenancy.credentials import narrowed
from controlplane.tenancy.types import Permission, Principal
from frontend.api import problems
from frontend.api.declaring import ETAG, Operation, Problem, operation
from frontend.api.fields import Body, Query

M = TypeVar("M", bound=models.Model)
# How rows become items: a serializer for each, or a function of all of them.
Shape: TypeAlias = type[serializers.Serializer[Any]] | Callable[[Sequence[Any]], list[Any]]

_KEPT_HEADERS: Final = ("ETag", "Location", "Content-Type")


class Resource(APIView):
    """A view of this interface. Methods are declared with `@operation` and find `principal`, `query` and `body`."""

    tag: ClassVar[str] = ""
    principal: Principal
    query: Mapping[str, Any]
    body: Mapping[str, Any]
    expected: str = ""  # the version that If-Match names

    def __init_subclass__(cls, **options: Any) -> None:
        """Every POST is made once per key; nobody can forget it."""
        super().__init_subclass__(**options)
        if "post" in vars(cls):
            cls.post = _made_once(vars(cls)["post"])  # type: ignore[attr-defined]
        for method in ("get", "post"):
            if method in vars(cls):
                setattr(cls, method, extend_schema(tags=[cls.tag])(vars(cls)[method]))

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if request.method == "OPTIONS":
            return
        _ = request._request.body  # before anything else reads the stream: it is hashed as it was sent
        super().initial(request, *args, **kwargs)
        if not isinstance(request.auth, Principal):
            raise RemitError(
                "token.missing",
                "Send a token as “Authorization: Bearer rmt_…”, or sign in.",
                401,
                remedies=("Make a token on your tokens page.",),
            )
        self.principal = request.auth
        self._count(self.principal)
        chosen = self._chosen(request)
        if chosen is None:
            return  # DRF answers 405
        if chosen.permission is not None and not self.principal.has_anywhere(chosen.permission):
            raise forbidden(chosen.permission.value)
        if chosen.own_account and self.principal.is_narrowed:
            raise narrowed()
        self.query = _read_query(chosen.query, request)
        if request.method == "POST":
            self.body = _read_body(chosen.body, request)
        if chosen.if_match:
            self.expected = _version_of(request.headers.get("If-Match"))

    def options(self, request: Any, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        return Response(status=204)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Response:
        final = super().finalize_response(request, response, *args, **kwargs)
        final["Cache-Control"] = "no-store"
        for name, value in getattr(self, "_allowance_headers", {}).items():
            final[name] = value
        return final

    # What methods answer with ------------------------------------------------------------------------------------

    def page(self, rows: models.QuerySet[M], shape: Shape) -> Response:
        """One page of a permission queryset, newest first."""
        found = page(rows, cursor=self.query.get("cursor"), limit=self.query["limit"])
        return Response({"items": _shaped(shape, found.items), "next": found.older})

    def whole(self, rows: Iterable[Any], shape: Shape | None = None) -> Response:
        """A list that is never long, on one page. Without a shape the rows are items already."""
        items = list(rows)
        return Response({"items": _shaped(shape, items) if shape else items, "next": None})

    def item(self, data: Any, *, version: object, status: int = 200, location: str = "") -> HttpResponseBase:
        """One object with its ETag: its version for `If-Match`, then a digest of all that is shown. `location`: where
        it is read, told when it was made just now (201)."""
        text = JSONRenderer().render(data)
        tag = f'"{version}-{hashlib.sha256(text).hexdigest()[:16]}"'
        if self.request.method == "GET" and tag in _tags(self.request.headers.get("If-None-Match")):
            return HttpResponse(status=304, headers={"ETag": tag})
        headers = {"ETag": tag, **({"Location": location} if location and status == 201 else {})}
        return HttpResponse(text, status=status, content_type="application/json", headers=headers)

    def must_match(self, version: object) -> None:
        """Raises 412 unless `If-Match` names this version."""
        if self.expected != str(version):
            raise changed_meanwhile()

    def require(self, permission: Permission, team_id: uuid.UUID | None) -> None:
        """For what the principal may see: 403 unless they hold the permission there."""
        self.principal.require(permission, team_id=team_id)

    # Below ---------------------------------------------------------------------------------------------------------

    def _chosen(self, request: Request) -> Operation | None:
        method = "get" if request.method == "HEAD" else (request.method or "").lower()
        handler = getattr(self, method, None)
        return getattr(handler, "operation", None)

    def _count(self, principal: Principal) -> None:
        allowance = limiter("api").count(str(principal.token_id or principal.id))
        self._allowance_headers = allowance.headers
        error = allowance.error()
        if error is not None:
            raise error


def _shaped(shape: Shape, rows: Sequence[Any]) -> list[Any]:
    return list(shape(rows, many=True).data) if isinstance(shape, type) else shape(rows)


def changed_meanwhile() -> RemitError:
    return RemitError(
        "precondition.failed",
        "It has changed since you read it. Nothing was done.",
        412,
        remedies=("Read it again, then decide with the new ETag.",),
    )


@contextmanager
def stale_is_412(code: str) -> Iterator[None]:
    """The service's refusal of a version that has passed, as the precondition of the request that failed."""
    try:
        yield
    except RemitError as error:
        if error.code == code:
            raise changed_meanwhile() from error
        raise


def digest_of(*facts: object) -> str:
    """A version for what has no number: of everything that a writer could overwrite."""
    return hashlib.sha256(json.dumps([str(fact) for fact in facts]).encode()).hexdigest()[:16]


def _made_once(post: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(post)
    def once(self: Resource, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        declared: Operation = post.operation  # type: ignore[attr-defined]
        answer = idempotency.once(
            request=idempotency.Request(
                organisation_id=self.principal.organisation_id,
                requester_id=self.principal.id,
                key=_key_of(request.headers.get("Idempotency-Key")),
                sha256=_request_digest(request, self.principal),
            ),
            work=lambda: _kept(post(self, request, *args, **kwargs)),
            refused=_refusal,
            one_transaction=declared.one_transaction,
        )
        headers = {**answer.headers, **({"Idempotency-Replayed": "true"} if answer.replayed else {})}
        return HttpResponse(answer.body, status=answer.status, headers=headers)

    return once


def _kept(response: Any) -> idempotency.Answer:
    """A DRF or Django response as what is stored of it; a method that returns nothing has nothing to show."""
    if response is None:
        return idempotency.Answer(204, b"", {})
    if isinstance(response, Response):
        body = b"" if response.data is None else JSONRenderer().render(response.data)
        response["Content-Type"] = "application/json"
    else:
        body = response.content
    headers = {name: response[name] for name in _KEPT_HEADERS if response.has_header(name)}
    return idempotency.Answer(response.status_code, body, headers)


def _refusal(error: RemitError) -> idempotency.Answer:
    body = json.dumps(error.problem(trace_id=trace_id())).encode()
    return idempotency.Answer(error.status, body, {"Content-Type": PROBLEM_TYPE, **problem_headers(error)})


def _key_of(text: str | None) -> str:
    if not text:
        raise RemitError(
            "idempotency.key_missing",
            "A POST needs an Idempotency-Key, so that repeating it is safe.",
            428,
            remedies=("Send a header “Idempotency-Key” with a value of its own for each request.",),
        )
    if len(text) > idempotency.LONGEST_KEY or not all("!" <= character <= "~" for character in text):
        allowed = f"1 to {idempotency.LONGEST_KEY} visible ASCII characters"
        raise invalid(
            "idempotency.key_malformed",
            f"The Idempotency-Key has {allowed}.",
            FieldError("/idempotency_key", allowed),
        )
    return text


def _request_digest(request: Request, principal: Principal) -> str:
    """Of what was sent, and by what: an answer, which may hold a secret, is not read again with a token that may less
    than the one that got it."""
    may = ["*"] if principal.scopes is None else sorted(principal.scopes)  # no scopes at all is not every scope
    parts = (request.method or "", request.get_full_path(), request.headers.get("If-Match", ""), *may)
    return hashlib.sha256("\n".join(parts).encode() + b"\n" + request._request.body).hexdigest()


def _version_of(header: str | None) -> str:
    """The version in an ETag of ours."""
    if not header:
        raise RemitError(
            "precondition.missing",
            "This could overwrite what somebody else did meanwhile, so it needs If-Match.",
            428,
            remedies=("Read the object, then send its ETag back as If-Match.",),
        )
    if not re.match(ETAG, header.strip()):
        problem = FieldError("/if_match", "one ETag as it was read, with its quotes")
        raise invalid("precondition.malformed", "That is not an ETag of this interface.", problem)
    return header.strip().removeprefix("W/")[1:-1].rpartition("-")[0]


def _tags(header: str | None) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in (header or "").split(",")]


def _read_query(form: type[Query], request: Request) -> Mapping[str, Any]:
    """Strictly: a parameter that is misspelt or given twice must not quietly show something else."""
    serializer = form(data={name: values[0] for name, values in request.query_params.lists()})
    given = dict(request.query_params.lists())
    wrong = [FieldError(f"/{name[:40]}", "not known here") for name in given if name not in serializer.fields]
    wrong += [FieldError(f"/{name[:40]}", "given twice") for name, values in given.items() if len(values) > 1]
    if wrong:
        known = ", ".join(sorted(serializer.fields)) or "none"
        raise invalid("query.unknown", f"Parameters known here, once each: {known}.", *wrong)
    if not serializer.is_valid():
        raise invalid("query.invalid", "Some parameters can't be used.", *problems.fields(serializer.errors))
    return cast(Mapping[str, Any], serializer.validated_data)


def _read_body(form: type[Body], request: Request) -> Mapping[str, Any]:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RemitError("body.compressed", "Compressed bodies are not read.", 415, remedies=("Send it uncompressed.",))
    data = request.data if request._request.body else {}
    serializer = form(data=data)
    if not serializer.is_valid():
        wrong = problems.fields(serializer.errors)
        raise invalid("request.invalid", "Some fields can't be used as they are.", *wrong)
    return cast(Mapping[str, Any], serializer.validated_data)


__all__ = ["Operation", "Problem", "Resource", "digest_of", "operation", "stale_is_412"]
