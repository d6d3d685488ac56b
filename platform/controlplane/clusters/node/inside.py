"""First process inside every sandbox: forwards the gateway, starts the command, reaps, exits with its code.

Bound into the sandbox as one file and run by a bare interpreter, so it imports the standard library only. It holds no
privilege the command does not have; isolation is set up before it runs.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable

BUFFER = 65536
CONNECT_PATIENCE_SECONDS = 10.0
GATEWAY_ADDRESS = ("127.0.0.1", 8020)
GATEWAY_DOWN = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
PR_SET_DUMPABLE = 4
FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main() -> int:
    options = json.loads(sys.argv[1])
    command = sys.argv[2:]
    status_fd: int = options["status_fd"]
    close_everything_but(status_fd)
    # The command runs as the same user; it must not reach into this process and switch its death signal off.
    if ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        return report_failure(status_fd, "the first process could not protect itself")

    wakeup = Wakeup()
    selector = selectors.DefaultSelector()
    selector.register(wakeup.reader, selectors.EVENT_READ, wakeup.drain)
    forwarder: Forwarder | None = None
    try:
        for target, identity in options["checked"].items():
            there = os.stat(target)
            if [there.st_dev, there.st_ino] != identity:
                return report_failure(status_fd, f"{target}: another file was put in its place while it was mounted")
        if options["gateway"]:
            forwarder = Forwarder(selector, options["gateway"])
        for name, value in options["rlimits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        os.chdir(options["workdir"])
        child = os.posix_spawnp(
            command[0], command, os.environ, setsid=True, setsigmask=[], setsigdef=[signal.SIGPIPE, *FORWARDED_SIGNALS]
        )
    except OSError as error:
        return report_failure(status_fd, f"{error.filename or command[0]}: {error.strerror or error}")
    os.write(status_fd, b'{"started": true}\n')
    os.close(status_fd)
    let_go_of_standard_streams()
    return supervise(child, selector, wakeup, forwarder)


def supervise(child: int, selector: selectors.BaseSelector, wakeup: Wakeup, forwarder: Forwarder | None) -> int:
    """Run until the command ends. Its background processes die with this one, the first of the namespace."""
    wakeup.on_signal = lambda number: signal_group(child, number)
    while True:
        code = reap(child)
        if code is not None:
            return code
        timeout = forwarder.retry_after() if forwarder else None
        for key, events in selector.select(timeout):
            key.data(events)
        if forwarder:
            forwarder.retry_waiting()


def reap(child: int) -> int | None:
    """Collect every zombie; the command's exit code once it is among them (128 + n for signal n)."""
    result = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return result
        if pid == 0:
            return result
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            result = code if code >= 0 else 128 - code


def signal_group(child: int, number: int) -> None:
    try:
        os.killpg(child, number)
    except (ProcessLookupError, PermissionError):
        return


def report_failure(status_fd: int, message: str) -> int:
    os.write(status_fd, json.dumps({"error": message}).encode() + b"\n")
    return 127


def close_everything_but(status_fd: int) -> None:
    os.set_inheritable(status_fd, False)
    os.closerange(3, status_fd)
    os.closerange(status_fd + 1, 4096)


def let_go_of_standard_streams() -> None:
    """So that the far end sees end-of-file when the command, not this process, closes them."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


class Wakeup:
    """Turns signals into readable bytes, so that the one loop sees them."""

    def __init__(self) -> None:
        self.reader, writer = socket.socketpair()
        self.reader.setblocking(False)
        writer.setblocking(False)
        self._writer = writer
        self.on_signal: Callable[[int], None] = lambda _number: None
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, *FORWARDED_SIGNALS):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def drain(self, _events: int) -> None:
        try:
            numbers = self.reader.recv(4096)
        except BlockingIOError:
            return
        for number in numbers:
            if number in FORWARDED_SIGNALS:
                self.on_signal(number)


class Forwarder:
    """127.0.0.1:8020 inside ↔ the gateway's unix socket. A new connection outside for each one inside."""

    def __init__(self, selector: selectors.BaseSelector, path: str) -> None:
        self._selector = selector
        self._path = path
        self._waiting: list[tuple[socket.socket, float]] = []
        self._paused = False
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(GATEWAY_ADDRESS)
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def retry_after(self) -> float | None:
        return 0.05 if self._waiting or self._paused else None

    def retry_waiting(self) -> None:
        """Connections that met a full backlog, and the listener once there are file descriptors again."""
        waiting, self._waiting = self._waiting, []
        for client, since in waiting:
            self._connect(client, since)
        if self._paused:
            self._paused = False
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._selector.unregister(self._listener)
                self._paused = True
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connect(client, time.monotonic())

    def _connect(self, client: socket.socket, since: float) -> None:
        upstream = None
        try:
            upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            upstream.setblocking(False)
            upstream.connect(self._path)
        except BlockingIOError:
            if upstream is not None:
                upstream.close()
            if time.monotonic() - since < CONNECT_PATIENCE_SECONDS:
                self._waiting.append((client, since))
            else:
                Refusal(self._selector, client)
        except OSError:
            if upstream is not None:
                upstream.close()
            Refusal(self._selector, client)
        else:
            Connection(self._selector, client, upstream)


class Connection:
    """Two sockets joined in both directions, each with its own bounded buffer and its own end-of-file."""

    def __init__(self, selector: selectors.BaseSelector, client: socket.socket, upstream: socket.socket) -> None:
        self._selector = selector
        self._sockets = (client, upstream)
        self._buffers = {client: bytearray(), upstream: bytearray()}  # what is still to be written to the key
        self._read_open = {client: True, upstream: True}
        self._write_open = {client: True, upstream: True}
        self._registered: dict[socket.socket, int] = {}
        self._update()

    def _other(self, side: socket.socket) -> socket.socket:
        return self._sockets[1] if side is self._sockets[0] else self._sockets[0]

    def _handle(self, side: socket.socket, events: int) -> None:
        try:
            if events & selectors.EVENT_READ and self._read_open[side]:
                self._read(side)
            if events & selectors.EVENT_WRITE and self._buffers[side]:
                self._write(side)
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        self._update()

    def _read(self, side: socket.socket) -> None:
        data = side.recv(BUFFER)
        other = self._other(side)
        if data:
            self._buffers[other] += data
            self._write(other)
            return
        self._read_open[side] = False

    def _write(self, side: socket.socket) -> None:
        sent = side.send(self._buffers[side])
        del self._buffers[side][:sent]

    def _update(self) -> None:
        for side in self._sockets:
            other = self._other(side)
            if not self._read_open[other] and not self._buffers[side] and self._write_open[side]:
                self._write_open[side] = False
                try:
                    side.shutdown(socket.SHUT_WR)
                except OSError:
                    self._close()
                    return
        if not any(self._write_open.values()):
            self._close()
            return
        for side in self._sockets:
            wanted = 0
            if self._read_open[side] and not self._buffers[self._other(side)]:
                wanted |= selectors.EVENT_READ
            if self._buffers[side]:
                wanted |= selectors.EVENT_WRITE
            self._register(side, wanted)

    def _register(self, side: socket.socket, wanted: int) -> None:
        current = self._registered.get(side, 0)
        if wanted == current:
            return
        if wanted == 0:
            self._selector.unregister(side)
        elif current == 0:
            self._selector.register(side, wanted, lambda events, side=side: self._handle(side, events))
        else:
            self._selector.modify(side, wanted, lambda events, side=side: self._handle(side, events))
        self._registered[side] = wanted

    def _close(self) -> None:
        for side in self._sockets:
            self._register(side, 0)
            side.close()
        # A later event of the same select round may still hold a handler of this connection.
        self._read_open = dict.fromkeys(self._sockets, False)
        self._buffers = {side: bytearray() for side in self._sockets}


class Refusal(Connection):
    """The gateway is not there: answer 503, so that HTTP clients retry as they would for any busy server."""

    def __init__(self, selector: selectors.BaseSelector, client: socket.socket) -> None:
        try:
            near, far = socket.socketpair()
        except OSError:
            client.close()
            return
        near.setblocking(False)
        far.send(GATEWAY_DOWN)
        far.close()
        super().__init__(selector, client, near)

    def _write(self, side: socket.socket) -> None:
        if side is self._sockets[1]:
            self._buffers[side].clear()  # nobody reads the request
            return
        super()._write(side)


if __name__ == "__main__":
    sys.exit(main())
