"""What a sandbox is, in plain values: the seam between Remit, its cluster drivers and the local node."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

GIB = 1024**3
MIB = 1024**2


class SandboxPhase(enum.StrEnum):
    """What a driver sees. `LOST` is Remit's own finding: the cluster no longer knows a sandbox that should exist."""

    PENDING = "pending"
    RUNNING = "running"
    EXITED = "exited"
    LOST = "lost"
    DELETED = "deleted"


class ExitReason(enum.StrEnum):
    COMPLETED = "completed"  # exit code 0
    FAILED = "failed"  # any other exit code
    OUT_OF_MEMORY = "out_of_memory"
    WALL_CLOCK = "wall_clock"
    STOPPED = "stopped"  # deleted on request
    START_FAILED = "start_failed"  # never ran; `message` says why
    NODE_LOST = "node_lost"  # the node died and took it along
    NODE_STOPPED = "node_stopped"  # the node was told to stop and ended it first


class Isolation(enum.StrEnum):
    """What really separates the process, said honestly to people."""

    BUBBLEWRAP = "bubblewrap"
    PROCESS = "process"  # Landlock + seccomp + rlimits: process isolation, not a container
    GVISOR = "gvisor"
    KATA = "kata"
    RUNC = "runc"


@dataclass(frozen=True)
class Resources:
    """Limits of one sandbox. `cpu_millicores` 1000 = one core."""

    cpu_millicores: int = 500
    memory_bytes: int = 256 * MIB
    pids: int = 64
    disk_bytes: int = 64 * MIB


# The sizes a person may ask for while it runs.
SMALLEST = Resources(cpu_millicores=10, memory_bytes=16 * MIB)
LARGEST = Resources(cpu_millicores=64_000, memory_bytes=512 * GIB)


@dataclass(frozen=True)
class Mount:
    """A host path shown inside the sandbox at `target`."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class SandboxSpec:
    """Desired sandbox. `name` is deterministic (the sandbox id): applying it twice makes one sandbox.

    `network` is never more than our own gateway: True forwards 127.0.0.1:8020 inside to the web process's unix socket.
    `stdio` keeps stdin and stdout as a stream that `attach` can take (stdio MCP servers); stdout is then not logged.
    `secrets` are environment variables that are never logged, listed or stored by the driver beyond the process.
    `node_epoch`: only a cluster of that very epoch may start it; empty: any may.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: Sequence[Mount] = ()
    resources: Resources = Resources()
    wall_clock_seconds: int = 3600
    gateway: bool = True
    stdio: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    node_epoch: str = ""


@dataclass(frozen=True)
class SandboxStatus:
    """Observed sandbox. `generation` counts applied sizes: equal to the desired one when a resize has really taken
    hold."""

    name: str
    phase: SandboxPhase
    isolation: Isolation | None = None
    resources: Resources | None = None
    pid: int | None = None
    started_at: datetime | None = None
    exited_at: datetime | None = None
    exit_code: int | None = None
    exit_reason: ExitReason | None = None
    message: str = ""
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    resize_error: str = ""
    log_bytes: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LogChunk:
    """`data` begins at byte `offset` of the sandbox's output; `dropped_bytes` fell over the cap before it."""

    offset: int
    data: bytes
    dropped_bytes: int = 0


@dataclass(frozen=True)
class NodeInfo:
    """What a cluster offers. `epoch` changes whenever its memory of sandboxes was lost (a node restart).

    `stopped_epochs`: earlier lives that were told to stop and ended their sandboxes first, the latest last; not those
    that crashed.
    """

    epoch: str
    isolation: Isolation
    limits: Sequence[str] = ()  # "cpu", "memory", "pids", "disk": which limits are really enforced
    cpu_millicores: int = 0
    memory_bytes: int = 0
    message: str = ""
    stopped_epochs: Sequence[str] = ()


LAUNCH_WAITS = "launch.waits"  # nothing failed: what it starts is being made ready elsewhere, and is asked for again


class DriverError(Exception):
    """The cluster could not be asked, or said no. `permanent` is False when the same call may work later."""

    def __init__(self, message: str, *, permanent: bool = False, code: str = "driver.unavailable") -> None:
        super().__init__(message)
        self.message = message
        self.permanent = permanent
        self.code = code


class ClusterDriver(Protocol):
    """Its verbs are all idempotent, none slower than ten seconds. Recipe for a new one: CONTRIBUTING, “Add a cluster
    driver”."""

    def info(self) -> NodeInfo: ...

    def apply(self, spec: SandboxSpec) -> SandboxStatus:
        """Create by name. An existing sandbox of that name is returned as it is, whatever its phase. A name that was
        deleted is refused for good (`sandbox.deleted`), a spec of another epoch for now (`node.restarted`)."""

    def observe(self) -> Sequence[SandboxStatus]:
        """Every sandbox the cluster knows, exited ones included until they are deleted."""

    def resize(self, name: str, resources: Resources) -> SandboxStatus:
        """Change limits of a running sandbox. A refusal (shrink below use) is `resize_error`, not an exception."""

    def delete(self, name: str) -> None:
        """Kill every process of it and forget it. Unknown names succeed."""

    def kill(self, names: Sequence[str], *, guests_of: Sequence[str] = ()) -> Sequence[SandboxStatus]:
        """End many at once; returned is what has no process left, as exited, or deleted where the name was unknown.

        Their output stays until they are deleted, and no name among them ever starts again. Sandboxes whose label `run`
        is in `guests_of` end too and are forgotten."""

    def logs(self, name: str, *, offset: int = 0, limit: int = 65536) -> LogChunk: ...
