"""The sandbox of one stdio server session: which program, which folders, and its streams; not what is said on them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from django.conf import settings

from agents.samples.terms import PROGRAMS
from agents.servers.environments import (
    NODE_PACKAGES,
    BeingInstalled,
    EnvironmentUnavailable,
    environment,
    node_environment,
)
from agents.servers.types import MountRequest, RunContext, ServerAddress, ServerFault
from controlplane.clusters.drivers.local import LocalDriver
from controlplane.clusters.runtime_mounts import interpreter_mounts, node_runtime_mounts, python_runtime_mounts
from controlplane.clusters.types import MIB, DriverError, Mount, Resources, SandboxPhase, SandboxSpec
from controlplane.common.errors import FieldError
from controlplane.common.ids import new_id

# Servers need more address space than they use; V8 most of all.
RESOURCES = Resources(cpu_millicores=1000, memory_bytes=512 * MIB, pids=128, disk_bytes=64 * MIB)
WALL_CLOCK_SECONDS = 12 * 3600
PURPOSE = "server"
INSTALLED_LOOK_SECONDS = 0.5


@dataclass
class RunningServer:
    """A started program with its streams. `stop` ends every process of it and forgets the scratch folder."""

    name: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    driver: LocalDriver
    scratch: Path | None = field(default=None)

    async def stop(self) -> None:
        with contextlib.suppress(DriverError):
            await asyncio.to_thread(self.driver.delete, self.name)
        if self.scratch:
            await asyncio.to_thread(shutil.rmtree, self.scratch, ignore_errors=True)

    async def last_words(self) -> str:
        """Why the program ended, as far as the node knows."""
        try:
            status = await asyncio.to_thread(self.driver.get, self.name)
        except DriverError:
            return ""
        if status.phase is not SandboxPhase.EXITED:
            return ""
        return f"Its program ended: {status.message or status.exit_reason or status.exit_code}."


async def start(server: ServerAddress, context: RunContext) -> RunningServer:
    """Start the server's program for one run. Raises ServerFault `upstream.not_started`."""
    driver = LocalDriver(settings.CONFIG.node_socket)
    scratch: Path | None = None
    name = f"mcp-{server.slug[:24]}-{new_id().hex[-12:]}"
    try:
        if context.mission_id is None and any("{" in mount.source for mount in server.mounts):
            scratch = await asyncio.to_thread(_make_scratch)
        spec = await _ready(server, context, name, scratch)
        await asyncio.to_thread(driver.apply, spec)
        reader, writer = await driver.attach(name)
    except (DriverError, EnvironmentUnavailable, OSError) as error:
        message = getattr(error, "message", str(error))
        await _clear_away(driver, name, scratch)
        raise ServerFault("upstream.not_started", f"Its program could not be started: {message}"[:300]) from error
    except BaseException:
        await asyncio.shield(_clear_away(driver, name, scratch))
        raise
    return RunningServer(name=name, reader=reader, writer=writer, driver=driver, scratch=scratch)


async def _ready(server: ServerAddress, context: RunContext, name: str, scratch: Path | None) -> SandboxSpec:
    """The specification, once what it needs is installed. Only who installs takes a thread for it: there are few, and
    the probes of this process need one too."""
    while True:
        try:
            return await asyncio.to_thread(specification, server, context, name=name, scratch=scratch)
        except BeingInstalled:
            await asyncio.sleep(INSTALLED_LOOK_SECONDS)


def specification(server: ServerAddress, context: RunContext, *, name: str, scratch: Path | None = None) -> SandboxSpec:
    """The sandbox as the node gets it. Builds the server's environment when this machine doesn't have it yet. Raises
    BeingInstalled while somebody else does."""
    command, runtime = _program(server)
    return SandboxSpec(
        name=name,
        command=command,
        env={"HOME": "/tmp", "PYTHONUNBUFFERED": "1"},  # noqa: S108 - inside the sandbox
        mounts=_merged([*runtime, *(_mount(request, context, scratch) for request in server.mounts)]),
        resources=RESOURCES,
        wall_clock_seconds=WALL_CLOCK_SECONDS,
        gateway=False,
        stdio=True,
        labels={
            "purpose": PURPOSE,
            "server": str(server.id),
            "run": str(context.run_id or ""),
            "mission": str(context.mission_id or ""),
        },
    )


def mount_errors(mounts: Sequence[MountRequest]) -> list[FieldError]:
    """What is wrong with mounts as a person asks for them, before there is a run to fill in."""
    errors: list[FieldError] = []
    for index, mount in enumerate(mounts):
        source = mount.source.replace("{run}", "run").replace("{mission}", "mission")
        parts = PurePosixPath(source).parts
        if not source or ".." in parts or "{" in source or "\0" in source:
            errors.append(
                FieldError(f"/mounts/{index}/source", "a path without “..”; {run} and {mission} are filled in")
            )
        elif not _allowed_roots(source, None, writable=mount.writable):
            errors.append(
                FieldError(
                    f"/mounts/{index}/source",
                    "a folder below missions/{mission}; read-only also data in the state folder or a program of ours",
                )
            )
        if not mount.target.startswith("/") or ".." in PurePosixPath(mount.target).parts:
            errors.append(FieldError(f"/mounts/{index}/target", "an absolute path inside the sandbox"))
    return errors


def _program(server: ServerAddress) -> tuple[Sequence[str], list[Mount]]:
    if server.environment in NODE_PACKAGES:
        node = node_environment(server.environment, waits=False)
        return node.command(*server.command), node_runtime_mounts(node.node, node.read_only)
    if server.environment:
        python = environment(server.environment, waits=False)
        return python.command(*server.command), python_runtime_mounts(python.path)
    interpreter = Path(sys.executable).resolve()
    return server.command, interpreter_mounts(interpreter, Path(sys.base_prefix))


def _mount(request: MountRequest, context: RunContext, scratch: Path | None) -> Mount:
    """The host path of one request. A path that ends up elsewhere than allowed is refused, however it got there."""
    source = request.source
    if scratch is not None and "{" in source:
        folder = scratch / source.replace("{run}", "run").replace("{mission}", "mission").strip("/").replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        return Mount(str(folder.resolve()), request.target, writable=True)
    filled = source.replace("{run}", str(context.run_id or "none")).replace(
        "{mission}", str(context.mission_id or "none")
    )
    # Where it really leads, before anything is made there: a server may have left a link in a folder it may write.
    resolved = (_state() / filled).resolve(strict=not request.writable)
    if not _allowed_roots(str(resolved), context, writable=request.writable):
        raise DriverError(f"{filled} is not among the folders a server may see.", permanent=True, code="mount.refused")
    if request.writable:
        resolved.mkdir(parents=True, exist_ok=True)
    return Mount(str(resolved), request.target, request.writable)


def _allowed_roots(source: str, context: RunContext | None, *, writable: bool) -> bool:
    """Whether `source` is inside a folder for servers. A run's server sees its own mission's folder only."""
    path = _state() / source
    mission = "mission" if context is None else str(context.mission_id or "none")
    roots = [_state() / "missions" / mission]
    if not writable:  # every organisation's servers see these
        roots += [_state() / "data", PROGRAMS.resolve(), _state() / "environments"]
    return any(path == root or root in path.parents for root in roots)


def _state() -> Path:
    folder: Path = settings.CONFIG.state_dir
    return folder.resolve()


def _make_scratch() -> Path:
    """Folders that stand in for a mission's while only a listing is wanted."""
    parent = _state() / "scratch"
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="listing-", dir=parent))


def _merged(mounts: Sequence[Mount]) -> list[Mount]:
    """Each target once; what a server asks for never replaces what its runtime needs."""
    by_target: dict[str, Mount] = {}
    for mount in mounts:
        by_target.setdefault(mount.target, mount)
    return list(by_target.values())


async def _clear_away(driver: LocalDriver, name: str, scratch: Path | None) -> None:
    with contextlib.suppress(DriverError):
        await asyncio.to_thread(driver.delete, name)
    if scratch:
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
