"""A client of the REST interface as programs are: bearer tokens, JSON, an idempotency key of its own for each POST. It
minds that every answer is one that the schema says."""

from __future__ import annotations

import functools
import json
import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from controlplane.common import rate_limits
from controlplane.common.clock import now
from controlplane.tenancy import tokens
from controlplane.tenancy.models import Membership, TokenKind, User
from frontend.api.schema import document


class Api:
    """Requests of one bearer, or of nobody."""

    def __init__(self, token: str | None = None) -> None:
        self._client = Client()
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, **headers: str) -> Any:
        answer = self._client.get(f"/api/v1/{path}", headers={**self._headers, **_named(headers)})
        return _documented("get", path, answer)

    def post(self, path: str, body: Any = None, *, key: str | None = "", **headers: str) -> Any:
        named = _named(headers)
        if key is not None:
            named["idempotency-key"] = key or uuid.uuid4().hex
        answer = self._client.post(
            f"/api/v1/{path}",
            data=json.dumps(body if body is not None else {}),
            content_type="application/json",
            headers={**self._headers, **named},
        )
        return _documented("post", path, answer)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        headers = {**self._headers, **options.pop("headers", {})}
        return self._client.generic(method, f"/api/v1/{path}", headers=headers, **options)


@functools.cache
def _described() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """Addresses of the schema, with what each method of them may answer."""
    return [
        (re.compile(re.sub(r"\\\{\w+\\\}", "[^/:]+", re.escape(path))), methods)
        for path, methods in document()["paths"].items()
    ]


def _documented(method: str, path: str, answer: Any) -> Any:
    address = "/api/v1/" + path.partition("?")[0]
    known = [methods for pattern, methods in _described() if pattern.fullmatch(address)]
    assert known or answer.status_code == 404, f"{method} {path}: not an address of the schema"
    for methods in known:
        if method in methods and answer.status_code != 304:
            assert str(answer.status_code) in methods[method]["responses"], f"{method} {path}: {answer.status_code}"
    return answer


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture(autouse=True)
def _fresh_rate_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test counts from nothing."""
    monkeypatch.setattr(rate_limits, "_LIMITERS", {})


@pytest.fixture
def api_of(db: None) -> Callable[..., Api]:
    """`api_of(alice)`: with a personal token of hers, in her first organisation."""

    def of(user: User, **fields: Any) -> Api:
        organisation_id = Membership.objects.filter(user=user).values_list("organisation_id", flat=True)[0]
        _, text = tokens.issue(
            kind=TokenKind.PERSON,
            organisation_id=organisation_id,
            name="Test",
            user_id=user.pk,
            expires_at=now() + timedelta(hours=1),
            **fields,
        )
        return Api(text)

    return of


@pytest.fixture
def anonymous() -> Api:
    return Api()


@pytest.fixture
def alice_api(api_of: Callable[..., Api], alice: User) -> Api:
    return api_of(alice)


@pytest.fixture
def nadia_api(api_of: Callable[..., Api], nadia: User) -> Api:
    return api_of(nadia)


@pytest.fixture
def charlie_api(api_of: Callable[..., Api], charlie: User) -> Api:
    return api_of(charlie)
