"""The node's unix socket: one JSON object a line. Translates lines to verbs of the node and back; decides nothing."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from controlplane.clusters.node import wire
from controlplane.clusters.node.node import ABANDONED_SECONDS, Node, NodeStartError
from controlplane.clusters.node.plan import HostPlaces
from controlplane.clusters.types import DriverError, Isolation

HEARTBEAT_SECONDS = 10.0
LONGEST_SOCKET_PATH = 100

log = logging.getLogger("remit.node")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    places = HostPlaces(
        state=options.state.absolute(),
        socket=options.socket.absolute(),
        gateway_socket=options.gateway_socket.absolute() if options.gateway_socket else None,
    )
    wanted = (
        [Isolation.BUBBLEWRAP, Isolation.PROCESS] if options.isolation == "auto" else [Isolation(options.isolation)]
    )
    node = Node(
        places,
        isolations=wanted,
        cgroups=options.limits == "auto",
        abandoned_seconds=options.abandoned_seconds,
    )
    try:
        asyncio.run(serve(node, places.socket))
    except NodeStartError as error:
        log.error("%s", error)
        return 2
    return 0


async def serve(node: Node, socket_path: Path) -> None:
    """Serve until SIGTERM or SIGINT, then kill every sandbox."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _prepare_socket_folder(socket_path)
    await node.open()
    connections = Connections(node)
    # Held by the lock of the state directory, so a socket still lying here is a dead node's.
    socket_path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(connections.handle, str(socket_path), limit=wire.MAX_LINE_BYTES)
    socket_path.chmod(0o600)
    log.info("node serves %s", socket_path)
    clearing = asyncio.create_task(node.clear_abandoned())
    await stop.wait()
    clearing.cancel()
    server.close()
    socket_path.unlink(missing_ok=True)
    await node.close()
    await connections.close()


class Connections:
    """Every open connection, so that none outlives the node's stop."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            if _peer_user(writer) in (0, os.geteuid()):
                await self._requests(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                await _send(
                    writer, _failure(DriverError("The line is too long.", permanent=True, code="wire.malformed"))
                )
                return
            try:
                request = wire.decode_line(line)
                verb = request.get("verb")
                if verb == "watch":
                    await self._watch(writer)
                    return
                if verb == "attach":
                    await self._attach(_name(request), reader, writer)
                    return
                result = await self._answer(verb, request)
            except DriverError as error:
                await _send(writer, _failure(error))
            except Exception:
                # The request is not logged: it may hold secrets.
                log.exception("a request failed")
                await _send(writer, _failure(DriverError("The node failed at this request.", code="node.failed")))
            else:
                await _send(writer, {"ok": True, "result": result})

    async def _answer(self, verb: object, request: wire.Wire) -> object:
        node = self._node
        match verb:
            case "info":
                return wire.info_to_wire(node.info())
            case "apply":
                return wire.status_to_wire(node.apply(wire.spec_from_wire(request.get("spec"))))
            case "get":
                return wire.status_to_wire(node.get(_name(request)))
            case "list":
                return [wire.status_to_wire(status) for status in node.list()]
            case "resize":
                resources = wire.resources_from_wire(request.get("resources"))
                return wire.status_to_wire(node.resize(_name(request), resources))
            case "delete":
                await node.delete(_name(request))
                return None
            case "kill":
                names, guests_of = _names(request, "names"), _names(request, "guests_of")
                return [wire.status_to_wire(status) for status in await node.kill(names, guests_of=guests_of)]
            case "logs":
                offset, limit = _whole(request, "offset", 0), _whole(request, "limit", 65536)
                return wire.chunk_to_wire(node.logs(_name(request), offset=offset, limit=limit))
            case _:
                raise DriverError("There is no such verb.", permanent=True, code="wire.malformed")

    async def _watch(self, writer: asyncio.StreamWriter) -> None:
        with self._node.watcher() as watcher:
            await _send(writer, {"ok": True, "result": [wire.status_to_wire(status) for status in self._node.list()]})
            while not watcher.lagging:
                try:
                    status = await asyncio.wait_for(watcher.queue.get(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    await _send(writer, {"heartbeat": True})
                else:
                    await _send(writer, {"status": wire.status_to_wire(status)})

    async def _attach(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            streams = self._node.take_streams(name)
        except DriverError as error:
            await _send(writer, _failure(error))
            return
        try:
            await _send(writer, {"ok": True, "result": None})
        except BaseException:
            streams.taken = False
            raise
        await streams.carry(reader, writer)


async def _send(writer: asyncio.StreamWriter, value: wire.Wire) -> None:
    writer.write(wire.encode_line(value))
    await writer.drain()


def _failure(error: DriverError) -> wire.Wire:
    return {"ok": False, "error": wire.error_to_wire(error)}


def _name(request: wire.Wire) -> str:
    name = request.get("name")
    if not isinstance(name, str):
        raise DriverError("name must be text.", permanent=True, code="wire.malformed")
    return name


def _names(request: wire.Wire, field: str) -> list[str]:
    names = request.get(field, [])
    if not isinstance(names, list) or any(not isinstance(name, str) for name in names):
        raise DriverError(f"{field} must be a list of text.", permanent=True, code="wire.malformed")
    return names


def _whole(request: wire.Wire, field: str, default: int) -> int:
    value = request.get(field, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DriverError(f"{field} must be a whole number.", permanent=True, code="wire.malformed")
    return value


def _peer_user(writer: asyncio.StreamWriter) -> int:
    peer: socket.socket = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return int(user)


def _prepare_socket_folder(path: Path) -> None:
    if len(str(path)) > LONGEST_SOCKET_PATH:
        raise NodeStartError(f"The socket path is longer than {LONGEST_SOCKET_PATH} characters: {path}.")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="localnode", description="Own the sandboxes of this machine.")
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to serve; its folder becomes 0700")
    parser.add_argument("--state", type=Path, required=True, help="folder for output and locks; becomes 0700")
    parser.add_argument("--gateway-socket", type=Path, help="socket forwarded into sandboxes, alone in its folder")
    parser.add_argument("--isolation", choices=("auto", "bubblewrap", "process"), default="auto")
    parser.add_argument(
        "--abandoned-seconds",
        type=float,
        default=ABANDONED_SECONDS,
        help="how long a sandbox with streams lives while nobody is attached to it",
    )
    parser.add_argument(
        "--limits", choices=("auto", "rlimits"), default="auto", help="rlimits: leave control groups alone"
    )
    return parser
