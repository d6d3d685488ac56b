"""Starting a program so that it can never outlive us, and stopping it. What runs, and when, is decided elsewhere."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.embedded.failures import StartError

LAUNCHER = Path(__file__).with_name("launch.py")
LOG_LIMIT_BYTES = 16 * 1024 * 1024


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
            _launched(program),
            env={**os.environ, **program.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(program.descriptors),
            start_new_session=True,
        )


def run_to_end(program: Program, *, text: str = "") -> int:
    """Run a short program to its end with `text` on its standard input; output goes to the log."""
    with program.log.open("ab") as log:
        return subprocess.run(
            _launched(program),
            env={**os.environ, **program.environment},
            input=text.encode(),
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
            start_new_session=True,
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


def working_in(folder: Path, *, program: str) -> list[int]:
    """Processes of a program whose working directory is this very folder, as far as we may see."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if (entry / "cwd").readlink() == folder and (entry / "exe").readlink().name == program:
                found.append(int(entry.name))
    return found


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
    probe = subprocess.run(
        _launched(Program(argv=(), log=Path(os.devnull), unprivileged=True)), check=False, stderr=subprocess.DEVNULL
    )
    code = probe.returncode
    if code == 0:
        return
    raise StartError(
        f"PostgreSQL does not run as root, and this kernel refuses user namespaces ({os.strerror(abs(code))}).",
        "Run Remit as an ordinary user, raise `sysctl user.max_user_namespaces`, or set DATABASE_URL.",
    )


def _launched(program: Program) -> list[str]:
    """The program behind `launch.py`. Isolated and without site packages, that costs some 15 ms."""
    uid = _unprivileged_uid() if program.unprivileged and os.geteuid() == 0 else 0
    conditions = [str(os.getpid()), str(int(program.death_signal)), str(uid)]
    return [sys.executable, "-I", "-S", str(LAUNCHER), *conditions, *program.argv]


def _unprivileged_uid() -> int:
    """An account that has a name: initdb insists on one."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("nobody").pw_uid
    return next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0), 65534)
