"""Which folders of this machine a run's server really gets: its own mission's, whatever its folders hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents.choices import Transport
from agents.servers.sandboxes import specification
from agents.servers.types import MountRequest, RunContext, ServerAddress
from controlplane.clusters.types import DriverError, Mount
from controlplane.common.ids import new_id

OWN = RunContext(run_id=new_id(), mission_id=new_id())


@pytest.fixture
def state(tmp_path: Path, settings: Any) -> Path:
    settings.CONFIG = settings.CONFIG.model_copy(update={"state_dir": tmp_path / "state"})
    folder = tmp_path / "state"
    (folder / "missions" / str(OWN.mission_id)).mkdir(parents=True)
    return folder


def mounted(mount: MountRequest) -> Mount:
    server = ServerAddress(new_id(), new_id(), "books", Transport.STDIO, command=("true",), mounts=(mount,))
    return next(found for found in specification(server, OWN, name="mcp-books").mounts if found.target == mount.target)


def test_a_server_gets_its_own_missions_folder_made_for_it(state: Path) -> None:
    found = mounted(MountRequest("missions/{mission}/book", "/data", writable=True))
    assert found == Mount(str(state / "missions" / str(OWN.mission_id) / "book"), "/data", writable=True)
    assert Path(found.source).is_dir()


@pytest.mark.parametrize("writable", [False, True])
def test_a_link_out_of_the_folder_is_refused_and_nothing_is_made_where_it_leads(state: Path, writable: bool) -> None:
    other = state / "missions" / str(new_id())
    other.mkdir()
    (state / "missions" / str(OWN.mission_id) / "away").symlink_to(other)
    with pytest.raises((DriverError, FileNotFoundError)):
        mounted(MountRequest("missions/{mission}/away/new", "/data", writable=writable))
    with pytest.raises(DriverError) as refused:
        mounted(MountRequest("missions/{mission}/away", "/data", writable=writable))
    assert refused.value.code == "mount.refused"
    assert list(other.iterdir()) == []


def test_what_every_organisation_shares_is_read_only(state: Path) -> None:
    (state / "data").mkdir()
    assert not mounted(MountRequest("data", "/data")).writable
    with pytest.raises(DriverError):
        mounted(MountRequest("data", "/data", writable=True))
