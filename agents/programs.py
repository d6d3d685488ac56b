"""What a managed agent's version runs: a shipped program by name, or a command of one's own, with what it must see
mounted."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings

from agents.models import AgentVersion, Mission, Run
from agents.samples.terms import PROGRAMS
from agents.servers.environments import BeingInstalled, environment
from controlplane.clusters.runtime_mounts import python_runtime_mounts
from controlplane.clusters.services import Launch
from controlplane.clusters.types import LAUNCH_WAITS, DriverError, Mount

GATEWAY = "http://127.0.0.1:8020"
_SAMPLES = "/remit/samples"


def install(version: AgentVersion) -> None:
    """Whatever this machine lacks of its program. Raises DriverError `launch.waits` while somebody else installs it."""
    if not version.program:
        return
    try:
        environment("agent", waits=False)
    except BeingInstalled as error:
        raise DriverError("Its program is being installed.", code=LAUNCH_WAITS) from error


def launch(*, version: AgentVersion, mission: Mission, run: Run, secrets: Mapping[str, str]) -> Launch:
    """The process of one run, whose program is installed."""
    env = {
        "REMIT_URL": GATEWAY,
        "REMIT_MCP_URL": f"{GATEWAY}/mcp",
        "REMIT_MISSION": str(mission.pk),
        "REMIT_RUN": str(run.pk),
        "HOME": "/workspace",
        "PYTHONUNBUFFERED": "1",
        **({"REMIT_SAMPLE_PACE": settings.CONFIG.sample_pace} if settings.CONFIG.sample_pace else {}),
        **{key: str(value) for key, value in mission.settings.get("variables", {}).items()},
    }
    if not version.program:
        return Launch(command=version.command, env=env, mounts=[], secrets=secrets)
    python = environment("agent")
    return Launch(
        command=[*python.command(), _SAMPLES, version.program],
        env=env,
        mounts=[*python_runtime_mounts(python.path), Mount(str(PROGRAMS), _SAMPLES)],
        secrets=secrets,
    )
