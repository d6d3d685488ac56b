"""The cluster driver for this machine: asks the local node over its unix socket. Keeps no state of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from controlplane.clusters.node import wire
from controlplane.clusters.types import (
    DriverError,
    LogChunk,
    NodeInfo,
    Resources,
    SandboxSpec,
    SandboxStatus,
)

TIMEOUT_SECONDS = 10.0
SILENCE_SECONDS = 30.0  # three heartbeats of the node


class LocalDriver:
    """Implements ClusterDriver, plus `get`, `attach` and `watch`. Safe to share between threads."""

    def __init__(self, socket_path: Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._path = str(socket_path)
        self._timeout = timeout_seconds

    def info(self) -> NodeInfo:
        return wire.info_from_wire(self._call("info"))

    def apply(self, spec: SandboxSpec) -> SandboxStatus:
        return wire.status_from_wire(self._call("apply", spec=wire.spec_to_wire(spec)))

    def get(self, name: str) -> SandboxStatus:
        return wire.status_from_wire(self._call("get", name=name))

    def observe(self) -> Sequence[SandboxStatus]:
        return [wire.status_from_wire(item) for item in self._call("list")]

    def resize(self, name: str, resources: Resources) -> SandboxStatus:
        return wire.status_from_wire(self._call("resize", name=name, resources=wire.resources_to_wire(resources)))

    def delete(self, name: str) -> None:
        self._call("delete", name=name)

    def kill(self, names: Sequence[str], *, guests_of: Sequence[str] = ()) -> Sequence[SandboxStatus]:
        return [
            wire.status_from_wire(item) for item in self._call("kill", names=list(names), guests_of=list(guests_of))
        ]

    def logs(self, name: str, *, offset: int = 0, limit: int = 65536) -> LogChunk:
        return wire.chunk_from_wire(self._call("logs", name=name, offset=offset, limit=limit))

    async def attach(self, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Standard output and input of a sandbox created with `stdio`. Closing the writer only detaches."""
        reader, writer = await self._open({"verb": "attach", "name": name})
        try:
            await asyncio.wait_for(self._read_answer(reader), self._timeout)
        except TimeoutError as error:
            writer.close()
            raise DriverError("The local node did not answer in time.") from error
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def watch(self) -> AsyncIterator[SandboxStatus]:
        """Every known sandbox first, then each change. Raises DriverError when the node is gone."""
        reader, writer = await self._open({"verb": "watch"})
        try:
            first = await asyncio.wait_for(self._read_answer(reader), self._timeout)
            for item in first:
                yield wire.status_from_wire(item)
            while True:
                message = await asyncio.wait_for(self._read_message(reader), SILENCE_SECONDS)
                if "status" in message:
                    yield wire.status_from_wire(message["status"])
        except TimeoutError as error:
            raise DriverError("The local node fell silent.") from error
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _call(self, verb: str, **fields: object) -> Any:
        request = wire.encode_line({"verb": verb, **fields})
        if len(request) > wire.MAX_LINE_BYTES:
            raise DriverError("The request is too large for the node.", permanent=True, code="spec.invalid")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._timeout)
                connection.connect(self._path)
                connection.sendall(request)
                with connection.makefile("rb") as stream:
                    line = stream.readline()
        except TimeoutError as error:
            raise DriverError(f"The local node did not answer “{verb}” in time.") from error
        except OSError as error:
            raise DriverError(f"The local node cannot be reached: {error.strerror}.") from error
        return _result(line)

    async def _open(self, request: wire.Wire) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_unix_connection(self._path, limit=wire.MAX_LINE_BYTES), self._timeout
            )
        except TimeoutError as error:
            raise DriverError("The local node did not answer in time.") from error
        except OSError as error:
            raise DriverError(f"The local node cannot be reached: {error.strerror}.") from error
        try:
            writer.write(wire.encode_line(request))
            await writer.drain()
        except OSError as error:
            writer.close()
            raise DriverError("The local node hung up.") from error
        return reader, writer

    async def _read_answer(self, reader: asyncio.StreamReader) -> Any:
        return _result(await self._read_line(reader))

    async def _read_message(self, reader: asyncio.StreamReader) -> wire.Wire:
        return wire.decode_line(await self._read_line(reader))

    async def _read_line(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise DriverError("The local node hung up.") from error


def _result(line: bytes) -> Any:
    if not line.endswith(b"\n"):
        raise DriverError("The local node hung up.")
    answer = wire.decode_line(line)
    if answer.get("ok") is not True:
        raise wire.error_from_wire(answer.get("error"))
    return answer.get("result")
