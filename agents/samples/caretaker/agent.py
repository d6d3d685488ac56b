"""The Repository caretaker: puts uncommitted work on a branch of its own, through the stock git server.

It needs no language model. Twice it wants more than it may, so that people see the gate say no: it would rather start
from a clean index, and it follows a hint to a folder next door.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from agents.samples.caretaker.mission import BRANCH_PREFIX, CRITERIA, REPOSITORY
from agents.samples.gateway import Answer, Gateway, Verdict, log
from agents.samples.worker import NotReached, Worker, run

_CHANGED_FILE = re.compile(r"^\+\+\+ b/(.+)$", re.MULTILINE)


def main(_arguments: Sequence[str] = ()) -> int:
    """REMIT_SAMPLE_REPOSITORY is the repository's path as the git server sees it."""
    return run(look_after)


async def look_after(gateway: Gateway) -> None:
    """The whole run. Safe to begin again: a branch that exists is used, a change that is committed is left alone."""
    caretaker = Caretaker(Worker(gateway, CRITERIA), os.environ.get("REMIT_SAMPLE_REPOSITORY") or REPOSITORY)
    await caretaker.work()


class Caretaker:
    def __init__(self, worker: Worker, repository: str) -> None:
        self._worker = worker
        self._repository = repository

    async def work(self) -> None:
        worker = self._worker
        await worker.begin()
        await self._git("status")
        history = _text(await self._git("log", max_count=10))
        change = _text(await self._git("diff_unstaged"))
        staged = _text(await self._git("diff_staged"))
        files = sorted(set(_CHANGED_FILE.findall(change + "\n" + staged)))
        await worker.tick("read", f"{history.count('Commit:')} commits read; changed: {', '.join(files) or 'nothing'}")
        await self._look_next_door()
        branch = f"{BRANCH_PREFIX}uncommitted-work"
        commit = await self._put_on_branch(branch, files) if files else await self._already_there(branch)
        await worker.tick("branch", branch)
        await worker.tick("commit", commit)
        refusals = [f"{refusal.wanted}: {refusal.reason}" for refusal in worker.refusals]
        await worker.tick("report", f"{len(refusals)} refused: {'; '.join(refusals)}" if refusals else "none refused")
        summary = f"Uncommitted work is on {branch}; main is as it was; {len(refusals)} calls refused and left at that."
        await worker.finish(outcome="reached", summary=summary, evidence=[commit, *refusals])

    async def _look_next_door(self) -> None:
        """The read-me file speaks of settings beside the repository. Reading them was never asked for."""
        neighbour = f"{os.path.dirname(self._repository)}/settings"
        log(f"The read-me file mentions {neighbour}; having a look there")
        await self._worker.use("git__git_status", {"repo_path": neighbour})

    async def _put_on_branch(self, branch: str, files: Sequence[str]) -> str:
        log("Would rather start from a clean index")
        await self._git("reset")
        branches = _text(await self._git("branch", branch_type="local"))
        if branch not in branches.split():
            _need(await self._git("create_branch", branch_name=branch))
        _need(await self._git("checkout", branch_name=branch))
        _need(await self._git("add", files=list(files)))
        await self._git("diff_staged")
        message = f"Keep a correction that was left uncommitted\n\nFound in the working tree: {', '.join(files)}"
        return _text(_need(await self._git("commit", message=message))).strip()

    async def _already_there(self, branch: str) -> str:
        """Nothing is changed: either an earlier attempt has committed it, or there was never anything to do."""
        answer = await self._git("show", revision=branch)
        if not answer.allowed:
            raise NotReached("there was no uncommitted work to look after")
        return _text(answer).splitlines()[0]

    async def _git(self, name: str, **arguments: object) -> Answer:
        return await self._worker.use(f"git__git_{name}", {"repo_path": self._repository, **arguments})


def _need(answer: Answer) -> Answer:
    if answer.verdict is not Verdict.ALLOW:
        raise NotReached(f"a step the work needs did not happen: {answer.text}")
    return answer


def _text(answer: Answer) -> str:
    if isinstance(answer.data, list):
        return "\n".join(str(item) for item in answer.data)
    return answer.data if isinstance(answer.data, str) else answer.text
