"""Limits and accounting by control groups, version 2 or 1, where writable. Knows directories, not sandboxes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from controlplane.clusters.types import Resources

CPU_PERIOD_MICROSECONDS = 100_000
CPU_MICROSECONDS_PER_MILLICORE = CPU_PERIOD_MICROSECONDS // 1000
CONTROLLERS = ("cpu", "memory", "pids")


class ResizeRefused(Exception):
    """The kernel or this machine said no to a size; the sizes from before still hold."""


@dataclass(frozen=True)
class Usage:
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    out_of_memory_kills: int = 0


class Cgroup:
    """The control group of one sandbox. Subclasses know the files of their version."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders

    def join_files(self) -> list[str]:
        """Files to which a process writes 0 to move itself in."""
        return sorted({str(folder / "cgroup.procs") for folder in self._folders.values()})

    def apply(self, wanted: Resources, held: Resources | None) -> None:
        """Set all sizes, or none: after ResizeRefused the sizes of `held` are back. Disk is not for here."""
        try:
            self._set_memory(wanted.memory_bytes)
            self._set_pids(wanted.pids)
            self._set_cpu(wanted.cpu_millicores)
        except (OSError, ResizeRefused) as error:
            if held is not None:
                for restore, value in (
                    (self._set_memory, held.memory_bytes),
                    (self._set_pids, held.pids),
                    (self._set_cpu, held.cpu_millicores),
                ):
                    with contextlib.suppress(OSError, ResizeRefused):
                        restore(value)
            if isinstance(error, ResizeRefused):
                raise
            raise ResizeRefused(_sentence(error)) from error

    def usage(self) -> Usage:
        raise NotImplementedError

    def processes(self) -> set[int]:
        found: set[int] = set()
        for folder in self._folders.values():
            with contextlib.suppress(OSError):
                found.update(int(line) for line in (folder / "cgroup.procs").read_text().split())
        return found - {0}

    def kill(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> bool:
        """Remove the directories; False while a dying process still holds one."""
        gone = True
        for folder in set(self._folders.values()):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone

    def _set_memory(self, value: int) -> None:
        raise NotImplementedError

    def _set_cpu(self, millicores: int) -> None:
        raise NotImplementedError

    def _set_pids(self, value: int) -> None:
        folder = self._folders.get("pids")
        if folder is None:
            return
        used = int(_read(folder / "pids.current"))
        if value < used:
            raise ResizeRefused(f"{used} processes are running, more than the {value} asked for.")
        _write(folder / "pids.max", str(value))


class CgroupV1(Cgroup):
    def usage(self) -> Usage:
        cpu = memory = kills = 0
        with contextlib.suppress(OSError, KeyError):
            cpu = int(_read(self._folders["cpuacct"] / "cpuacct.usage"))
        with contextlib.suppress(OSError, KeyError):
            memory = int(_read(self._folders["memory"] / "memory.max_usage_in_bytes"))
            kills = _keyed(self._folders["memory"] / "memory.oom_control").get("oom_kill", 0)
        return Usage(cpu / 1e9, memory, kills)

    def _set_memory(self, value: int) -> None:
        folder = self._folders.get("memory")
        if folder is None:
            return
        plain, with_swap = folder / "memory.limit_in_bytes", folder / "memory.memsw.limit_in_bytes"
        used = int(_read(folder / "memory.usage_in_bytes"))
        # memory + swap may never be below memory: raise it first, lower it last.
        order = [with_swap, plain] if value > int(_read(plain)) else [plain, with_swap]
        try:
            for path in order:
                if path.exists():
                    _write(path, str(value))
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise ResizeRefused(f"{used} bytes of memory are in use, more than the {value} asked for.") from error
            raise

    def _set_cpu(self, millicores: int) -> None:
        folder = self._folders.get("cpu")
        if folder is None:
            return
        _write(folder / "cpu.cfs_period_us", str(CPU_PERIOD_MICROSECONDS))
        _write(folder / "cpu.cfs_quota_us", str(millicores * CPU_MICROSECONDS_PER_MILLICORE))


class CgroupV2(Cgroup):
    @property
    def _folder(self) -> Path:
        return self._folders["memory"]

    def usage(self) -> Usage:
        cpu = memory = kills = 0
        with contextlib.suppress(OSError):
            cpu = _keyed(self._folder / "cpu.stat").get("usage_usec", 0)
            kills = _keyed(self._folder / "memory.events").get("oom_kill", 0)
            memory = int(_read(self._folder / "memory.peak"))
        return Usage(cpu / 1e6, memory, kills)

    def kill(self) -> None:
        try:
            _write(self._folder / "cgroup.kill", "1")
        except OSError:
            super().kill()

    def _set_memory(self, value: int) -> None:
        # Unlike version 1, lowering memory.max below the use kills: reclaim first, and refuse what cannot be reclaimed.
        used = int(_read(self._folder / "memory.current"))
        if value < used:
            with contextlib.suppress(OSError):
                _write(self._folder / "memory.reclaim", str(used - value))
            used = int(_read(self._folder / "memory.current"))
        if value < used:
            raise ResizeRefused(f"{used} bytes of memory are in use, more than the {value} asked for.")
        _write(self._folder / "memory.max", str(value))
        with contextlib.suppress(OSError):
            _write(self._folder / "memory.swap.max", "0")

    def _set_cpu(self, millicores: int) -> None:
        _write(self._folder / "cpu.max", f"{millicores * CPU_MICROSECONDS_PER_MILLICORE} {CPU_PERIOD_MICROSECONDS}")


@dataclass(frozen=True)
class CgroupTree:
    """The directory of one node, below the node's own control group, in which its sandboxes get theirs."""

    version: int
    bases: dict[str, Path]

    @property
    def limits(self) -> tuple[str, ...]:
        return tuple(name for name in CONTROLLERS if name in self.bases)

    def create(self, name: str) -> Cgroup:
        for folder in {base / name for base in self.bases.values()}:
            with contextlib.suppress(OSError):
                folder.rmdir()  # an empty one of the same name would bring its old counters along
            folder.mkdir(parents=True, exist_ok=True)
        return self._cgroup(name)

    def sweep(self, *, patience_seconds: float = 5.0) -> None:
        """Kill and remove what an earlier node of the same name left behind."""
        names = {entry.name for base in set(self.bases.values()) for entry in base.iterdir() if entry.is_dir()}
        deadline = time.monotonic() + patience_seconds
        for name in names:
            left = self._cgroup(name)
            while not left.remove() and time.monotonic() < deadline:
                left.kill()
                time.sleep(0.02)

    def _cgroup(self, name: str) -> Cgroup:
        folders = {controller: base / name for controller, base in self.bases.items()}
        return CgroupV2(folders) if self.version == 2 else CgroupV1(folders)

    def remove(self) -> None:
        for base in set(self.bases.values()):
            with contextlib.suppress(OSError):
                base.rmdir()


def tree_label(state: Path) -> str:
    """The name of a node's tree: the same for every node that follows on the same state folder."""
    return "remit-" + hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:12]


def find_tree(label: str) -> CgroupTree | None:
    """The best tree this process may write, or None. `label` tells the nodes of one machine apart."""
    try:
        own = _own_paths()
        mounts = _cgroup_mounts()
    except OSError:
        return None
    return _tree_v2(label, own, mounts) or _tree_v1(label, own, mounts)


def _tree_v2(label: str, own: dict[str, str], mounts: dict[str, tuple[str, Path]]) -> CgroupTree | None:
    if "" not in own or "" not in mounts:
        return None
    home = _below(mounts[""], own[""])
    try:
        if not set(CONTROLLERS) <= set(_read(home / "cgroup.controllers").split()):
            return None
        base = home / label
        base.mkdir(exist_ok=True)
        wanted = " ".join(f"+{name}" for name in CONTROLLERS)
        try:
            _write(home / "cgroup.subtree_control", wanted)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # A group that hands controllers down may hold no process itself; this works when it holds only the node.
            leaf = home / f"{label}-node"
            leaf.mkdir(exist_ok=True)
            _write(leaf / "cgroup.procs", "0")
            _write(home / "cgroup.subtree_control", wanted)
        _write(base / "cgroup.subtree_control", wanted)
    except OSError:
        return None
    return CgroupTree(2, dict.fromkeys(CONTROLLERS, base))


def _tree_v1(label: str, own: dict[str, str], mounts: dict[str, tuple[str, Path]]) -> CgroupTree | None:
    bases: dict[str, Path] = {}
    for controller in (*CONTROLLERS, "cpuacct"):
        if controller not in own or controller not in mounts:
            continue
        base = _below(mounts[controller], own[controller]) / label
        try:
            base.mkdir(exist_ok=True)
        except OSError:
            continue
        if os.access(base / "cgroup.procs", os.W_OK):
            bases[controller] = base
    return CgroupTree(1, bases) if set(bases) & set(CONTROLLERS) else None


def _own_paths() -> dict[str, str]:
    """Controller → path of this process within its hierarchy; version 2 has the empty name."""
    paths: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def _cgroup_mounts() -> dict[str, tuple[str, Path]]:
    """Controller → (root of the mount within the hierarchy, where it is mounted)."""
    mounts: dict[str, tuple[str, Path]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _source, options) = left.split(), right.split(" ", 2)
        place = (fields[3], Path(fields[4]))
        if kind == "cgroup2":
            mounts.setdefault("", place)
        elif kind == "cgroup":
            for controller in options.split(","):
                mounts.setdefault(controller, place)
    return mounts


def _below(mount: tuple[str, Path], path: str) -> Path:
    root, place = mount
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    candidate = place / path.lstrip("/")
    return candidate if candidate.is_dir() else place


def _read(path: Path) -> str:
    return path.read_text().strip()


def _write(path: Path, value: str) -> None:
    # os.write reports the kernel's refusal here and now; a buffered file would swallow it when it is closed.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _keyed(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def _sentence(error: OSError) -> str:
    return f"{Path(str(error.filename)).name if error.filename else 'limit'}: {error.strerror}."
