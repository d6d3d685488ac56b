"""Who may open a socket: a session from a page of ours, or a token, and nobody else."""

from __future__ import annotations

import pytest
from django.conf import settings
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

pytestmark = pytest.mark.django_db(transaction=True)


def test_nobody_gets_in_without_a_session_or_token(open_page, address) -> None:
    for attempt in (
        lambda: open_page(),
        lambda: open_page(cookie=f"{settings.SESSION_COOKIE_NAME}=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        lambda: open_page(cookie=f"{settings.SESSION_COOKIE_NAME}=" + "x" * 3000),
        lambda: open_page(token="rmt_run_" + "A" * 43 + "_00000000"),
        lambda: open_page(token="nonsense"),
    ):
        with pytest.raises(InvalidStatus) as refused:
            attempt()
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        "https://127.0.0.1",
        "http://127.0.0.1.evil.example",
        "file://",
    ],
)
def test_a_page_of_another_site_cannot_use_the_cookie(origin, address, alice, sign_in) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(address.live, origin=origin, additional_headers={"Cookie": sign_in(alice)})
    assert refused.value.response.status_code == 403


def test_a_cookie_without_an_origin_is_refused_and_a_token_from_another_site_too(
    address, alice, sign_in, run_token
) -> None:
    with pytest.raises(InvalidStatus):
        connect(address.live, additional_headers={"Cookie": sign_in(alice)})
    with pytest.raises(InvalidStatus):
        connect(address.live, origin="http://evil.example", additional_headers={"Authorization": f"Bearer {run_token}"})


def test_the_public_address_is_an_origin_of_ours(address, alice, sign_in) -> None:
    with connect(address.live, origin=settings.CONFIG.public_url, additional_headers={"Cookie": sign_in(alice)}):
        pass


def test_a_rebound_host_name_is_refused(address, alice, sign_in) -> None:
    headers = {"Cookie": sign_in(alice), "Host": "evil.example"}
    with pytest.raises(InvalidStatus):
        connect(address.live, origin="http://evil.example", additional_headers=headers)


def test_other_websocket_paths_are_refused(address, alice, sign_in) -> None:
    for path in ("/", "/mcp", "/api/v1/actions", "/live/../x"):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://{address}{path}", origin=address.origin, additional_headers={"Cookie": sign_in(alice)})
        assert refused.value.response.status_code == 403
