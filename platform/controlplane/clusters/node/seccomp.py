"""The system call filter of every sandbox, as the bytes of a classic BPF program. Builds it; loads it nowhere."""

from __future__ import annotations

import errno
import os
import struct

ALLOW = 0x7FFF0000
REFUSE = 0x00050000  # | errno
KILL_PROCESS = 0x80000000

LOAD_WORD = 0x20
JUMP_EQUAL = 0x15
JUMP_GREATER_OR_EQUAL = 0x35
JUMP_ANY_BIT = 0x45
AND = 0x54
RETURN = 0x06

NUMBER, ARCHITECTURE = 0, 4
ARGUMENT = (16, 24, 32)  # low words of the first three arguments; both supported machines are little-endian

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000

NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_DGRAM, SOCK_TYPE_MASK = 1, 2, 0xF
IP_PROTOCOLS = (0, 6, 17)  # default, TCP, UDP
NETLINK_ROUTE = 0  # getaddrinfo and getifaddrs read addresses with it

# name: (x86_64, aarch64); None where the machine has no such call. Refused with EPERM.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "syslog": (103, 116),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "get_mempolicy": (239, 236),
    "set_mempolicy_home_node": (450, 450),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "lsm_set_self_attr": (460, 460),
}
CLONE = (56, 220)
CLONE3 = (435, 435)
IOCTL = (16, 29)
SOCKET = (41, 198)
SOCKETPAIR = (53, 199)


class UnknownMachine(Exception):
    """No filter is known for this processor; running without one is refused."""


def filter_program(machine: str | None = None) -> bytes:
    """Instructions as `struct sock_filter[]` for `machine` (`uname -m`), default this one."""
    machine = machine or os.uname().machine
    if machine not in ARCHITECTURES:
        raise UnknownMachine(f"no system call filter is known for {machine}")
    column = list(ARCHITECTURES).index(machine)
    program = [
        _instruction(LOAD_WORD, ARCHITECTURE),
        _instruction(JUMP_EQUAL, ARCHITECTURES[machine], 1, 0),
        _instruction(RETURN, KILL_PROCESS),
        _instruction(LOAD_WORD, NUMBER),
    ]
    if machine == "x86_64":
        program += [_instruction(JUMP_GREATER_OR_EQUAL, X32_BIT, 0, 1), _refuse(errno.ENOSYS)]
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            program += [_instruction(JUMP_EQUAL, number, 0, 1), _refuse(errno.EPERM)]
    # clone3 hides its flags behind a pointer; libraries fall back to clone, whose flags can be read.
    program += [_instruction(JUMP_EQUAL, CLONE3[column], 0, 1), _refuse(errno.ENOSYS)]
    program += _when(CLONE[column], _clone_rules())
    program += _when(IOCTL[column], _ioctl_rules())
    program += _when(SOCKET[column], _socket_rules())
    program += _when(SOCKETPAIR[column], _socketpair_rules())
    program.append(_instruction(RETURN, ALLOW))
    return b"".join(program)


def _clone_rules() -> list[bytes]:
    return [
        _instruction(LOAD_WORD, ARGUMENT[0]),
        _instruction(JUMP_ANY_BIT, NEW_NAMESPACES, 0, 1),
        _refuse(errno.EPERM),
        _instruction(RETURN, ALLOW),
    ]


def _ioctl_rules() -> list[bytes]:
    return [
        _instruction(LOAD_WORD, ARGUMENT[1]),
        _instruction(JUMP_EQUAL, TIOCSTI, 0, 1),
        _refuse(errno.EPERM),
        _instruction(JUMP_EQUAL, TIOCLINUX, 0, 1),
        _refuse(errno.EPERM),
        _instruction(RETURN, ALLOW),
    ]


def _socket_rules() -> list[bytes]:
    internet = [
        _instruction(LOAD_WORD, ARGUMENT[1]),
        _instruction(AND, SOCK_TYPE_MASK),
        *_allow_only_listed((SOCK_STREAM, SOCK_DGRAM)),
        _instruction(LOAD_WORD, ARGUMENT[2]),
        *_allow_only_listed(IP_PROTOCOLS),
        _instruction(RETURN, ALLOW),
    ]
    netlink = [
        _instruction(LOAD_WORD, ARGUMENT[2]),
        *_allow_only_listed((NETLINK_ROUTE,)),
        _instruction(RETURN, ALLOW),
    ]
    return [
        _instruction(LOAD_WORD, ARGUMENT[0]),
        _instruction(JUMP_EQUAL, AF_UNIX, 0, 1),
        _instruction(RETURN, ALLOW),
        *_when(AF_NETLINK, netlink),
        *_when(AF_INET, internet),
        *_when(AF_INET6, internet),
        _refuse(errno.EAFNOSUPPORT),
    ]


def _socketpair_rules() -> list[bytes]:
    return [
        _instruction(LOAD_WORD, ARGUMENT[0]),
        _instruction(JUMP_EQUAL, AF_UNIX, 0, 1),
        _instruction(RETURN, ALLOW),
        _refuse(errno.EAFNOSUPPORT),
    ]


def _allow_only_listed(values: tuple[int, ...]) -> list[bytes]:
    """Go on behind this block when the accumulator is one of `values`, else refuse."""
    rules = []
    for position, value in enumerate(values):
        rules.append(_instruction(JUMP_EQUAL, value, len(values) - position, 0))
    return [*rules, _refuse(errno.EPERM)]


def _when(value: int, rules: list[bytes]) -> list[bytes]:
    """Run `rules` (which must end by returning) when the accumulator equals `value`, else step over them."""
    return [_instruction(JUMP_EQUAL, value, 0, len(rules)), *rules]


def _refuse(number: int) -> bytes:
    return _instruction(RETURN, REFUSE | number)


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
