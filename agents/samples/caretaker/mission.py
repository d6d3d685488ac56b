"""The Repository caretaker's terms: goal, checklist, grants, budget and limits. Data for a template; no rules here."""

from __future__ import annotations

from collections.abc import Mapping

from agents.samples.terms import Budget, Constraint, Criterion, Grant, Limits

# Where the git server sees the repository in its sandbox; the grants name this path and no other.
REPOSITORY = "/data/repository"
BRANCH_PREFIX = "care/"

GOAL = (
    "Look after the depot repository: find work that was left uncommitted, put it on a branch of its own with an "
    "honest message, and leave main as it is."
)

CRITERIA = (
    Criterion("read", "Status, history and the uncommitted change were read"),
    Criterion("branch", f"The change is on a branch of its own, named {BRANCH_PREFIX}…"),
    Criterion("commit", "It is committed with a message that says what changed"),
    Criterion("report", "Whatever was refused is reported, not worked around"),
)


def grants(repository: str = REPOSITORY) -> tuple[Grant, ...]:
    """Reading, branching below `care/` and committing, in one repository. No reset, nothing outside."""
    here: Mapping[str, Constraint] = {"repo_path": {"equals": repository}}
    ours: Constraint = {"starts_with": BRANCH_PREFIX}
    return (
        Grant("git__git_status", constraints=here, sentence="See the repository's status"),
        Grant("git__git_log", constraints=here, sentence="Read its history"),
        Grant("git__git_branch", constraints=here, sentence="List its branches"),
        Grant("git__git_show", constraints={**here, "revision": {"max_length": 60}}, sentence="Look at a commit"),
        Grant("git__git_diff_unstaged", constraints=here, sentence="Read what is changed"),
        Grant("git__git_diff_staged", constraints=here, sentence="Read what is staged"),
        Grant(
            "git__git_create_branch",
            constraints={**here, "branch_name": ours},
            max_calls=5,
            sentence=f"Create branches named {BRANCH_PREFIX}…, at most 5",
        ),
        Grant(
            "git__git_checkout",
            constraints={**here, "branch_name": ours},
            sentence=f"Switch to branches named {BRANCH_PREFIX}…",
        ),
        Grant("git__git_add", constraints=here, sentence="Stage files"),
        Grant(
            "git__git_commit",
            constraints={**here, "message": {"max_length": 400}},
            max_calls=10,
            sentence="Commit what is staged, at most 10 times",
        ),
    )


def server_arguments(repository: str = REPOSITORY) -> tuple[str, ...]:
    """What follows the interpreter of the environment `git` to serve one repository and no other.

    git refuses a folder of another owner unless told that it is safe, and which owner a sandbox shows depends on how
    it isolates; only this one folder is named.
    """
    start = (
        "import os, sys; os.environ.update(GIT_CONFIG_COUNT='1', GIT_CONFIG_KEY_0='safe.directory', "
        "GIT_CONFIG_VALUE_0=sys.argv[-1]); import mcp_server_git; mcp_server_git.main()"
    )
    return ("-c", start, "--repository", repository)


GRANTS = grants()
BUDGET = Budget(amount="2.00", currency="USD", tokens=10_000, steps=80)
LIMITS = Limits(wall_clock_seconds=1800, same_call_same_result=3, calls_per_minute=240)
