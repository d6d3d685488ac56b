"""An error is a sentence with remedies for people, a toast for htmx, problem details for programs; never a trace."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import get_template

from controlplane.common.errors import FieldError, RemitError, conflict, forbidden, invalid, not_found
from frontend.middleware import ErrorPagesMiddleware

Requests = Callable[..., HttpRequest]


def _answer(request: HttpRequest, error: Exception) -> Any:
    return ErrorPagesMiddleware(lambda _: HttpResponse()).process_exception(request, error)


def _without_tokens(content: bytes) -> bytes:
    return re.sub(rb"[A-Za-z0-9]{64}", b"token", content)


def test_an_error_with_a_name_becomes_a_page_with_what_to_do_next(a_request: Requests) -> None:
    error = conflict("mission.already_stopped", "Someone stopped this mission 3 s ago.", "Look at who stopped it.")
    response = _answer(a_request("/missions/1/stop"), error)
    html = response.content.decode()
    assert response.status_code == 409
    for words in (
        "Someone stopped this mission 3 s ago.",
        "Look at who stopped it.",
        "mission.already_stopped",
        "Northwind",
    ):
        assert words in html
    assert response["Cache-Control"] == "no-store"


def test_wrong_fields_are_named(a_request: Requests) -> None:
    response = _answer(
        a_request(), invalid("mission.invalid", "Not yet.", FieldError("/grants/0/tool", "there is no such tool"))
    )
    assert response.status_code == 422
    assert "/grants/0/tool" in response.content.decode()


def test_htmx_gets_a_toast_that_says_where_it_belongs(a_request: Requests) -> None:
    response = _answer(a_request("/missions/1", **{"HX-Request": "true"}), forbidden("mission.write"))
    html = response.content.decode()
    assert response.status_code == 403
    assert (response["HX-Retarget"], response["HX-Reswap"]) == ("#toasts", "beforeend")
    assert html.startswith('<div class="toast deny"')
    assert "<html" not in html
    assert "mission.write" in html


def test_a_program_gets_problem_details(a_request: Requests) -> None:
    response = _answer(a_request("/api/v1/missions/1"), not_found("mission"))
    assert response["Content-Type"] == "application/problem+json"
    assert json.loads(response.content)["code"] == "mission.not_found"


def test_a_missing_page_and_a_forbidden_one_look_the_same_from_outside(a_request: Requests) -> None:
    absent = _answer(a_request("/missions/1"), Http404("no Mission matches the query"))
    other = _answer(a_request("/missions/1"), not_found("page"))
    assert absent.status_code == 404
    assert _without_tokens(absent.content) == _without_tokens(other.content)
    assert b"matches the query" not in absent.content


def test_a_refused_permission_says_who_can_help(a_request: Requests) -> None:
    response = _answer(a_request("/costs"), PermissionDenied())
    html = response.content.decode()
    assert response.status_code == 403
    assert "See what you may do" in html


def test_someone_not_signed_in_is_shown_the_way_in_and_back(a_request: Requests) -> None:
    html = _answer(a_request("/missions/1?tab=budget", principal=None), not_found("mission")).content.decode()
    assert "/accounts/login/?next=%2Fmissions%2F1%3Ftab%3Dbudget" in html


def test_an_error_that_may_pass_says_when(a_request: Requests) -> None:
    response = _answer(a_request(), RemitError("database.busy", "The database is busy.", 503, retry_after_seconds=5))
    assert response["Retry-After"] == "5"
    assert "Try again" in response.content.decode()


def test_an_error_without_a_name_is_left_to_django_which_logs_it(a_request: Requests) -> None:
    assert _answer(a_request(), ZeroDivisionError()) is None


def test_words_of_an_error_cannot_carry_markup(a_request: Requests) -> None:
    error = RemitError(
        "x.y", "<script>1</script>", remedies=("<script>2</script>",), errors=[FieldError("<script>", "<script>3")]
    )
    for headers in ({}, {"HX-Request": "true"}):
        assert b"<script>" not in _answer(a_request(**headers), error).content


@pytest.mark.parametrize("name", ["500.html", "403_csrf.html"])
def test_the_last_resorts_need_neither_request_nor_session(name: str) -> None:
    html = get_template(name).render({})
    assert "<h1>" in html
    assert "/static/remit/css/tokens.css" in html


@pytest.mark.parametrize(
    ("name", "words"), [("404.html", "nothing at this address"), ("403.html", "Not for your role")]
)
def test_djangos_own_error_pages_are_ours(a_request: Requests, name: str, words: str) -> None:
    assert words in get_template(name).render({"exception": "secret"}, a_request())
    assert "secret" not in get_template(name).render({"exception": "secret"}, a_request())


def test_a_sentence_with_a_command_sets_it_as_code(a_request: Requests) -> None:
    error = RemitError("x.y", "No.", remedies=("Make a new one with `manage.py signin --user <e-mail>`.",))
    html = _answer(a_request(), error).content.decode()
    assert "Make a new one with <code>manage.py signin --user &lt;e-mail&gt;</code>." in html
