"""People signed in, and what a page costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from controlplane.tenancy.models import User

from .remit_page import Page, SignIn


@pytest.fixture(autouse=True)
def _plain_static_names(settings: Any) -> None:
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture(autouse=True)
def _fresh_caches(rules: None) -> None:
    """The frame keeps warnings, governance its bundle."""


@pytest.fixture
def signed_in() -> Callable[..., Client]:
    """A browser without script, with the person's session."""

    def sign_in(user: User | None, *, enforce_csrf: bool = False) -> Client:
        client = Client(enforce_csrf_checks=enforce_csrf)
        if user is not None:
            client.force_login(user, backend="allauth.account.auth_backends.AuthenticationBackend")
        return client

    return sign_in


@pytest.fixture
def queries() -> Callable[..., int]:
    """How many statements one GET costs, after one that filled the caches."""
    from django.test.utils import CaptureQueriesContext

    def count(client: Client, path: str) -> int:
        assert client.get(path).status_code == 200
        with CaptureQueriesContext(connection) as captured:
            assert client.get(path).status_code == 200
        return len([query for query in captured.captured_queries if "SAVEPOINT" not in query["sql"]])

    return count


@pytest.fixture
def opened(world: Any, alice: User, signed_in: SignIn) -> Page:
    return Page(signed_in(alice), world.mission).open()
