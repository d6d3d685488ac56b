"""How a browser without script reads Remit's pages and sends its forms."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

from django.test import Client
from django.urls import reverse

SignIn = Callable[..., Client]


def page(browser: Client, path: str, status: int = 200, **query: str) -> str:
    response = browser.get(path, query)
    assert response.status_code == status, (path, response.status_code)
    return str(response.content.decode())


def send(browser: Client, address: str, /, *arguments: Any, status: int = 302, **body: Any) -> str:
    response = browser.post(reverse(address, args=arguments), body)
    assert response.status_code == status, (address, response.status_code, response.content.decode()[:2000])
    return str(response.content.decode())


def rows_of(browser: Client, path: str) -> list[list[str]]:
    response: Any = browser.get(path)
    assert response["Content-Type"].startswith("text/csv")
    return list(csv.reader(io.StringIO(b"".join(response).decode())))
