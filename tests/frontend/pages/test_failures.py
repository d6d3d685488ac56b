"""What nobody foresaw: the page names the trace to quote, and leads back without sending a form's address by GET."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from controlplane.tenancy.models import User

SignIn = Callable[..., Client]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("frontend.views.missions.services.pause_mission", fail)
    monkeypatch.setattr("frontend.views.home.selectors.missions", fail)


def test_a_failed_page_names_its_trace_and_can_be_asked_again(
    world: Any, broken: None, alice: User, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    browser.raise_request_exception = False
    response = browser.get("/?from=mail")
    html = response.content.decode()
    assert response.status_code == 500
    reference = re.search(r"the reference <code>([0-9a-f]{32})</code>", html)
    assert reference is not None
    assert response["X-Trace-Id"] == reference[1]
    assert 'href="/?from=mail"' in html


def test_a_failed_form_leads_back_to_its_page_and_never_to_its_own_address(
    world: Any, broken: None, alice: User, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    browser.raise_request_exception = False
    path = reverse("mission-operate", args=[world.mission.pk, "pause"])
    page = reverse("mission", args=[world.mission.pk])
    html = browser.post(path, headers={"host": "testserver", "referer": f"http://testserver{page}"}).content.decode()
    assert f'href="{page}"' in html
    assert path not in html
    assert "Try again" not in html
    html = browser.post(path, headers={"host": "testserver", "referer": "https://elsewhere.example/x"}).content.decode()
    assert "elsewhere" not in html
    assert "Try again" not in html
