"""What a sandbox printed: the newest part of it, in one file of fixed size. Reading never sees more than the cap."""

from __future__ import annotations

import os
from pathlib import Path

from controlplane.clusters.types import MIB, LogChunk

CAPACITY_BYTES = 1 * MIB


class OutputRing:
    """Byte `n` of the output lives at file position `n % capacity`; older bytes are overwritten."""

    def __init__(self, path: Path, *, capacity: int = CAPACITY_BYTES) -> None:
        self._path = path
        self._capacity = capacity
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self.total_bytes = 0

    def append(self, data: bytes) -> None:
        kept = data[-self._capacity :]
        position = (self.total_bytes + len(data) - len(kept)) % self._capacity
        first = kept[: self._capacity - position]
        os.pwrite(self._descriptor, first, position)
        if len(first) < len(kept):
            os.pwrite(self._descriptor, kept[len(first) :], 0)
        self.total_bytes += len(data)

    def read(self, *, offset: int, limit: int) -> LogChunk:
        """Bytes from `offset` on. Where they are gone, from the oldest kept one, with the gap as `dropped_bytes`."""
        offset = min(max(offset, 0), self.total_bytes)
        oldest = max(0, self.total_bytes - self._capacity)
        begin = max(offset, oldest)
        length = min(max(limit, 0), self.total_bytes - begin)
        position = begin % self._capacity
        data = os.pread(self._descriptor, min(length, self._capacity - position), position)
        if len(data) < length:
            data += os.pread(self._descriptor, length - len(data), 0)
        return LogChunk(offset=begin, data=data, dropped_bytes=begin - offset)

    def tail(self, limit: int = 2000) -> str:
        chunk = self.read(offset=self.total_bytes - limit, limit=limit)
        return chunk.data.decode("utf-8", "replace").strip()

    def close(self) -> None:
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)
