"""From a wished sandbox to exactly what it will see. Refuses wishes that would open the host; starts nothing."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from controlplane.clusters.node import rlimits
from controlplane.clusters.runtime_mounts import interpreter_mounts
from controlplane.clusters.types import MIB, DriverError, Mount, Resources, SandboxSpec

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
WORKDIR = "/workspace"
OUR_FOLDER = "/run/remit"
FIRST_PROCESS = f"{OUR_FOLDER}/inside.py"
GATEWAY_FOLDER = f"{OUR_FOLDER}/gateway"
RESERVED_TARGETS = ("/proc", "/dev", "/sys", "/etc", OUR_FOLDER)
DEFAULT_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": WORKDIR,
    "TMPDIR": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
}
SMALLEST = Resources(cpu_millicores=10, memory_bytes=16 * MIB, pids=4, disk_bytes=1 * MIB)
LARGEST_WALL_CLOCK_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True)
class HostPlaces:
    """Paths of this node. Sandboxes see `etc` and the gateway's folder, never the protected ones."""

    state: Path
    socket: Path
    gateway_socket: Path | None

    @property
    def etc(self) -> Path:
        return self.state / "etc"

    @property
    def protected(self) -> tuple[Path, ...]:
        places = [self.state, self.socket.parent]
        if self.gateway_socket is not None:
            places.append(self.gateway_socket.parent)
        return tuple(place.resolve() for place in places)


@dataclass(frozen=True)
class Plan:
    """What both kinds of isolation set up, in this order: links, temporary file systems, mounts."""

    symlinks: tuple[tuple[str, str], ...]  # (link, target)
    tmpfs: tuple[tuple[str, int], ...]
    shared_memory_bytes: int
    mounts: tuple[Mount, ...]
    settings: tuple[str, ...]  # below /proc, shown read-only
    environment: Mapping[str, str]
    command: tuple[str, ...]
    gateway: str  # socket path inside, "" without
    rlimits: Mapping[str, int]
    checked: Mapping[str, tuple[int, int]]  # target → device and number of what was checked and has to be there

    @property
    def writable(self) -> tuple[str, ...]:
        devices = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "shm"))
        return (*devices, *(path for path, _ in self.tmpfs), *(mount.target for mount in self.mounts if mount.writable))


def make_plan(spec: SandboxSpec, places: HostPlaces, *, cgroups: bool) -> Plan:
    """Raises DriverError `spec.invalid` (permanent) with the reason."""
    check_resources(spec.resources)
    if not 1 <= spec.wall_clock_seconds <= LARGEST_WALL_CLOCK_SECONDS:
        raise invalid(f"wall_clock_seconds must be between 1 and {LARGEST_WALL_CLOCK_SECONDS}.")
    if not spec.command or any("\0" in part for part in spec.command) or not spec.command[0]:
        raise invalid("command must name a program.")
    checked = {mount.target: _check_mount(mount, places) for mount in spec.mounts}
    _check_targets(spec)
    shared_memory = max(spec.resources.disk_bytes // 8, 64 * 1024)
    limits = rlimits.always(spec.resources)
    if not cgroups:
        limits |= rlimits.instead_of_cgroups(spec.resources)
    return Plan(
        symlinks=_system_links(spec),
        tmpfs=(("/tmp", spec.resources.disk_bytes - shared_memory),),  # noqa: S108
        shared_memory_bytes=shared_memory,
        mounts=(*_system_mounts(places), *_gateway_mounts(spec, places), *spec.mounts),
        settings=_machine_settings(),
        environment=_environment(spec),
        command=tuple(spec.command),
        gateway=f"{GATEWAY_FOLDER}/{places.gateway_socket.name}" if spec.gateway and places.gateway_socket else "",
        rlimits=limits,
        checked=checked,
    )


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise invalid("name must be 1 to 63 of a-z, 0-9, dot, underscore, hyphen, and begin with a letter or digit.")


def check_resources(resources: Resources) -> None:
    for field in ("cpu_millicores", "memory_bytes", "pids", "disk_bytes"):
        value, least = getattr(resources, field), getattr(SMALLEST, field)
        if not least <= value < 2**53:
            raise invalid(f"{field} must be at least {least}.")


def invalid(message: str) -> DriverError:
    return DriverError(message, permanent=True, code="spec.invalid")


def write_etc(places: HostPlaces) -> None:
    """The /etc of every sandbox: made here, nothing of the host's but library and program lookup."""
    places.etc.mkdir(mode=0o755, parents=True, exist_ok=True)
    texts = {
        "passwd": f"sandbox:x:65534:65534:sandbox:{WORKDIR}:/bin/sh\n",
        "group": "sandbox:x:65534:\n",
        "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "resolv.conf": "",
    }
    for name, text in texts.items():
        (places.etc / name).write_text(text)
    cache = Path("/etc/ld.so.cache")
    (places.etc / "ld.so.cache").write_bytes(cache.read_bytes() if cache.is_file() else b"")
    (places.etc / "alternatives").mkdir(exist_ok=True)


def _system_mounts(places: HostPlaces) -> tuple[Mount, ...]:
    mounts = [Mount("/usr", "/usr")]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_dir() and not path.is_symlink():
            mounts.append(Mount(str(path), str(path)))
    mounts.append(Mount(str(places.etc), "/etc"))
    if Path("/etc/alternatives").is_dir():
        mounts.append(Mount("/etc/alternatives", "/etc/alternatives"))
    mounts += interpreter_mounts(interpreter(), Path(sys.base_prefix))
    mounts.append(Mount(str(Path(__file__).resolve().with_name("inside.py")), FIRST_PROCESS))
    return tuple(mounts)


def _machine_settings() -> tuple[str, ...]:
    """Entries of /proc that are the machine's, not a process's.

    A sandbox of a node that runs as root has, seen from outside, root's user id without a capability; the kernel lets
    that owner write /proc/sys/kernel/core_pattern, which would be a way out.
    """
    names = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() or entry.is_symlink():
            continue
        if entry.is_dir() or entry.stat().st_mode & 0o222:
            names.append(f"/proc/{entry.name}")
    return tuple(sorted(names))


def interpreter() -> Path:
    """The bare interpreter of this node, without its virtualenv."""
    return Path(sys.executable).resolve()


def _system_links(spec: SandboxSpec) -> tuple[tuple[str, str], ...]:
    links = []
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            links.append((str(path), str(path.readlink())))
    if not any(_within(mount.target, WORKDIR) for mount in spec.mounts):
        links.append((WORKDIR, "tmp"))
    return tuple(links)


def _gateway_mounts(spec: SandboxSpec, places: HostPlaces) -> tuple[Mount, ...]:
    if not spec.gateway:
        return ()
    if places.gateway_socket is None:
        raise DriverError("This node has no gateway to forward to.", permanent=True, code="node.no_gateway")
    # The folder, not the socket: a gateway that starts again makes a new socket, and a mount keeps the old one.
    folder = places.gateway_socket.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name != places.gateway_socket.name)
    if foreign:
        raise DriverError(
            f"The gateway's folder must hold its socket alone, sandboxes see all of it; found {foreign[0]}.",
            code="node.gateway_folder",
        )
    return (Mount(str(folder.resolve()), GATEWAY_FOLDER),)


def _environment(spec: SandboxSpec) -> dict[str, str]:
    environment = {**DEFAULT_ENVIRONMENT, **spec.env, **spec.secrets}
    for name, value in environment.items():
        if not VARIABLE.fullmatch(name) or "\0" in value:
            # The value may be a secret and the name is not trusted either: name the rule only.
            raise invalid("Environment names are letters, digits and underscores, values hold no NUL.")
    return environment


def _check_mount(mount: Mount, places: HostPlaces) -> tuple[int, int]:
    """Device and number of what the source is. It is mounted by its path, and what is there may have been exchanged by
    then: the first process compares before it starts the command."""
    source = Path(mount.source)
    if not source.is_absolute() or "\0" in mount.source:
        raise invalid(f"mount source {mount.source} must be an absolute path.")
    try:
        opened = os.open(source, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise invalid(f"mount source {mount.source}: {error.strerror}.") from error
    try:
        found, path = os.fstat(opened), os.readlink(f"/proc/self/fd/{opened}")
    finally:
        os.close(opened)
    # A link on the way could be changed by whoever may write there, a sandbox for one.
    if path != mount.source:
        raise invalid(f"mount source {mount.source} leads through a link; give the path it means.")
    if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
        raise invalid(f"mount source {mount.source} is neither a folder nor a file.")
    if any(_within(mount.source, root) for root in ("/proc", "/sys", "/dev")):
        raise invalid(f"mount source {mount.source} belongs to the machine itself.")
    for place in places.protected:
        if _within(str(place), mount.source) or _within(mount.source, str(place)):
            raise invalid(f"mount source {mount.source} would show the node's own files.")
    return found.st_dev, found.st_ino


def _check_targets(spec: SandboxSpec) -> None:
    targets = [mount.target for mount in spec.mounts]
    for target in targets:
        if not target.startswith("/") or str(PurePosixPath(target)) != target or ".." in target.split("/"):
            raise invalid(f"mount target {target} must be a plain absolute path.")
        if target in ("/", "/usr", "/tmp", "/run") or any(_within(target, root) for root in RESERVED_TARGETS):  # noqa: S108
            raise invalid(f"mount target {target} is taken.")
    if len(set(targets)) != len(targets):
        raise invalid("two mounts have the same target.")
    for mount in spec.mounts:
        for other in spec.mounts:
            # What lies in a writable mount was perhaps put there by a sandbox: a link would move the second mount.
            if mount.writable and other is not mount and _within(other.target, mount.target):
                raise invalid(f"mount target {other.target} lies inside a writable mount.")


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
