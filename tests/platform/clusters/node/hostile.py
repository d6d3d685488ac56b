"""A hostile program: tries every way out it knows and prints, per attempt, the refusal's errno name or what it got."""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
ATTEMPTS = {}
INHERITED = {int(name) for name in os.listdir("/proc/self/fd")} - {3}  # 3 is the listing itself


def attempt(function):
    ATTEMPTS[function.__name__] = function
    return function


def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return f"got {result}"


def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as connection:
        connection.settimeout(2)
        connection.connect(address)
        if kind == socket.SOCK_DGRAM:
            connection.send(b"x")
        return "connected"


def read(path):
    with open(path, "rb") as stream:
        return f"read {len(stream.read(100))} bytes"


def write(path, flags=os.O_WRONLY | os.O_CREAT):
    os.close(os.open(path, flags, 0o600))
    return "opened for writing"


@attempt
def host_loopback():
    return connect(socket.AF_INET, ("127.0.0.1", int(os.environ["HOST_PORT"])))


@attempt
def host_loopback_v6():
    return connect(socket.AF_INET6, ("::1", int(os.environ["HOST_PORT"])))


@attempt
def internet():
    return connect(socket.AF_INET, ("1.1.1.1", 443))


@attempt
def internet_datagram():
    return connect(socket.AF_INET, ("8.8.8.8", 53), socket.SOCK_DGRAM)


@attempt
def raw_socket():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "made"


@attempt
def packet_socket():
    socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM).close()
    return "made"


@attempt
def machine_socket():
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    return "made"


@attempt
def kernel_crypto_socket():
    socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close()
    return "made"


@attempt
def audit_netlink_socket():
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9).close()
    return "made"


@attempt
def host_abstract_socket():
    return connect(socket.AF_UNIX, "\0" + os.environ["HOST_ABSTRACT"])


@attempt
def node_socket():
    return connect(socket.AF_UNIX, os.environ["NODE_SOCKET"])


@attempt
def host_password_file():
    text = Path("/etc/passwd").read_text()
    if "root:" in text:
        return text
    raise OSError(errno.ENOENT, "only our own line")


@attempt
def host_shadow_file():
    return read("/etc/shadow")


@attempt
def node_state():
    return str(os.listdir(os.environ["STATE"]))


@attempt
def secret_of_the_host():
    return read(os.environ["CANARY"])


@attempt
def secret_of_the_host_through_a_link():
    link = os.environ["SHARED"] + "/link"
    if not os.path.lexists(link):
        os.symlink(os.environ["CANARY"], link)
    return read(link)


@attempt
def secret_of_the_host_through_dots():
    return read(os.environ["SHARED"] + "/../" + os.path.basename(os.environ["CANARY"]))


@attempt
def files_of_another_run():
    return str(os.listdir(os.environ["OTHER_RUN"]))


@attempt
def kernel_interface():
    return str(os.listdir("/sys"))


@attempt
def cgroup_files():
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup" in line:
            return line
    return write("/sys/fs/cgroup/memory/memory.limit_in_bytes", os.O_WRONLY)


@attempt
def write_programs():
    return write("/usr/bin/remit-test")


@attempt
def write_read_only_mount():
    return write(os.environ["READ_ONLY"] + "/x")


@attempt
def write_the_root():
    return write("/x")


@attempt
def write_devices():
    return write("/dev/x")


@attempt
def crash_handler():
    return write("/proc/sys/kernel/core_pattern", os.O_WRONLY)


@attempt
def any_machine_setting():
    opened = []
    for name in os.listdir("/proc"):
        if name.isdigit() or os.path.islink(f"/proc/{name}"):
            continue
        paths = [f"/proc/{name}"]
        for folder, _, files in os.walk(f"/proc/{name}"):
            paths += [os.path.join(folder, file) for file in files]
        for path in paths:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                opened.append(path)
            except OSError:
                continue
    if opened:
        return str(opened)
    raise OSError(errno.EROFS, "none")


@attempt
def memory_of_the_first_process():
    return write("/proc/1/mem", os.O_RDWR)


@attempt
def environment_of_the_first_process():
    return read("/proc/1/environ")


@attempt
def other_processes():
    seen = [pid for pid in os.listdir("/proc") if pid.isdigit()]
    if len(seen) > 3:
        return str(seen)
    raise OSError(errno.ESRCH, "only our own")


@attempt
def signal_the_first_process():
    os.kill(1, signal.SIGKILL)
    raise OSError(errno.EPERM, "still here")


@attempt
def signal_a_host_process():
    os.kill(int(os.environ["HOST_PID"]), 0)
    return "reached"


@attempt
def raise_open_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.prlimit(0, resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    return "raised"


@attempt
def raise_file_size():
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.prlimit(os.getpid(), resource.RLIMIT_FSIZE, (hard * 2, hard * 2))
    return "raised"


@attempt
def larger_priority():
    os.nice(-5)
    return "raised"


@attempt
def user_namespace():
    if libc.unshare(0x10000000) != 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "made"


@attempt
def user_namespace_by_clone():
    return call(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)


@attempt
def user_namespace_by_clone3():
    arguments = struct.pack("=8Q", 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    return call(435, arguments, len(arguments))


@attempt
def mount_something():
    if libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None) != 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "mounted"


@attempt
def mount_by_new_calls():
    return call(430, b"tmpfs", 0)


@attempt
def change_root():
    os.chroot("/tmp")
    return "changed"


@attempt
def enter_namespace_of_first_process():
    descriptor = os.open("/proc/self/ns/user", os.O_RDONLY)
    if libc.setns(descriptor, 0) != 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "entered"


@attempt
def trace_the_parent():
    if libc.ptrace(16, os.getppid(), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "traced"


@attempt
def read_memory_of_another():
    return call(310, os.getppid(), 0, 0, 0, 0, 0)


@attempt
def file_by_handle():
    handle = struct.pack("=IiQ", 8, 1, 2)
    return call(304, -100, handle, 0)


@attempt
def load_bpf():
    return call(321, 0, bytes(72), 72)


@attempt
def watch_performance():
    return call(298, bytes(128), 0, -1, -1, 0)


@attempt
def page_faults_in_user_space():
    return call(323, 1)


@attempt
def io_ring():
    return call(425, 4, bytes(120))


@attempt
def kernel_keys():
    return call(250, 0, -3, 0)


@attempt
def kernel_log():
    return call(103, 10, 0, 0)


@attempt
def restart_the_machine():
    return call(169, 0xFEE1DEAD, 672274793, 0, 0)


@attempt
def calls_of_the_other_numbering():
    return call(0x40000000 | 39)


@attempt
def calls_of_the_32_bit_kind():
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, getpid; int 0x80; ret
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    return f"pid {function()}"


@attempt
def type_into_the_terminal():
    descriptor = 0
    if os.path.exists("/dev/ptmx"):
        _, descriptor = os.openpty()
    fcntl.ioctl(descriptor, 0x5412, b"x")
    return "typed"


@attempt
def type_into_the_terminal_with_high_bits():
    return call(16, 0, ctypes.c_ulong(0x100005412), b"x")


@attempt
def become_root():
    os.setuid(0)
    return "became"


@attempt
def make_a_disk_device():
    os.mknod("/tmp/disk", 0o060600, os.makedev(254, 0))
    return "made"


@attempt
def rename_the_machine():
    socket.sethostname("owned")
    return "renamed"


@attempt
def inherited_descriptors():
    if {0, 1, 2} != INHERITED:
        return str(INHERITED)
    raise OSError(errno.EBADF, "none")


@attempt
def capabilities():
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    held = {key: status[key] for key in ("CapPrm", "CapEff", "CapBnd", "CapAmb") if int(status[key], 16)}
    if held or status["NoNewPrivs"] != "1" or status["Seccomp"] != "2":
        return str((held, status["NoNewPrivs"], status["Seccomp"]))
    raise OSError(errno.EPERM, "none")


def main(names):
    results = {}
    for name in names:
        function = ATTEMPTS[name]
        child_read, child_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(child_read)
            try:
                answer = "GOT " + str(function())
            except OSError as error:
                answer = errno.errorcode.get(error.errno, "timeout" if isinstance(error, TimeoutError) else str(error))
            except BaseException as error:
                answer = "BROKEN " + repr(error)
            os.write(child_write, answer.encode()[:4000])
            os._exit(0)
        os.close(child_write)
        with os.fdopen(child_read, "rb") as stream:
            results[name] = stream.read().decode() or "died"
        os.waitpid(pid, 0)
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1:] or list(ATTEMPTS))
