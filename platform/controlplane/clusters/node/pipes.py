"""The node's ends of a sandbox's pipes: reported facts, output, and the standard streams that an attacher takes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

from controlplane.clusters.node.output import OutputRing

READ_BYTES = 65536
LONGEST_FACT_BYTES = 65536
FLOOD_BYTES = 2 * 1024 * 1024
FLOOD_WINDOW_SECONDS = 0.1

Fact = dict[str, Any]


class FactPipe:
    """JSON objects, one a line, from the programs that start a sandbox."""

    def __init__(self, descriptor: int, received: Callable[[Fact], None]) -> None:
        self._descriptor = descriptor
        self._received = received
        self._partial = b""
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self.drain)

    def drain(self) -> None:
        """Read everything that is there now."""
        while self._descriptor >= 0:
            try:
                data = os.read(self._descriptor, READ_BYTES)
            except BlockingIOError:
                return
            if not data or len(self._partial) > LONGEST_FACT_BYTES:
                self.close()
                return
            *lines, self._partial = (self._partial + data).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):
                    fact = json.loads(line)
                    if isinstance(fact, dict):
                        self._received(fact)

    def close(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


class OutputPipe:
    """What the sandbox prints, into its ring. One that prints without end is slowed for the others' sake."""

    def __init__(self, descriptor: int, ring: OutputRing) -> None:
        self._descriptor = descriptor
        self._ring = ring
        self._window_bytes = 0
        self._window_ends = 0.0
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._readable)

    def drain(self, *, at_most: int = 4 * 1024 * 1024) -> None:
        """Read what the pipe still holds, once nobody writes any more."""
        read = 0
        while self._descriptor >= 0 and read < at_most:
            size = self._read()
            if size == 0:
                return
            read += size

    def close(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _readable(self) -> None:
        size = self._read()
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now > self._window_ends:
            self._window_ends, self._window_bytes = now + FLOOD_WINDOW_SECONDS, 0
        self._window_bytes += size
        if self._window_bytes > FLOOD_BYTES and self._descriptor >= 0:
            loop.remove_reader(self._descriptor)
            loop.call_at(self._window_ends, self._listen_again)

    def _listen_again(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().add_reader(self._descriptor, self._readable)

    def _read(self) -> int:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self.close()
            return 0
        self._ring.append(data)
        return len(data)


class StandardStreams:
    """Standard input and output of a sandbox for one attacher at a time. Unread output waits in the pipe."""

    def __init__(self, *, read: int, write: int) -> None:
        self._read_fd, self._write_fd = read, write
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._left_at = asyncio.get_running_loop().time()
        self.taken = False

    @property
    def alone_seconds(self) -> float:
        """For how long nobody has been attached."""
        return 0.0 if self.taken else asyncio.get_running_loop().time() - self._left_at

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join the attacher's connection until either end is gone. The caller has set `taken`."""
        try:
            await self._open()
            inward = asyncio.ensure_future(self._inward(reader))
            outward = asyncio.ensure_future(self._outward(writer))
            _, pending = await asyncio.wait((inward, outward), return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(inward, outward, return_exceptions=True)
        finally:
            self._left_at = asyncio.get_running_loop().time()
            self.taken = False

    def close(self) -> None:
        for transport in self._transports:
            transport.close()
        if not self._transports:
            os.close(self._read_fd)
            os.close(self._write_fd)

    async def _open(self) -> None:
        if self._transports:
            return
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_BYTES)
        read_transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._read_fd, "rb", buffering=0)
        )
        write_transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(self._write_fd, "wb", buffering=0)
        )
        self._transports = [read_transport, write_transport]
        self._reader = reader
        self._writer = asyncio.StreamWriter(write_transport, protocol, None, loop)

    async def _inward(self, reader: asyncio.StreamReader) -> None:
        assert self._writer is not None  # noqa: S101 - opened by carry
        while data := await reader.read(READ_BYTES):
            try:
                self._writer.write(data)
                await self._writer.drain()
            except (BrokenPipeError, ConnectionResetError):
                # The program has closed its input; what it still says is worth hearing.
                while await reader.read(READ_BYTES):
                    continue
                return

    async def _outward(self, writer: asyncio.StreamWriter) -> None:
        assert self._reader is not None  # noqa: S101 - opened by carry
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(READ_BYTES):
                writer.write(data)
                await writer.drain()
