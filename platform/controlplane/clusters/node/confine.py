"""Process isolation where bubblewrap is missing: own namespaces, a root of listed paths, Landlock, system call filter.

Run by path as a bare interpreter with a JSON plan on a file descriptor; imports the standard library only. The parent
waits and mirrors the exit. The child is the first of its process namespace: it builds the root, gives up every right
and becomes the command.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import platform
import signal
import struct
import sys
from typing import Any

INSIDE_ID = 65534

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_SLAVE, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    4096,
    16384,
    1 << 19,
    1 << 18,
)
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECCOMP_MODE_FILTER = 2
# Numbers of calls that the C library has no function for; those from 424 on are the same on every machine.
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_MOUNT_SETATTR = 442
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
LANDLOCK_READ = 0b1101  # execute, read file, read directory
LANDLOCK_FILE_ONLY = 0b111 | 1 << 14 | 1 << 15  # execute, write, read, truncate, device ioctl
LANDLOCK_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
LANDLOCK_SCOPES = 0b11  # abstract unix sockets, signals

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def main() -> int:
    with os.fdopen(int(sys.argv[1]), "rb") as stream:
        plan: dict[str, Any] = json.load(stream)
    report_fd: int = plan["report_fd"]
    os.set_inheritable(report_fd, False)
    enter_namespaces()
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "death signal")  # a change of user may have cleared it
    child = os.fork()
    if child == 0:
        become_the_command(plan)
    os.write(report_fd, json.dumps({"child-pid": child, "pid-namespace": child_namespace()}).encode() + b"\n")
    # Nothing of the sandbox's streams may be held by the waiting parent.
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, 4096)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def child_namespace() -> int:
    return os.stat("/proc/self/ns/pid_for_children").st_ino


def enter_namespaces() -> None:
    user, group = os.geteuid(), os.getegid()
    everything = (
        CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
    )
    check(libc.unshare(everything), "own namespaces")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{INSIDE_ID} {user} 1"),
        ("gid_map", f"{INSIDE_ID} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as stream:
            stream.write(text)


def become_the_command(plan: dict[str, Any]) -> None:
    """In the child. Any failure ends it with a sentence on standard error, which the node reads."""
    try:
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "death signal")
        bring_loopback_up()
        libc.sethostname(b"sandbox", 7)
        build_root(plan)
        give_up_capabilities()
        check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
        restrict_files(plan["writable"])
        install_filter(base64.b64decode(plan["filter"]))
        os.execve(plan["argv"][0], plan["argv"], plan["env"])  # noqa: S606
    except OSError as error:
        os.write(2, f"process isolation: {error}\n".encode())
    os._exit(126)


def bring_loopback_up() -> None:
    import fcntl
    import socket

    flags_up_running = 0x1 | 0x40
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", flags_up_running))  # SIOCSIFFLAGS


def build_root(plan: dict[str, Any]) -> None:
    """A small tmpfs holding only the listed mounts becomes /; the machine's own root is let go."""
    mount(None, "/", None, MS_REC | MS_SLAVE, None)
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")  # noqa: S108
    for name in ("new", "old"):
        os.mkdir(f"/tmp/{name}")  # noqa: S108
    pivot_root("/tmp", "/tmp/old")  # noqa: S108
    os.chdir("/")
    mount("tmpfs", "/new", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    for link, target in plan["symlinks"]:
        os.symlink(target, "/new" + link)
    for path, size in plan["tmpfs"]:
        os.makedirs("/new" + path, exist_ok=True)
        mount("tmpfs", "/new" + path, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777,size={size}")
    make_devices(plan["shared_memory_bytes"])
    for source, target, writable in plan["mounts"]:
        bind(
            "/old" + source,
            "/new" + target,
            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (0 if writable else MOUNT_ATTR_RDONLY),
        )
    os.makedirs("/new" + plan["workdir"], exist_ok=True)
    make_proc(plan["settings"])
    for path in ("/new/dev", "/new"):
        set_attributes(path, MOUNT_ATTR_RDONLY, 0)
    check(libc.umount2(b"/old", MNT_DETACH), "letting the old root go")
    os.chdir("/new")
    pivot_root(".", ".")
    check(libc.umount2(b".", MNT_DETACH), "letting the building place go")
    os.chdir("/")


def make_devices(shared_memory_bytes: int) -> None:
    os.makedirs("/new/dev", exist_ok=True)
    mount("tmpfs", "/new/dev", "tmpfs", MS_NOSUID, "mode=755,size=64k")
    for name in ("null", "zero", "full", "random", "urandom"):
        bind(f"/old/dev/{name}", f"/new/dev/{name}", MOUNT_ATTR_NOSUID)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"/new/dev/{name}")
    os.mkdir("/new/dev/shm")
    mount("tmpfs", "/new/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777,size={shared_memory_bytes}")


def make_proc(settings: list[str]) -> None:
    """Own /proc, with the machine's settings in it read-only."""
    os.makedirs("/new/proc", exist_ok=True)
    mount("proc", "/new/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
    with open("/new/proc/sys/user/max_user_namespaces", "w") as stream:
        stream.write("0")  # of this user namespace: nothing inside can make another one
    for path in settings:
        bind(f"/new{path}", f"/new{path}", MOUNT_ATTR_RDONLY)


def give_up_capabilities() -> None:
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("=II", 0x20080522, 0)
    check(libc.capset(header, bytes(24)), "giving up capabilities")


def restrict_files(writable: list[str]) -> None:
    """Landlock, where the kernel has it: a second fence around the same list, should the first one ever leak."""
    version = libc.syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    if version < 1:
        return
    rights = (1 << LANDLOCK_RIGHTS_BY_VERSION.get(version, 16)) - 1
    if version >= 6:
        attributes = struct.pack("=QQQ", rights, 0, LANDLOCK_SCOPES)
    elif version >= 4:
        attributes = struct.pack("=QQ", rights, 0)
    else:
        attributes = struct.pack("=Q", rights)
    rules = libc.syscall(SYS_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    check(rules, "Landlock rules")
    allow(rules, "/", LANDLOCK_READ & rights)
    for path in writable:
        allow(rules, path, rights if os.path.isdir(path) else rights & LANDLOCK_FILE_ONLY)
    check(libc.syscall(SYS_LANDLOCK_RESTRICT_SELF, rules, 0), "Landlock")
    os.close(rules)


def allow(rules: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, place)
        check(libc.syscall(SYS_LANDLOCK_ADD_RULE, rules, LANDLOCK_RULE_PATH_BENEATH, rule, 0), f"Landlock for {path}")
    finally:
        os.close(place)


def install_filter(program: bytes) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0), "system call filter")


def bind(source: str, target: str, attributes: int) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    mount(source, target, None, MS_BIND | MS_REC, None)
    set_attributes(target, attributes, AT_RECURSIVE)


def set_attributes(path: str, attributes: int, flags: int) -> None:
    request = struct.pack("=QQQQ", attributes, 0, 0, 0)
    result = libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, request, len(request))
    check(result, f"attributes of {path}")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None) -> None:
    encoded = [None if value is None else value.encode() for value in (source, target, kind, data)]
    result = libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    check(result, f"mount on {target}")


def pivot_root(new: str, old: str) -> None:
    number = SYS_PIVOT_ROOT[platform.machine()]
    check(libc.syscall(number, new.encode(), old.encode()), "own root")


def check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    try:
        code = main()
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(2, f"process isolation: {error}\n".encode())
        code = 126
    sys.exit(code)
