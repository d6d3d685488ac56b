"""Every operation × everybody: what is expected is worked out from the permission map, not written down."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from agents.models import Mission
from controlplane.audit.models import Entry
from controlplane.tenancy.models import Membership, Organisation, Team, Token, TokenKind, User
from controlplane.tenancy.types import AGENT_PERMISSIONS, ROLE_PERMISSIONS, Permission, Role
from frontend.api.operations import Operation
from frontend.api.urls import documented
from tests.frontend.api.conftest import Api

_NOWHERE = "0190a000-0000-7000-8000-000000000000"


def _operations() -> list[tuple[str, str, Operation]]:
    """(method, path with an id of nothing, what the view declares)."""
    found = []
    for route in documented:
        view = route.callback.view_class  # type: ignore[union-attr]
        path = (
            re.sub(r"<uuid:\w+>", _NOWHERE, str(route.pattern))
            .replace("<int:session_id>", "4711")
            .replace("<slug:code>", "nothing")
            .replace("<str:goal>", "nothing")
        )
        for method in ("get", "post"):
            handler = getattr(view, method, None)
            if handler is not None and method in view.http_method_names:
                found.append((method.upper(), path.removeprefix("api/v1/"), handler.operation))
    return found


OPERATIONS = _operations()
NAMES = [operation.name for _, _, operation in OPERATIONS]
everything = pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)


def _ask(api: Api, method: str, path: str) -> Any:
    if method == "GET":
        return api.get(path)
    return api.post(path, {}, if_match='"1-0"')


def test_every_address_is_in_the_matrix_and_every_operation_has_its_own_name() -> None:
    assert len(OPERATIONS) >= len(documented)
    assert len(set(NAMES)) == len(NAMES)


@everything
def test_nobody_reaches_nothing(anonymous: Api, db: None, method: str, path: str, operation: Operation) -> None:
    assert _ask(anonymous, method, path).status_code == 401


@everything
def test_a_revoked_token_reaches_nothing(alice_api: Api, method: str, path: str, operation: Operation) -> None:
    from controlplane.common.clock import now

    Token.objects.update(revoked_at=now())
    answer = _ask(alice_api, method, path)
    assert (answer.status_code, answer.json()["code"]) == (401, "token.revoked")


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
def test_a_role_reaches_what_its_permissions_say(
    api_of: Callable[..., Api], make_person: Callable[..., User], northwind: Organisation, role: Role
) -> None:
    api = api_of(make_person("Robin", northwind, role))
    for method, path, operation in OPERATIONS:
        answer = _ask(api, method, path)
        allowed = operation.permission is None or operation.permission in ROLE_PERMISSIONS[role]
        _agrees(answer, operation, allowed=allowed)
    assert not Entry.objects.exists()


def test_an_agent_reaches_what_agents_may(agent_token: str, run_token: str) -> None:
    for token in (agent_token, run_token):
        for method, path, operation in OPERATIONS:
            answer = _ask(Api(token), method, path)
            _agrees(
                answer, operation, allowed=operation.permission is None or operation.permission in AGENT_PERMISSIONS
            )


def test_a_scope_narrows_what_a_person_may(api_of: Callable[..., Api], nadia: User) -> None:
    api = api_of(nadia, scopes={Permission.MISSION_VIEW})
    for method, path, operation in OPERATIONS:
        answer = _ask(api, method, path)
        if operation.own_account:
            assert (answer.status_code, answer.json()["code"]) == (403, "token.narrowed"), operation.name
        else:
            _agrees(answer, operation, allowed=operation.permission in (None, Permission.MISSION_VIEW))


def test_a_service_reads_and_changes_nothing(issue_token: Callable[..., str], northwind: Organisation) -> None:
    api = Api(issue_token(TokenKind.SERVICE))
    for method, path, operation in OPERATIONS:
        answer = _ask(api, method, path)
        reads = method == "GET" or operation.name == "audit_entries_verify"
        assert reads or not 200 <= answer.status_code < 300, operation.name
    assert not Entry.objects.exists()


def _agrees(answer: Any, operation: Operation, *, allowed: bool) -> None:
    """403 exactly where the permission is missing; else an id of nothing is 404 and a body is read."""
    if allowed:
        assert answer.status_code in (200, 202, 404, 422, 409), (operation.name, answer.status_code, answer.content)
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, "permission.denied"), operation.name
        assert operation.permission is not None
        assert operation.permission.value in answer.json()["detail"]


def test_a_role_in_one_team_does_not_reach_another_team(
    api_of: Callable[..., Api],
    make_person: Callable[..., User],
    northwind: Organisation,
    other_team: Team,
    mission: Mission,
) -> None:
    api = api_of(make_person("Robin", northwind, Role.BUILDER, team=other_team))
    assert api.get("missions").json()["items"] == []
    assert api.get(f"missions/{mission.pk}").status_code == 404
    assert api.post(f"missions/{mission.pk}:stop").status_code == 404


def test_who_may_see_but_not_do_learns_which_permission_is_missing(
    api_of: Callable[..., Api], finn: User, mission: Mission
) -> None:
    answer = api_of(finn).post(f"missions/{mission.pk}:stop")
    assert (answer.status_code, answer.json()["code"]) == (403, "permission.denied")
    mission.refresh_from_db()
    assert mission.state == "active"


def test_a_token_of_a_person_who_left_reaches_nothing(alice_api: Api, alice: User) -> None:
    Membership.objects.filter(user=alice).delete()
    assert alice_api.get("missions").json()["code"] == "token.owner_gone"


def test_a_run_sees_its_own_mission_only(
    run_token: str, mission: Mission, make_mission: Callable[..., Mission]
) -> None:
    other = make_mission("Another")
    api = Api(run_token)
    assert [item["id"] for item in api.get("missions").json()["items"]] == [str(mission.pk)]
    assert api.get(f"missions/{other.pk}").status_code == 404
    assert api.get(f"missions/{uuid.uuid4()}").status_code == 404


@pytest.mark.parametrize(
    ("path", "operation"),
    [(path, operation) for method, path, operation in OPERATIONS if method == "POST"],
    ids=[operation.name for method, _, operation in OPERATIONS if method == "POST"],
)
def test_mass_assignment_a_field_that_is_not_of_the_request_is_refused_by_name(
    nadia_api: Api, path: str, operation: Operation
) -> None:
    hostile = {"organisation_id": _NOWHERE, "owner_id": _NOWHERE, "is_superuser": True, "created_by": _NOWHERE}
    answer = nadia_api.post(path, hostile, if_match='"1-0"')
    assert answer.status_code == 422
    assert {f"/{name}" for name in hostile} <= {error["pointer"] for error in answer.json()["errors"]}
    assert not Entry.objects.exists()
