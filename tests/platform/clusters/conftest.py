"""A cluster in memory that keeps the drivers' promises and breaks down on request, and sandboxes of a test owner."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from controlplane.clusters import reconciler, services
from controlplane.clusters.models import Cluster, Sandbox
from controlplane.clusters.services import Launch
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
from controlplane.common.clock import now
from controlplane.tenancy.models import Team


class Killed(BaseException):
    """The worker is gone in the middle of what it did."""


@dataclass
class MemoryCluster:
    """Implements ClusterDriver. `script` holds, per call, what goes wrong around it; afterwards all goes well."""

    life: int = 1
    stopped_epochs: list[str] = field(default_factory=list)
    known: dict[str, SandboxStatus] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    created: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    output: dict[str, bytes] = field(default_factory=dict)
    resize_limit: int | None = None
    script: list[Callable[[], None] | str] = field(default_factory=list)

    # What the driver promises -----------------------------------------------------------------------------------------

    def info(self) -> NodeInfo:
        with self._around("info"):
            return NodeInfo(f"life-{self.life}", Isolation.PROCESS, stopped_epochs=tuple(self.stopped_epochs))

    def observe(self) -> Sequence[SandboxStatus]:
        with self._around("observe"):
            return list(self.known.values())

    def apply(self, spec: SandboxSpec) -> SandboxStatus:
        with self._around("apply"):
            if spec.name not in self.known:
                if spec.name in self.deleted:
                    raise DriverError("It was deleted.", permanent=True, code="sandbox.deleted")
                if spec.node_epoch and spec.node_epoch != f"life-{self.life}":
                    raise DriverError("The node was restarted.", code="node.restarted")
                self.created.append(spec.name)
                self.known[spec.name] = SandboxStatus(
                    name=spec.name,
                    phase=SandboxPhase.RUNNING,
                    isolation=Isolation.PROCESS,
                    resources=spec.resources,
                    started_at=now(),
                    labels=spec.labels,
                )
            return self.known[spec.name]

    def resize(self, name: str, resources: Resources) -> SandboxStatus:
        with self._around("resize"):
            status = self._status(name)
            if self.resize_limit is not None and resources.memory_bytes < self.resize_limit:
                status = replace(status, resize_error="It uses more memory than that.")
            else:
                status = replace(status, resources=resources, resize_error="")
            self.known[name] = status
            return status

    def delete(self, name: str) -> None:
        with self._around("delete"):
            self.deleted.add(name)
            self.known.pop(name, None)

    def kill(self, names: Sequence[str], *, guests_of: Sequence[str] = ()) -> Sequence[SandboxStatus]:
        with self._around("kill"):
            self.deleted.update(names)
            for name in names:
                self.end(name, ExitReason.STOPPED, 137)
            return [self.known.get(name, SandboxStatus(name=name, phase=SandboxPhase.DELETED)) for name in names]

    def logs(self, name: str, *, offset: int = 0, limit: int = 65536) -> LogChunk:
        with self._around("logs"):
            self._status(name)
            return LogChunk(offset, self.output.get(name, b"")[offset : offset + limit])

    # What happens to it -----------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """The node is killed with all it knew, and a new one comes up."""
        self._come_up()

    def stop_and_start(self) -> None:
        """The node is told to stop, ends what it runs, and a new one comes up."""
        self.stopped_epochs.append(f"life-{self.life}")
        self._come_up()

    def _come_up(self) -> None:
        self.life += 1
        self.known.clear()
        self.deleted.clear()

    def end(self, name: str, reason: ExitReason = ExitReason.COMPLETED, code: int = 0) -> None:
        status = self.known.get(name)
        if status is not None and status.phase is SandboxPhase.RUNNING:
            self.known[name] = replace(
                status, phase=SandboxPhase.EXITED, exit_reason=reason, exit_code=code, exited_at=now()
            )

    def say(self, name: str, data: bytes) -> None:
        self.output[name] = self.output.get(name, b"") + data
        self.known[name] = replace(self.known[name], log_bytes=len(self.output[name]))

    def _status(self, name: str) -> SandboxStatus:
        if name not in self.known:
            raise DriverError("No such sandbox.", permanent=True, code="sandbox.unknown")
        return self.known[name]

    def _around(self, verb: str) -> _Around:
        self.calls.append(verb)
        return _Around(self, self.script.pop(0) if self.script else "fine")


class _Around:
    """“down”: nothing happens; “lost”: it happens and the answer is lost; “killed”: it happens, the worker dies."""

    def __init__(self, cluster: MemoryCluster, event: Callable[[], None] | str) -> None:
        self._cluster, self._event = cluster, event

    def __enter__(self) -> None:
        match self._event:
            case "down":
                raise DriverError("Nobody answers.")
            case "restart":
                self._cluster.restart()
            case event if callable(event):
                event()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            return
        match self._event:
            case "lost":
                raise DriverError("The answer did not arrive.")
            case "restart after":
                self._cluster.restart()
            case "killed":
                raise Killed


@dataclass
class Owner:
    """Answers for the test's sandboxes and remembers what it was told."""

    told: list[tuple[uuid.UUID, str, str]] = field(default_factory=list)
    ended: list[uuid.UUID] = field(default_factory=list)
    trouble: Exception | None = None
    before_launch: Callable[[], None] | None = None

    def launch(self, *, sandbox: Sandbox) -> Launch:
        if self.before_launch:
            self.before_launch()
        if self.trouble:
            raise self.trouble
        return Launch(command=["/bin/true"], env={}, mounts=[])

    def on_change(self, *, sandbox: Sandbox) -> None:
        self.told.append((sandbox.pk, sandbox.observed_phase, sandbox.exit_reason))

    def lock(self, *, sandbox: Sandbox) -> None:
        """Nothing of it comes before a sandbox."""

    def before_resize(self, *, sandbox: Sandbox, resources: Resources) -> None:
        """It has no budget."""

    def on_ended(self, *, sandbox_ids: Sequence[uuid.UUID]) -> None:
        self.ended.extend(sandbox_ids)

    def phases_of(self, sandbox: Sandbox) -> list[str]:
        return [phase for key, phase, _ in self.told if key == sandbox.pk]


@pytest.fixture
def cluster(db: None, monkeypatch: pytest.MonkeyPatch) -> MemoryCluster:
    memory = MemoryCluster()
    monkeypatch.setattr(reconciler, "driver_of", lambda _row: memory)
    return memory


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    recording = Owner()
    monkeypatch.setitem(services._OWNERS, "run", recording)
    return recording


@pytest.fixture
def make_sandbox(team: Team, cluster: MemoryCluster, owner: Owner) -> Callable[..., Sandbox]:
    def make(**changes: object) -> Sandbox:
        values: dict[str, object] = {
            "organisation_id": team.organisation_id,
            "team_id": team.pk,
            "purpose": "run",
            "owner_id": uuid.uuid4(),
            "name": "clerk",
            "program": "clerk",
            "resources": Resources(),
            "wall_clock_seconds": 60,
        }
        return services.request_sandbox(**{**values, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def sandbox(make_sandbox: Callable[..., Sandbox]) -> Sandbox:
    return make_sandbox()


def expire_lease() -> None:
    """As if its holder had been silent for too long."""
    Cluster.objects.update(lease_until=now() - timedelta(seconds=1))


@pytest.fixture
def reconcile(db: None) -> Callable[[], int]:
    """One pass of one worker, which may be killed in the middle of it."""

    def once() -> int:
        with suppress(Killed):
            return reconciler.reconcile_cluster(services.local_cluster().pk)
        return 0

    return once


@pytest.fixture
def take_over(reconcile: Callable[[], int]) -> Callable[[], None]:
    """Another worker takes the lease of a paused one and makes a whole pass."""

    def run() -> None:
        expire_lease()
        reconcile()

    return run
