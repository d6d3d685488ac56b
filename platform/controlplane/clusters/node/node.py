"""The local node: every sandbox of this machine, by name. Its verbs may be called twice with the same end state."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import shutil
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from controlplane.clusters.node import isolation, rlimits
from controlplane.clusters.node.cgroups import CgroupTree, find_tree, tree_label
from controlplane.clusters.node.pipes import StandardStreams
from controlplane.clusters.node.plan import HostPlaces, check_name, check_resources, invalid, make_plan, write_etc
from controlplane.clusters.node.sandbox import DEATH_PATIENCE_SECONDS, Ground, Sandbox
from controlplane.clusters.types import (
    DriverError,
    ExitReason,
    Isolation,
    LogChunk,
    NodeInfo,
    Resources,
    SandboxPhase,
    SandboxSpec,
    SandboxStatus,
)

MOST_SANDBOXES = 512
WATCHER_BACKLOG = 1000
MOST_LOG_BYTES = 1024 * 1024
MOST_DELETED_NAMES = 10_000
MOST_STOPPED_LIVES = 32
ABANDONED_SECONDS = 60.0

log = logging.getLogger("remit.node")


class NodeStartError(Exception):
    """The node cannot run here; the sentence says why and what to do."""


class Watcher:
    """Statuses for one listener. `lagging` is set when it read too slowly: it has to list again."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[SandboxStatus] = asyncio.Queue(WATCHER_BACKLOG)
        self.lagging = False

    def put(self, status: SandboxStatus) -> None:
        try:
            self.queue.put_nowait(status)
        except asyncio.QueueFull:
            self.lagging = True


class Node:
    """Verbs raise DriverError. One instance owns its state directory by a lock."""

    def __init__(
        self,
        places: HostPlaces,
        *,
        isolations: Sequence[Isolation],
        cgroups: bool,
        abandoned_seconds: float = ABANDONED_SECONDS,
    ) -> None:
        self._places = places
        self._candidates = isolations
        self._want_cgroups = cgroups
        self._abandoned_seconds = abandoned_seconds
        self._epoch = secrets.token_hex(8)
        self._stopped_epochs: list[str] = []
        self._sandboxes: dict[str, Sandbox] = {}
        self._deleting: set[str] = set()
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self._watchers: set[Watcher] = set()
        self._tree: CgroupTree | None = None
        self._isolation: Isolation | None = None
        self._refusals: list[str] = []
        self._lock_fd = -1
        self._closing = False

    async def open(self) -> None:
        """Take the state directory, clear what a dead node left, and find out what this machine can isolate."""
        self._take_state()
        write_etc(self._places)
        if self._want_cgroups:
            self._tree = find_tree(tree_label(self._places.state))
        if self._tree:
            self._tree.sweep()
        for candidate in self._candidates:
            refusal = await self._try(candidate)
            if not refusal:
                self._isolation = candidate
                break
            self._refusals.append(f"{candidate}: {refusal}")
        log.info("node opened: isolation=%s limits=%s", self._isolation, ",".join(self._limits()))

    async def close(self) -> None:
        """Kill every sandbox and let the state go."""
        self._closing = True
        for sandbox in self._sandboxes.values():
            sandbox.stop(ExitReason.STOPPED)
        for sandbox in self._sandboxes.values():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(sandbox.finished.wait(), DEATH_PATIENCE_SECONDS + 1)
            sandbox.forget()
        self._sandboxes.clear()
        self._note_stop()
        if self._tree:
            self._tree.remove()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)

    def info(self) -> NodeInfo:
        chosen = self._usable()
        return NodeInfo(
            epoch=self._epoch,
            isolation=chosen,
            limits=self._limits(),
            cpu_millicores=_cpu_millicores(),
            memory_bytes=_memory_bytes(),
            message=self._message(chosen),
            stopped_epochs=tuple(self._stopped_epochs),
        )

    def apply(self, spec: SandboxSpec) -> SandboxStatus:
        check_name(spec.name)
        chosen = self._usable()
        if spec.name in self._deleting:
            raise DriverError(f"{spec.name} is being deleted.", code="sandbox.deleting")
        existing = self._sandboxes.get(spec.name)
        if existing is not None:
            return existing.status()
        if spec.name in self._deleted:
            raise DriverError(f"{spec.name} was deleted.", permanent=True, code="sandbox.deleted")
        if spec.node_epoch and spec.node_epoch != self._epoch:
            raise DriverError("The node was restarted meanwhile.", code="node.restarted")
        if self._closing:
            raise DriverError("The node is stopping.", code="node.stopping")
        if len(self._sandboxes) >= MOST_SANDBOXES:
            raise DriverError(f"The node already knows {MOST_SANDBOXES} sandboxes.", code="node.full")
        if too_large := _larger_than_machine(spec.resources):
            raise invalid(too_large)
        sandbox = self._create(spec, chosen)
        self._sandboxes[spec.name] = sandbox
        log.info("sandbox %s applied", spec.name)
        return sandbox.status()

    def get(self, name: str) -> SandboxStatus:
        return self._known(name).status()

    def list(self) -> list[SandboxStatus]:
        return [sandbox.status() for sandbox in self._sandboxes.values()]

    def resize(self, name: str, resources: Resources) -> SandboxStatus:
        sandbox = self._known(name)
        if refusal := _out_of_range(resources) or _larger_than_machine(resources):
            sandbox.refuse_resize(refusal)
        else:
            sandbox.resize(resources)
        return sandbox.status()

    async def delete(self, name: str) -> None:
        """Returns when no process of it is left. DriverError (not permanent) when one cannot be killed yet.

        The name stays dead, known before or not: a start that was asked for earlier may arrive only now.
        """
        self._remember_deleted(name)
        sandbox = self._sandboxes.get(name)
        if sandbox is None:
            return
        self._deleting.add(name)
        try:
            sandbox.stop(ExitReason.STOPPED)
            await asyncio.wait_for(sandbox.finished.wait(), DEATH_PATIENCE_SECONDS + 1)
        except TimeoutError as error:
            raise DriverError(f"{name} could not be killed yet.", code="sandbox.undead") from error
        finally:
            self._deleting.discard(name)
        if self._sandboxes.get(name) is sandbox:
            del self._sandboxes[name]
            last = replace(sandbox.status(), phase=SandboxPhase.DELETED)
            sandbox.forget()
            self._tell(last)
            log.info("sandbox %s deleted", name)

    async def kill(self, names: Collection[str], *, guests_of: Collection[str]) -> Sequence[SandboxStatus]:
        """End many at once, and with them the sandboxes whose label `run` is in `guests_of`. What it returns is dead.

        The output of those named stays readable until they are deleted; guests are forgotten. A name nobody knows is
        answered as deleted and stays dead, like one that was deleted. One that can't be killed yet is left out.
        """
        for name in names:
            self._remember_deleted(name)
        named = {name: sandbox for name in names if (sandbox := self._sandboxes.get(name)) is not None}
        owners = set(guests_of)
        guests = [name for name, sandbox in self._sandboxes.items() if sandbox.labels.get("run") in owners]
        for sandbox in named.values():
            sandbox.stop(ExitReason.STOPPED)
        waiting = [asyncio.create_task(sandbox.finished.wait()) for sandbox in named.values()]
        gone = await asyncio.gather(
            *(self.delete(name) for name in guests if name not in named), return_exceptions=True
        )
        if waiting:
            _, undead = await asyncio.wait(waiting, timeout=DEATH_PATIENCE_SECONDS + 1)
            for task in undead:
                task.cancel()
        for error in gone:
            if isinstance(error, BaseException):
                log.warning("guest not ended: %s", error)
        dead = [sandbox.status() for sandbox in named.values() if sandbox.finished.is_set()]
        return dead + [SandboxStatus(name, SandboxPhase.DELETED) for name in names if name not in named]

    async def clear_abandoned(self) -> None:
        """Until cancelled: forget sandboxes with streams that nobody is attached to.

        Whoever asks for one attaches at once and deletes it in the end. One that is left alone is of a process that
        died, and nobody would ever come back for it.
        """
        while True:
            await asyncio.sleep(self._abandoned_seconds / 4)
            alone = [
                name
                for name, sandbox in self._sandboxes.items()
                if sandbox.streams is not None and sandbox.streams.alone_seconds > self._abandoned_seconds
            ]
            for name in alone:
                log.warning("sandbox %s was left alone", name)
                with contextlib.suppress(DriverError):
                    await self.delete(name)

    def logs(self, name: str, *, offset: int, limit: int) -> LogChunk:
        return self._known(name).logs(offset=offset, limit=min(limit, MOST_LOG_BYTES))

    def take_streams(self, name: str) -> StandardStreams:
        """The standard streams, reserved for the caller, who lets them go by `carry`."""
        sandbox = self._known(name)
        if sandbox.streams is None:
            raise DriverError(f"{name} was not created with stdio.", permanent=True, code="sandbox.no_stdio")
        if not sandbox.running:
            raise DriverError(f"{name} has ended.", permanent=True, code="sandbox.ended")
        if sandbox.streams.taken:
            raise DriverError(f"Somebody is attached to {name}.", code="sandbox.attached")
        sandbox.streams.taken = True
        return sandbox.streams

    @contextlib.contextmanager
    def watcher(self) -> Iterator[Watcher]:
        """Statuses from now on. List after entering, not before: then nothing falls between."""
        listener = Watcher()
        self._watchers.add(listener)
        try:
            yield listener
        finally:
            self._watchers.discard(listener)

    def _create(self, spec: SandboxSpec, chosen: Isolation) -> Sandbox:
        plan = make_plan(spec, self._places, cgroups=self._tree is not None)
        cgroup = None
        if self._tree:
            try:
                cgroup = self._tree.create(spec.name)
            except OSError as error:
                raise DriverError(f"No control group: {error.strerror}.", code="node.cgroup") from error
        ground = Ground(chosen, plan, cgroup, self._places.state / "logs" / spec.name)
        return Sandbox(spec, ground, lambda sandbox: self._tell(sandbox.status()))

    async def _try(self, candidate: Isolation) -> str:
        """Run /usr/bin/true in it. Empty when that worked, else why it did not."""
        if not isolation.installed(candidate):
            return "not installed"
        spec = SandboxSpec(name="probe", command=("/usr/bin/true",), gateway=False, wall_clock_seconds=10)
        try:
            sandbox = self._create(spec, candidate)
        except (DriverError, OSError) as error:
            return str(error)
        await sandbox.finished.wait()
        status = sandbox.status()
        sandbox.forget()
        if status.exit_reason is ExitReason.COMPLETED:
            return ""
        return status.message or f"ended with {status.exit_code}"

    def _take_state(self) -> None:
        state = self._places.state
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        gateway = self._places.gateway_socket
        for place in (state, self._places.socket.parent):
            if gateway is not None and _within(place.resolve(), gateway.parent.resolve()):
                raise NodeStartError(
                    f"Sandboxes see the folder of the gateway's socket, {gateway.parent}; it must not hold {place}."
                )
        self._lock_fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NodeStartError(f"Another node is running with the state in {state}.") from error
        shutil.rmtree(state / "logs", ignore_errors=True)
        (state / "logs").mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            self._stopped_epochs = self._stopped_note.read_text().split()

    def _note_stop(self) -> None:
        """This life ended in order, as those in the note before it did: nobody may have looked at the node between two
        stops. A life that crashes never comes here, and is in no note."""
        lives = [*self._stopped_epochs, self._epoch][-MOST_STOPPED_LIVES:]
        unfinished = self._stopped_note.with_suffix(".new")
        unfinished.write_text("\n".join(lives))
        unfinished.replace(self._stopped_note)

    @property
    def _stopped_note(self) -> Path:
        return self._places.state / "stopped"

    def _usable(self) -> Isolation:
        if self._isolation is None:
            raise DriverError(
                "This machine cannot isolate a sandbox, so none is run. Install bubblewrap or allow user namespaces. "
                + "; ".join(self._refusals),
                code="node.no_isolation",
            )
        return self._isolation

    def _limits(self) -> tuple[str, ...]:
        by_group = self._tree.limits if self._tree else rlimits.enforced_without_cgroups()
        return (*by_group, "disk", "wall_clock")

    def _message(self, chosen: Isolation) -> str:
        parts = [isolation.describe(chosen)]
        missing = [name for name in ("cpu", "memory", "pids") if name not in self._limits()]
        if missing:
            parts.append(f"Not limited here, for want of writable control groups: {', '.join(missing)}.")
        if self._refusals:
            parts.append(f"Not used: {'; '.join(self._refusals)}.")
        return " ".join(parts)

    def _remember_deleted(self, name: str) -> None:
        self._deleted[name] = None
        while len(self._deleted) > MOST_DELETED_NAMES:
            self._deleted.popitem(last=False)

    def _known(self, name: str) -> Sandbox:
        sandbox = self._sandboxes.get(name)
        if sandbox is None:
            raise DriverError("The node knows no such sandbox.", permanent=True, code="sandbox.unknown")
        return sandbox

    def _tell(self, status: SandboxStatus) -> None:
        for watcher in self._watchers:
            watcher.put(status)


def _out_of_range(resources: Resources) -> str:
    try:
        check_resources(resources)
    except DriverError as error:
        return error.message
    return ""


def _larger_than_machine(resources: Resources) -> str:
    if resources.cpu_millicores > _cpu_millicores():
        return f"This machine has {_cpu_millicores()} millicores, {resources.cpu_millicores} were asked for."
    if resources.memory_bytes > _memory_bytes():
        return f"This machine has {_memory_bytes()} bytes of memory, {resources.memory_bytes} were asked for."
    return ""


def _cpu_millicores() -> int:
    return len(os.sched_getaffinity(0)) * 1000


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _within(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents
