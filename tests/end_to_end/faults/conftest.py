"""One installation that these tests share, with a diary and a hostile server; every fault heals before the next test."""

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

REGISTER = """
from agents.catalogue import demo
from agents.choices import Transport
from agents.servers import services as servers
from agents.servers.types import MountRequest
from controlplane.tenancy.models import Organisation
nadia = demo.principal_of(demo.NADIA, Organisation.objects.get(slug='northwind'))
faults = []
for slug, command in (('diary', ('/srv/diary.py',)), ('hostile', ('/srv/hostile.py', '2025-11-25', '/data/diary'))):
    server = servers.register_server(actor=nadia, name=slug, slug=slug, transport=Transport.STDIO, environment='books',
        command=command, mounts=(MountRequest('data/programs', '/srv'), MountRequest('missions/{mission}/diary', '/data', True)))
    faults.append(servers.refresh_tools(actor=nadia, server_id=server.pk).fault)
result = faults
"""

MISSIONS = """
import uuid
from datetime import timedelta
from decimal import Decimal
from agents import services
from agents.catalogue import demo
from agents.choices import Runtime
from agents.grants import Grant
from controlplane.common.clock import now
from controlplane.tenancy.models import Organisation, Team
organisation = Organisation.objects.get(slug='northwind')
nadia = demo.principal_of(demo.NADIA, organisation)
team = Team.objects.get(organisation=organisation, name=demo.TEAM)
grants = [Grant('diary__write'), *(Grant(f'hostile__{name}') for name in ('echo', 'hang', 'flood', 'die', 'garbage', 'wrong_id')),
          Grant('hostile__slow', effect='escalate')]
made = []
for number in range(COUNT):
    agent = services.register_agent(actor=nadia, team_id=team.pk, name='Diarist ' + uuid.uuid4().hex[:8], runtime=Runtime.EXTERNAL)
    mission = services.draft_mission(actor=nadia, agent_id=agent.pk, title='Keep a diary', remit=services.Remit(
        goal='Write every line once.', criteria=['Written'], grants=grants, budget_money=Decimal('3'), budget_steps=5000,
        deadline=now() + timedelta(hours=2)))
    services.submit_mission(actor=nadia, mission_id=mission.pk)
    made.append([str(mission.pk), services.issue_run_token(actor=nadia, mission_id=mission.pk)])
result = made
"""
ENOUGH_MISSIONS = 16


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """For everything of these tests; its path is short, as sockets lie in it."""
    if shutil.which("bwrap") is None:
        missing("bubblewrap is not installed", "REMIT_REQUIRE_SANDBOX")
    made = Path(tempfile.mkdtemp(prefix="remit-faults-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="session")
def shared(folder: Path) -> Iterator[Site]:
    environment("books", state_dir=folder)
    site = Site(folder)
    programs = site.state / "data" / "programs"
    programs.mkdir(mode=0o755, parents=True)
    (site.state / "environments").symlink_to(folder / "environments")
    shutil.copyfile(HERE / "diary.py", programs / "diary.py")
    shutil.copyfile(HOSTILE, programs / "hostile.py")
    try:
        site.start()
        assert site.run_code(REGISTER) == ["", ""]
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


@pytest.fixture(scope="session")
def _missions(shared: Site) -> Iterator[Mission]:
    return iter([Mission(*made) for made in shared.run_code(MISSIONS.replace("COUNT", str(ENOUGH_MISSIONS)))])


@pytest.fixture
def mission(_missions: Iterator[Mission]) -> Mission:
    """Active, with an external agent that may write lines and call the hostile server."""
    return next(_missions)


@pytest.fixture
def agent(site: Site, mission: Mission) -> Agent:
    return Agent(site, mission)
