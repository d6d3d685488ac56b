"""Starting a program so that it can never outlive us, and stopping it. What runs, and when, is decided elsewhere."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.embedded.failures import StartError

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
LOG_LIMIT_BYTES = 16 * 1024 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Program:
    """What to execute. `death_signal` reaches it when we die; `unprivileged` hides from it that we are root."""

    argv: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    death_signal: signal.Signals = signal.SIGKILL
    unprivileged: bool = False
    descriptors: Sequence[int] = ()


def spawn(program: Program) -> subprocess.Popen[bytes]:
    """Start in a session of its own (the terminal's Ctrl-C is for us alone). Call from the main thread only:
    the kernel counts the *thread* that started a process as its parent."""
    with program.log.open("ab") as log:
        return subprocess.Popen(
            program.argv,
            env={**os.environ, **program.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(program.descriptors),
            start_new_session=True,
            preexec_fn=_before_exec(program),
        )


def run_to_end(program: Program, *, text: str = "") -> int:
    """Run a short program to its end with `text` on its standard input; output goes to the log."""
    with program.log.open("ab") as log:
        return subprocess.run(
            program.argv,
            env={**os.environ, **program.environment},
            input=text.encode(),
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
            start_new_session=True,
            preexec_fn=_before_exec(program),
        ).returncode


def stop(process: subprocess.Popen[bytes], *, with_signal: signal.Signals, seconds: float) -> None:
    """Ask, wait, then kill the whole session. Returns when the process is gone."""
    if process.poll() is not None:
        return
    process.send_signal(with_signal)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def arguments_of(pid: int) -> list[str]:
    """Command line of a running process; empty when it is gone, a zombie, or not ours to see."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(part) for part in raw.split(b"\0")[:-1]]


def tail(log: Path, *, max_bytes: int = 4096) -> str:
    """The last lines of a log, for the person who has to know why something ended."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - max_bytes))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def shorten(log: Path) -> None:
    """Keep a log from filling the disk: beyond 16 MB its content moves to `<name>.1`. Its writer only appends."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_LIMIT_BYTES:
            shutil.copyfile(log, log.with_suffix(log.suffix + ".1"))
            os.truncate(log, 0)


def check_platform() -> None:
    """StartError when the embedded servers cannot run here at all."""
    if not sys.platform.startswith("linux"):
        raise StartError(
            f"The embedded servers and local sandboxes need Linux; this is {sys.platform}.",
            "Run Remit in a Linux machine or container (deploy/ has an image).",
        )


def check_user_namespace() -> None:
    """StartError when we are root and the kernel refuses the user namespace that hides it from PostgreSQL."""
    if os.geteuid() != 0:
        return
    child = os.fork()
    if child == 0:
        try:
            _enter_user_namespace(_unprivileged_uid())
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return
    raise StartError(
        f"PostgreSQL does not run as root, and this kernel refuses user namespaces ({os.strerror(abs(code))}).",
        "Run Remit as an ordinary user, raise `sysctl user.max_user_namespaces`, or set DATABASE_URL.",
    )


def _before_exec(program: Program) -> Callable[[], None]:
    """What the child does between fork and exec. Everything it needs is looked up before the fork."""
    parent = os.getpid()
    hide_root = program.unprivileged and os.geteuid() == 0
    uid = _unprivileged_uid() if hide_root else 0

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if hide_root:
            _enter_user_namespace(uid)
        # After the change of credentials, which clears it.
        _libc.prctl(PR_SET_PDEATHSIG, int(program.death_signal))
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _enter_user_namespace(uid: int) -> None:
    """Become `uid` in our own eyes while every file on disk stays root's: no account, chown or open folder needed."""
    if _libc.unshare(CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} 0 1"), ("gid_map", f"{uid} 0 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, content.encode())
        os.close(descriptor)


def _unprivileged_uid() -> int:
    """An account that has a name: initdb insists on one."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("nobody").pw_uid
    return next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0), 65534)
