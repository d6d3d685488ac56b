"""Run by path, first thing in every process that `spawn` makes: ties it to its parent's life, then becomes the program.

Arguments: parent's pid, death signal, uid to appear as in a user namespace of its own (0: none), the program, if any.
A program of its own because code between fork and exec must not run in a process that has threads or fork hooks.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
PARENT_IS_GONE = 125


def main(arguments: list[str]) -> int:
    """Never returns when there is a program; otherwise 0, or the error number of the refused user namespace."""
    parent, death_signal, uid = (int(argument) for argument in arguments[:3])
    libc = ctypes.CDLL(None, use_errno=True)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        if uid:
            _enter_user_namespace(libc, uid)
    except OSError as error:
        print(f"The kernel refuses a user namespace: {error.strerror}.", file=sys.stderr)  # noqa: T201 - becomes the log
        return error.errno or 1
    # After the change of credentials, which clears it.
    libc.prctl(PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        return PARENT_IS_GONE
    if program := arguments[3:]:
        os.execv(program[0], program)  # noqa: S606 - that is its purpose
    return 0


def _enter_user_namespace(libc: ctypes.CDLL, uid: int) -> None:
    """Become `uid` in our own eyes while every file on disk stays root's: no account, chown or open folder needed."""
    if libc.unshare(CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} 0 1"), ("gid_map", f"{uid} 0 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, content.encode())
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
