"""Limits where no control group can be written: per process, weaker, and said so. Sizes change through prlimit."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from controlplane.clusters.node.cgroups import ResizeRefused
from controlplane.clusters.types import Resources

OPEN_FILES = 1024


def always(resources: Resources) -> dict[str, int]:
    """Limits every sandbox gets, by the names of the `resource` module."""
    return {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": OPEN_FILES, "RLIMIT_FSIZE": resources.disk_bytes}


def instead_of_cgroups(resources: Resources) -> dict[str, int]:
    """Address space per process and processes per sandbox (the kernel exempts root from the latter)."""
    return {"RLIMIT_AS": resources.memory_bytes, "RLIMIT_NPROC": resources.pids}


def enforced_without_cgroups() -> tuple[str, ...]:
    return ("memory_per_process",) if os.geteuid() == 0 else ("memory_per_process", "pids")


def resize(pid_namespace: int, wanted: Resources, held: Resources) -> None:
    """Set new limits on every process of the namespace. Raises ResizeRefused with the old ones in place."""
    if wanted.cpu_millicores != held.cpu_millicores:
        raise ResizeRefused("CPU is not limited on this machine: it needs control groups.")
    used = {pid: _address_space(pid) for pid in processes_in(pid_namespace)}
    largest = max(used.values(), default=0)
    if wanted.memory_bytes < largest:
        raise ResizeRefused(f"a process uses {largest} bytes of memory, more than the {wanted.memory_bytes} asked for.")
    if wanted.pids < len(used):
        raise ResizeRefused(f"{len(used)} processes are running, more than the {wanted.pids} asked for.")
    try:
        _set_all(pid_namespace, wanted)
    except OSError as error:
        with contextlib.suppress(OSError):
            _set_all(pid_namespace, held)
        raise ResizeRefused("Raising limits of a running process needs control groups or CAP_SYS_RESOURCE.") from error


def processes_in(pid_namespace: int) -> set[int]:
    """Host process ids whose pid namespace has this inode number."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if (entry / "ns" / "pid").stat().st_ino == pid_namespace:
                found.add(int(entry.name))
    return found


def _set_all(pid_namespace: int, resources: Resources) -> None:
    done: set[int] = set()
    # A process forked meanwhile has its parent's old limits: go on until a pass finds nobody new.
    while new := processes_in(pid_namespace) - done:
        for pid in new:
            with contextlib.suppress(ProcessLookupError):
                for name, value in instead_of_cgroups(resources).items():
                    resource.prlimit(pid, getattr(resource, name), (value, value))
        done |= new


def _address_space(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()
