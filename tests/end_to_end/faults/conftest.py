"""One installation that these tests share, with a diary and a hostile server; each test finds it whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.servers.environments import environment
from tests.end_to_end.conftest import missing
from tests.end_to_end.faults.site import Agent, Mission, Site

HERE = Path(__file__).parent
HOSTILE = HERE.parents[1] / "agents" / "servers" / "hostile_stdio.py"

ENOUGH_MISSIONS = 24


@pytest.fixture(scope="package")
def folder() -> Iterator[Path]:
    """For everything of these tests; its path is short, as sockets lie in it."""
    if shutil.which("bwrap") is None:
        missing("bubblewrap is not installed", "REMIT_REQUIRE_SANDBOX")
    made = Path(tempfile.mkdtemp(prefix="remit-faults-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def set_up(site: Site, environments: Path) -> None:
    """Started, and both servers registered. `environments` is built once and lent to every installation."""
    environment("books", state_dir=environments.parent)
    programs = site.state / "data" / "programs"
    programs.mkdir(mode=0o755, parents=True)
    (site.state / "environments").symlink_to(environments)
    shutil.copyfile(HERE / "diary.py", programs / "diary.py")
    shutil.copyfile(HOSTILE, programs / "hostile.py")
    site.start()
    assert site.do("register_servers") == ["", ""]


@pytest.fixture(scope="package")
def shared(folder: Path) -> Iterator[Site]:
    site = Site(folder)
    try:
        set_up(site, folder / "environments")
        yield site
    finally:
        site.stop()


@pytest.fixture
def site(shared: Site) -> Iterator[Site]:
    """Whole before the test, and afterwards: the sums hold whatever was done to it."""
    shared.wait_recovered()
    yield shared
    shared.wait_recovered()
    shared.check_sums()


@pytest.fixture(scope="package")
def _missions(shared: Site) -> Iterator[Mission]:
    return iter([Mission(*made) for made in shared.do("make_missions", ENOUGH_MISSIONS)])


@pytest.fixture
def mission(_missions: Iterator[Mission]) -> Mission:
    """Active, with an external agent that may write lines and call the hostile server."""
    return next(_missions)


@pytest.fixture
def agent(site: Site, mission: Mission) -> Agent:
    return Agent(site, mission)
