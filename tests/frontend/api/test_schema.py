"""The schema against the views: whatever is sent, no answer is undocumented and none is a server error."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import requests
import schemathesis
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    ensure_resource_availability,
    ignored_auth,
    missing_required_header,
    positive_data_acceptance,
    unsupported_method,
    use_after_free,
)

from agents.models import Agent, AgentVersion, McpServer, McpTool, Mission, Run
from controlplane.tenancy.models import User
from frontend.api.schema import _as_json, document
from tests.frontend.api.conftest import Api

_NOT_DJANGO = "/api/v1/actions"
_EXAMPLES = {GenerationMode.POSITIVE: 3, GenerationMode.NEGATIVE: 2}
_QUIET = [
    HealthCheck.function_scoped_fixture,
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
]


def _operations() -> list[tuple[str, str]]:
    return [
        (method, path)
        for path, methods in document()["paths"].items()
        for method in methods
        if not path.startswith(_NOT_DJANGO)
    ]


# These send requests of their own; the matrix of `test_access.py` and `test_requests.py` say the same and more.
_ELSEWHERE = [ignored_auth, unsupported_method, missing_required_header, use_after_free, ensure_resource_availability]
# What fits the schema can still be refused by a rule: a goal, a date, a name that is taken.
_RULES = [positive_data_acceptance]


@pytest.fixture(scope="module")
def described() -> Any:
    return schemathesis.openapi.from_dict(document())


def _ask(case: Any, headers: dict[str, str]) -> Response:
    """The request by Django's own client, which shares the test's transaction."""
    given = case.as_transport_kwargs(base_url="http://testserver", headers=headers)
    prepared = requests.Request(
        given["method"],
        given["url"],
        headers=given["headers"],
        params=given.get("params"),
        data=given.get("data"),
        json=given.get("json"),
    ).prepare()
    path = prepared.path_url
    body = prepared.body if prepared.body is not None else b""
    # Asked for as it is: nobody unpacks a compressed answer between this client and the check.
    left_out = ("content-length", "accept-encoding")
    sent = {name: str(value) for name, value in prepared.headers.items() if name.lower() not in left_out}
    kind = sent.pop("Content-Type", "application/json")
    answer = Client().generic(given["method"], path, data=body, content_type=kind, headers=sent)
    return Response(
        status_code=answer.status_code,
        headers={name: [value] for name, value in answer.headers.items()},
        content=answer.content,
        request=prepared,
        elapsed=0.001,
        verify=False,
    )


@pytest.fixture
def real_ids(mission: Mission, run: Run, agent: Agent, nadia: User) -> dict[str, str]:
    server = McpServer.objects.create(
        organisation_id=agent.organisation_id, name="Books", slug="books", transport="http", created_by=nadia
    )
    tool = McpTool.objects.create(
        server=server,
        name="read",
        qualified_name="books__read",
        definition={"name": "read"},
        definition_sha256="sha256:1",
    )
    version = AgentVersion.objects.get(agent=agent)
    found = {
        "mission_id": mission.pk,
        "run_id": run.pk,
        "agent_id": agent.pk,
        "version_id": version.pk,
        "server_id": server.pk,
        "tool_id": tool.pk,
    }
    return {**{name: str(value) for name, value in found.items()}, "code": "receivables"}


@pytest.mark.parametrize(("method", "path"), _operations(), ids=lambda value: str(value))
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
def test_no_request_meets_a_server_error_or_an_undocumented_answer(
    described: Any, api_of: Callable[..., Api], nadia: User, real_ids: dict[str, str], method: str, path: str, mode: Any
) -> None:
    operation = described[path][method.upper()]
    headers = dict(api_of(nadia)._headers)

    @settings(
        max_examples=_EXAMPLES[mode],
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=_QUIET,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        for name in list(case.path_parameters or {}):
            if mode is GenerationMode.POSITIVE and name in real_ids:
                case.path_parameters[name] = real_ids[name]
        if method == "post" and mode is GenerationMode.POSITIVE:
            case.headers["Idempotency-Key"] = uuid.uuid4().hex
        case.validate_response(_ask(case, headers), excluded_checks=_ELSEWHERE + _RULES)

    check()


def test_the_schema_is_made_without_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    _as_json.__wrapped__()
    assert capsys.readouterr().err == ""


def test_the_schema_is_openapi_3_1_and_names_every_operation_once(client: Client) -> None:
    answer = client.get("/api/v1/schema")
    assert answer.status_code == 200
    schema = answer.json()
    assert schema["openapi"].startswith("3.1")
    names = [item["operationId"] for methods in schema["paths"].values() for item in methods.values()]
    assert len(names) == len(set(names))
