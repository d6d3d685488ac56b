"""How a planned sandbox is started: by bubblewrap, or by our own process isolation. Finds out which one works here."""

from __future__ import annotations

import base64
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.clusters.node.plan import FIRST_PROCESS, WORKDIR, Plan, interpreter
from controlplane.clusters.node.seccomp import filter_program
from controlplane.clusters.types import Isolation

PR_SET_PDEATHSIG = 1
OUT_OF_MEMORY_SCORE = b"500"  # when the whole machine runs out, a sandbox goes before Remit's own processes
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Descriptors:
    """The child's ends. `report` tells the first process's host pid, `status` whether the command has started."""

    stdin: int
    stdout: int
    stderr: int
    report: int
    status: int


def start(isolation: Isolation, plan: Plan, ends: Descriptors, *, join_files: Sequence[str]) -> int:
    """Start the sandbox and return the host pid of its outer process, a child of this one."""
    if isolation is Isolation.BUBBLEWRAP:
        return _start_bubblewrap(plan, ends, join_files)
    if isolation is Isolation.PROCESS:
        return _start_process(plan, ends, join_files)
    raise ValueError(f"the local node cannot provide {isolation}")


def installed(isolation: Isolation) -> bool:
    return isolation is not Isolation.BUBBLEWRAP or shutil.which("bwrap") is not None


def landlock_version() -> int:
    """0 where the kernel has none."""
    _libc.syscall.restype = ctypes.c_long
    return max(0, int(_libc.syscall(444, None, 0, 1)))


def _start_bubblewrap(plan: Plan, ends: Descriptors, join_files: Sequence[str]) -> int:
    program = shutil.which("bwrap")
    if program is None:
        raise FileNotFoundError("bwrap is not installed")
    # Options and environment go through a file descriptor: a command line can be read by every user of the machine.
    filter_fd = _memory_file("filter", filter_program())
    options = _memory_file("options", b"\0".join(part.encode() for part in _bubblewrap_options(plan, ends, filter_fd)))
    try:
        return _spawn(
            [program, "--args", str(options), "--", *_first_process(plan, ends)], ends, (options, filter_fd), join_files
        )
    finally:
        os.close(options)
        os.close(filter_fd)


def _bubblewrap_options(plan: Plan, ends: Descriptors, filter_fd: int) -> list[str]:
    options = ["--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--disable-userns"]
    options += ["--unshare-all", "--hostname", "sandbox", "--die-with-parent", "--new-session", "--as-pid-1"]
    options += ["--seccomp", str(filter_fd), "--json-status-fd", str(ends.report), "--clearenv"]
    for name, value in plan.environment.items():
        options += ["--setenv", name, value]
    for link, target in plan.symlinks:
        options += ["--symlink", target, link]
    for path, size in plan.tmpfs:
        options += ["--perms", "1777", "--size", str(size), "--tmpfs", path]
    options += ["--proc", "/proc", "--dev", "/dev"]
    options += ["--perms", "1777", "--size", str(plan.shared_memory_bytes), "--tmpfs", "/dev/shm"]  # noqa: S108
    for path in plan.settings:
        options += ["--ro-bind", path, path]
    for mount in plan.mounts:
        options += ["--bind" if mount.writable else "--ro-bind", mount.source, mount.target]
    if WORKDIR not in (link for link, _ in plan.symlinks):
        options += ["--dir", WORKDIR]
    # The root and /dev are temporary file systems without a size: closed once everything has its place.
    return [*options, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]


def _start_process(plan: Plan, ends: Descriptors, join_files: Sequence[str]) -> int:
    wishes = {
        "report_fd": ends.report,
        "symlinks": plan.symlinks,
        "tmpfs": plan.tmpfs,
        "shared_memory_bytes": plan.shared_memory_bytes,
        "mounts": [(mount.source, mount.target, mount.writable) for mount in plan.mounts],
        "settings": plan.settings,
        "writable": plan.writable,
        "workdir": WORKDIR,
        "filter": base64.b64encode(filter_program()).decode(),
        "argv": _first_process(plan, ends),
        "env": dict(plan.environment),
    }
    wishes_fd = _memory_file("plan", json.dumps(wishes).encode())
    script = str(Path(__file__).resolve().with_name("confine.py"))
    try:
        return _spawn([str(interpreter()), "-I", "-S", script, str(wishes_fd)], ends, (wishes_fd,), join_files)
    finally:
        os.close(wishes_fd)


def _first_process(plan: Plan, ends: Descriptors) -> list[str]:
    options = {
        "status_fd": ends.status,
        "gateway": plan.gateway,
        "rlimits": dict(plan.rlimits),
        "checked": dict(plan.checked),
        "workdir": WORKDIR,
    }
    return [str(interpreter()), "-I", "-S", "-B", FIRST_PROCESS, json.dumps(options), *plan.command]


def _spawn(argv: list[str], ends: Descriptors, extra: Sequence[int], join_files: Sequence[str]) -> int:
    """The child dies with this process, leads its own session and is in its control group from the start."""
    process = subprocess.Popen(
        argv,
        stdin=ends.stdin,
        stdout=ends.stdout,
        stderr=ends.stderr,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        cwd="/",
        pass_fds=(ends.report, ends.status, *extra),
        start_new_session=True,
        # This process has one thread, which is what makes code between fork and exec sound.
        preexec_fn=_before_exec(os.getpid(), join_files),
    )
    process.returncode = 0  # its end is collected by the sandbox, with wait4; keeps Popen from warning or waiting
    return process.pid


def _before_exec(parent: int, join_files: Sequence[str]) -> Callable[[], None]:
    def prepare() -> None:
        if _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(125)
        for path, value in (("/proc/self/oom_score_adj", OUT_OF_MEMORY_SCORE), *((path, b"0") for path in join_files)):
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            os.write(descriptor, value)
            os.close(descriptor)

    return prepare


def _memory_file(name: str, content: bytes) -> int:
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def describe(isolation: Isolation) -> str:
    """One honest sentence for people."""
    if isolation is Isolation.BUBBLEWRAP:
        return (
            "bubblewrap: own namespaces without a network, only listed files, system call filter; the kernel is shared."
        )
    landlock = "Landlock" if landlock_version() else "no Landlock (the kernel lacks it)"
    return (
        f"process isolation ({sys.platform}): own namespaces without a network, only listed files, {landlock}, "
        "system call filter; not a container, the kernel is shared."
    )
