"""A Python client generated from the schema, used against a running server as an engineer would use it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agents.models import Mission
from controlplane.tenancy.models import User
from frontend.api.schema import document
from tests.frontend.api.conftest import Api

PACKAGE = "remit_client_under_test"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ModuleType]]:
    """`generated("api.missions.missions_list")`: a module of the client."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "schema.json").write_text(json.dumps(document()))
    # The generator knows no archives; to it they are bytes.
    settings = {"content_type_overrides": {"application/zip": "application/octet-stream"}}
    (folder / "settings.json").write_text(json.dumps(settings))
    made = subprocess.run(
        [
            str(Path(sys.executable).with_name("openapi-python-client")),
            "generate",
            *("--path", str(folder / "schema.json"), "--output-path", str(folder / PACKAGE), "--meta", "none"),
            *("--config", str(folder / "settings.json")),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    # Whatever it can't make is named in a warning; that the formatter is not on the PATH does not matter.
    assert "parsing" not in made.stdout + made.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield lambda name: importlib.import_module(f"{PACKAGE}.{name}")


@pytest.fixture
def client(generated: Callable[[str], ModuleType], live_server: Any, alice_api: Api) -> Iterator[Any]:
    token = alice_api._headers["authorization"].removeprefix("Bearer ")
    with generated("client").AuthenticatedClient(base_url=live_server.url, token=token) as opened:
        yield opened


@pytest.mark.django_db(transaction=True)
def test_the_generated_client_reads_writes_repeats_and_understands_refusals(
    generated: Callable[[str], ModuleType], client: Any, mission: Mission, alice: User
) -> None:
    active = generated("models.missions_list_state").MissionsListState.ACTIVE
    listed = generated("api.missions.missions_list").sync(client=client, state=active)
    assert not hasattr(listed, "code"), listed
    assert [item.title for item in listed.items] == [mission.title]
    assert listed.items[0].owner.name == alice.name
    assert listed.next_ is None

    shown = generated("api.missions.missions_get").sync_detailed(client=client, mission_id=mission.pk)
    assert shown.parsed.remit.budget.amount == "5.000000000000"
    assert shown.headers["ETag"].removeprefix("W/").startswith('"1-')

    pause = generated("api.missions.missions_pause")
    reason = generated("models.reason_body").ReasonBody(reason="Quarter end")
    key = uuid.uuid4().hex
    for _ in range(2):
        paused = pause.sync(client=client, mission_id=mission.pk, body=reason, idempotency_key=key)
        assert paused.state == "paused"

    refused = pause.sync_detailed(client=client, mission_id=mission.pk, body=reason, idempotency_key=uuid.uuid4().hex)
    assert refused.status_code == 409
    assert json.loads(refused.content)["code"] == "mission.state"

    gone = generated("api.missions.missions_get").sync_detailed(client=client, mission_id=uuid.uuid4())
    assert gone.status_code == 404
