"""*Repository caretaker*: puts forgotten work of a shipped repository on a branch of its own, with the stock git
server."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from agents.catalogue.adapting import grants_of
from agents.catalogue.types import Field, Sample, ServerNeed, Template
from agents.choices import Importance, Runtime
from agents.samples.caretaker import mission
from agents.samples.caretaker.repository import GitUnavailable, build
from agents.servers.types import MountRequest, ToolTraits
from controlplane.common.clock import now
from controlplane.common.errors import RemitError

_READ = ToolTraits(read_only=True, reversible=True)


def make_repository(folder: Path) -> None:
    try:
        build(folder / "repository", today=now().date())
    except GitUnavailable as error:
        raise RemitError("template.git_missing", str(error), 409, remedies=("Install git on this machine.",)) from error


GIT = ServerNeed(
    slug="git",
    name="Git",
    environment="git",
    command=mission.server_arguments(),
    mounts=(MountRequest("missions/{mission}/repository", mission.REPOSITORY, writable=True),),
    traits={
        "git_status": _READ,
        "git_log": _READ,
        "git_show": _READ,
        "git_branch": _READ,
        "git_diff": _READ,
        "git_diff_unstaged": _READ,
        "git_diff_staged": _READ,
        "git_create_branch": ToolTraits(reversible=True),
        "git_checkout": ToolTraits(reversible=True),
        "git_add": ToolTraits(reversible=True),
        "git_commit": ToolTraits(reversible=True, effects=("code.commit",)),
        "git_reset": ToolTraits(effects=("code.discard",)),
    },
)

CARETAKER = Template(
    code="caretaker",
    name="Repository caretaker",
    sentence="Reads, branches and commits in a shipped repository. Resets and everything outside are refused.",
    usual_cost=Decimal("0.20"),
    icon="agent",
    runtime=Runtime.MANAGED,
    agent_name="Repository caretaker",
    program="caretaker",
    goal=mission.GOAL,
    criteria=tuple(item.text for item in mission.CRITERIA),
    grants=grants_of(mission.GRANTS),
    budget=Decimal(mission.BUDGET.amount),
    steps=mission.BUDGET.steps,
    tokens=mission.BUDGET.tokens,
    servers=(GIT,),
    capabilities=("git", "housekeeping of repositories"),
    wall_clock_seconds=mission.LIMITS.wall_clock_seconds,
    files=make_repository,
    variables={"REMIT_SAMPLE_REPOSITORY": mission.REPOSITORY},
    samples=(
        Sample("Read the status", "git__git_status", {"repo_path": mission.REPOSITORY}),
        Sample(
            "Create a branch", "git__git_create_branch", {"repo_path": mission.REPOSITORY, "branch_name": "care/stock"}
        ),
        Sample("Throw changes away", "git__git_reset", {"repo_path": mission.REPOSITORY}),
        Sample("Read another folder", "git__git_status", {"repo_path": "/etc"}),
    ),
    fields=(
        Field("title", "Title", "text", "Look after the depot repository", "How you will find it again"),
        Field("budget", "Budget", "money", mission.BUDGET.amount, "It can't spend more than this"),
        Field("hours", "Ends after", "hours", "8", "Hours from now"),
        Field("importance", "Importance", "choice", "normal", "", tuple(Importance.choices)),
    ),
)
