"""Values of the upstream side: where a server is, what a listing said, what came of one call, and what can go wrong."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.choices import CredentialKind, Transport
from controlplane.common.envelope import Envelope

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What one upstream session may cost us. Bytes are counted while reading, never after."""

    message_bytes: int = MIB
    # Everything a server sends while one request waits for its answer: a flood of small notifications is a flood too.
    unanswered_bytes: int = 8 * MIB
    connect_seconds: float = 30.0
    call_seconds: float = 30.0
    idle_seconds: float = 300.0
    tools: int = 500
    pages: int = 50


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class MountRequest:
    """A folder a stdio server wants. `source` is below the state folder; `{run}` and `{mission}` are filled in."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class SealedCredential:
    """What Remit shows a server of itself, still sealed: it is opened where a connection is made and nowhere else."""

    kind: CredentialKind
    envelope: Envelope
    header: str = ""
    token_url: str = ""
    client_id: str = ""
    scope: str = ""


@dataclass(frozen=True)
class ServerAddress:
    """All that opening a session needs, read from the database once."""

    id: uuid.UUID
    organisation_id: uuid.UUID
    slug: str
    transport: Transport
    environment: str = ""
    command: Sequence[str] = ()
    mounts: Sequence[MountRequest] = ()
    url: str = ""
    protocol_version: str = ""
    credential: SealedCredential | None = None


@dataclass(frozen=True)
class RunContext:
    """The run on whose behalf a server is used. Without a run: a short listing for the registry."""

    run_id: uuid.UUID | None = None
    mission_id: uuid.UUID | None = None


NO_RUN = RunContext()


@dataclass(frozen=True)
class PinnedTool:
    """One approved tool as the gate judged it."""

    id: uuid.UUID
    server: ServerAddress
    name: str
    qualified_name: str
    definition_sha256: str
    read_only: bool = False


@dataclass(frozen=True)
class ToolTraits:
    """What people say of a tool; never taken from the server's own annotations."""

    read_only: bool = False
    reversible: bool = False
    effects: Sequence[str] = ()


@dataclass(frozen=True)
class ToolDefinition:
    """A tool as its server defines it, the parts we pin and show, and the hash over them."""

    name: str
    definition: Mapping[str, Any]
    sha256: str


@dataclass(frozen=True)
class RejectedTool:
    """A tool that can't be known by us at all, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """One answer to tools/list, all pages."""

    protocol_version: str
    tools: Sequence[ToolDefinition] = ()
    rejected: Sequence[RejectedTool] = ()


@dataclass(frozen=True)
class Refreshed:
    """What one listing changed. Names are the tools' own, without the server's."""

    added: Sequence[str] = ()
    quarantined: Sequence[str] = ()
    removed: Sequence[str] = ()
    rejected: Sequence[RejectedTool] = ()
    fault: str = ""


class UpstreamKind(enum.StrEnum):
    RESULT = "result"  # the tool answered; its own `isError` is in `content`
    ERROR = "error"  # it is certain that nothing was done, or the server said so
    UNKNOWN = "unknown"  # sent, and no usable answer: it may have happened


@dataclass(frozen=True)
class UpstreamResult:
    """What came of one call. `content` is the server's own and untrusted. `sent` False: it never saw the call."""

    kind: UpstreamKind
    reason_code: str = ""
    message: str = ""
    content: Mapping[str, Any] = field(default_factory=dict)
    result_sha256: str = ""
    sent: bool = True


class ServerFault(Exception):
    """A server could not be reached or misbehaved. `code` is stable: `upstream.*`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
