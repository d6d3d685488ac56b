"""One sandbox from start to its last process: starts it, limits it, and sees it dead. Whether it may: elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from controlplane.clusters.node import isolation, rlimits
from controlplane.clusters.node.cgroups import Cgroup, ResizeRefused, Usage
from controlplane.clusters.node.isolation import Descriptors
from controlplane.clusters.node.output import OutputRing
from controlplane.clusters.node.pipes import Fact, FactPipe, OutputPipe, StandardStreams
from controlplane.clusters.node.plan import Plan
from controlplane.clusters.types import (
    ExitReason,
    Isolation,
    LogChunk,
    Resources,
    SandboxPhase,
    SandboxSpec,
    SandboxStatus,
)

START_PATIENCE_SECONDS = 60.0  # the smallest share of a processor makes starting slow
DEATH_PATIENCE_SECONDS = 8.0
CGROUP_REMOVAL_TRIES = 50  # the kernel may hold an empty group for a moment


@dataclass(frozen=True)
class Ground:
    """What the node gives a sandbox to stand on. `cgroup` is None where control groups cannot be written."""

    isolation: Isolation
    plan: Plan
    cgroup: Cgroup | None
    log_path: Path


class Sandbox:
    """`changed` is called after every change. `finished` is set when no process of it is left."""

    def __init__(self, spec: SandboxSpec, ground: Ground, changed: Callable[[Sandbox], None]) -> None:
        # The environment lives in the plan and goes with it: nothing kept here can show a secret later.
        self._spec = replace(spec, env={}, secrets={})
        self._isolation = ground.isolation
        self._cgroup = ground.cgroup
        self._changed = changed
        self._ring = OutputRing(ground.log_path)
        self._resources = spec.resources
        self._phase = SandboxPhase.PENDING
        self._intent: ExitReason | None = None
        self._started_at: datetime | None = None
        self._exited_at: datetime | None = None
        self._exit_code: int | None = None
        self._exit_reason: ExitReason | None = None
        self._message = ""
        self._resize_error = ""
        self._last_usage = Usage()
        self._outer = 0  # host pid of the process that is our child
        self._outer_fd = -1
        self._first_fd = -1  # the first process of the sandbox's own namespace; with it dies everything in there
        self._pid_namespace = 0
        self._timers: list[asyncio.TimerHandle] = []
        self._end: asyncio.Task[None] | None = None
        self.streams: StandardStreams | None = None
        self.finished = asyncio.Event()
        self._start(ground.plan)

    @property
    def running(self) -> bool:
        return self._phase in (SandboxPhase.PENDING, SandboxPhase.RUNNING)

    @property
    def labels(self) -> Mapping[str, str]:
        return self._spec.labels

    def status(self) -> SandboxStatus:
        usage = self._usage()
        return SandboxStatus(
            name=self._spec.name,
            phase=self._phase,
            isolation=self._isolation,
            resources=self._resources,
            pid=self._outer if self._outer and self.running else None,
            started_at=self._started_at,
            exited_at=self._exited_at,
            exit_code=self._exit_code,
            exit_reason=self._exit_reason,
            message=self._message,
            cpu_seconds=round(usage.cpu_seconds, 3),
            peak_memory_bytes=usage.peak_memory_bytes,
            resize_error=self._resize_error,
            log_bytes=self._ring.total_bytes,
            labels=self._spec.labels,
        )

    def logs(self, *, offset: int, limit: int) -> LogChunk:
        return self._ring.read(offset=offset, limit=limit)

    def resize(self, wanted: Resources) -> None:
        """Change sizes while it runs. A refusal stays readable as `resize_error` until the next resize."""
        try:
            self._check_resize(wanted)
            if wanted != self._resources:
                self._apply_limits(wanted)
        except ResizeRefused as refusal:
            self._resize_error = str(refusal)
        else:
            self._resize_error = ""
            self._resources = wanted
        self._changed(self)

    def refuse_resize(self, reason: str) -> None:
        self._resize_error = reason
        self._changed(self)

    def stop(self, reason: ExitReason) -> None:
        """Kill every process. The first reason given stays; the end comes through `changed` and `finished`."""
        if not self.running:
            return
        if self._intent is None:
            self._intent = reason
        self._kill()

    def forget(self) -> None:
        """Close and remove what the end left: the output and the standard streams."""
        if self.streams is not None:
            self.streams.close()
        self._ring.close()

    # Start

    def _start(self, plan: Plan) -> None:
        report_read, report_write = os.pipe2(os.O_CLOEXEC)
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        output_read, output_write = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        theirs = [report_write, status_write, output_write, null]
        stdin, stdout = null, output_write
        if self._spec.stdio:
            stdin, our_write = os.pipe2(os.O_CLOEXEC)
            our_read, stdout = os.pipe2(os.O_CLOEXEC)
            theirs += [stdin, stdout]
            self.streams = StandardStreams(read=our_read, write=our_write)
        ends = Descriptors(stdin=stdin, stdout=stdout, stderr=output_write, report=report_write, status=status_write)
        self._report = FactPipe(report_read, self._on_report)
        self._progress = FactPipe(status_read, self._on_progress)
        self._output = OutputPipe(output_read, self._ring)
        try:
            if self._cgroup:
                self._cgroup.apply(self._resources, None)
            join_files = self._cgroup.join_files() if self._cgroup else []
            self._outer = isolation.start(self._isolation, plan, ends, join_files=join_files)
        except (OSError, ResizeRefused, RuntimeError) as error:
            self._message = f"It could not be started: {error}"
            self._end = asyncio.ensure_future(self._conclude())
            return
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        loop = asyncio.get_running_loop()
        self._outer_fd = os.pidfd_open(self._outer)
        loop.add_reader(self._outer_fd, self._on_outer_exit)
        self._timers = [
            loop.call_later(START_PATIENCE_SECONDS, self._give_up_starting),
            loop.call_later(self._spec.wall_clock_seconds, lambda: self.stop(ExitReason.WALL_CLOCK)),
        ]

    def _give_up_starting(self) -> None:
        if self._phase is SandboxPhase.PENDING and self._intent is None:
            self._message = f"It did not start within {START_PATIENCE_SECONDS:.0f} seconds."
            self.stop(ExitReason.START_FAILED)

    def _on_report(self, fact: Fact) -> None:
        if "child-pid" in fact and self._first_fd < 0:
            self._pid_namespace = int(fact.get("pid-namespace", 0))
            with contextlib.suppress(OSError):
                self._first_fd = os.pidfd_open(int(fact["child-pid"]))
            if self._intent is not None:
                self._kill()

    def _on_progress(self, fact: Fact) -> None:
        if "error" in fact:
            self._message = str(fact["error"])
        elif fact.get("started") and self._phase is SandboxPhase.PENDING:
            self._phase = SandboxPhase.RUNNING
            self._started_at = datetime.now(UTC)
            self._changed(self)

    # Limits

    def _check_resize(self, wanted: Resources) -> None:
        if not self.running:
            raise ResizeRefused("It is not running.")
        if wanted.disk_bytes != self._resources.disk_bytes:
            raise ResizeRefused("Disk cannot be changed while it runs.")

    def _apply_limits(self, wanted: Resources) -> None:
        if self._cgroup:
            self._cgroup.apply(wanted, self._resources)
        else:
            rlimits.resize(self._pid_namespace, wanted, self._resources)

    def _usage(self) -> Usage:
        if self._cgroup and self.running:
            self._last_usage = self._cgroup.usage()
        return self._last_usage

    # End

    def _kill(self) -> None:
        if self._first_fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first_fd, signal.SIGKILL)
        if self._outer_fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._outer_fd, signal.SIGKILL)
        if self._cgroup:
            self._cgroup.kill()

    def _on_outer_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._outer_fd)
        self._end = asyncio.ensure_future(self._conclude())

    async def _conclude(self) -> None:
        """Runs once, when the outer process has ended: make sure of the rest, then tell."""
        for timer in self._timers:
            timer.cancel()
        if self._outer:
            _, status, rusage = os.wait4(self._outer, 0)
            code = os.waitstatus_to_exitcode(status)
            self._exit_code = code if code >= 0 else 128 - code
            used = Usage(rusage.ru_utime + rusage.ru_stime, rusage.ru_maxrss * 1024)
        else:
            used = Usage()
        self._report.drain()
        self._progress.drain()
        said = self._message
        while not await self._everything_is_dead():
            # Not ended, whoever asks: a stop is proven by its last process.
            self._message = "Some of its processes cannot be killed; the machine needs a look."
            self._changed(self)
        self._message = said
        self._output.drain()
        for pipe in (self._report, self._progress, self._output):
            pipe.close()
        self._last_usage = self._cgroup.usage() if self._cgroup else used
        for _ in range(CGROUP_REMOVAL_TRIES):
            if self._cgroup is None or self._cgroup.remove():
                break
            await asyncio.sleep(0.01)
        self._exit_reason = self._reason()
        if self._exit_reason is ExitReason.START_FAILED:
            self._message = self._message or self._ring.tail() or "It ended before the command began."
        for descriptor in (self._outer_fd, self._first_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._outer_fd = self._first_fd = -1
        self._exited_at = datetime.now(UTC)
        self._phase = SandboxPhase.EXITED
        self.finished.set()
        self._changed(self)

    async def _everything_is_dead(self) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEATH_PATIENCE_SECONDS
        while not self._is_dead():
            if loop.time() > deadline:
                return False
            self._kill()
            await asyncio.sleep(0.005)
        return True

    def _is_dead(self) -> bool:
        if self._first_fd >= 0:
            poll = select.poll()
            poll.register(self._first_fd, select.POLLIN)
            if not poll.poll(0):
                return False
        return not (self._cgroup and self._cgroup.processes())

    def _reason(self) -> ExitReason:
        if self._intent is not None:
            return self._intent
        if self._started_at is None:
            return ExitReason.START_FAILED
        if self._exit_code == 0:
            return ExitReason.COMPLETED
        return ExitReason.OUT_OF_MEMORY if self._last_usage.out_of_memory_kills else ExitReason.FAILED
