"""Sandbox values as JSON lines between the local driver and the node. One object a line, both ways."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from controlplane.clusters.types import (
    DriverError,
    ExitReason,
    Isolation,
    LogChunk,
    Mount,
    NodeInfo,
    Resources,
    SandboxPhase,
    SandboxSpec,
    SandboxStatus,
)

MAX_LINE_BYTES = 4 * 1024 * 1024

Wire = dict[str, Any]


def encode_line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def decode_line(line: bytes) -> Wire:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DriverError("The line is not JSON.", permanent=True, code="wire.malformed") from error
    if not isinstance(value, dict):
        raise DriverError("The line is not a JSON object.", permanent=True, code="wire.malformed")
    return value


def spec_to_wire(spec: SandboxSpec) -> Wire:
    return {
        "name": spec.name,
        "command": list(spec.command),
        "env": dict(spec.env),
        "secrets": dict(spec.secrets),
        "mounts": [{"source": m.source, "target": m.target, "writable": m.writable} for m in spec.mounts],
        "resources": resources_to_wire(spec.resources),
        "wall_clock_seconds": spec.wall_clock_seconds,
        "gateway": spec.gateway,
        "stdio": spec.stdio,
        "labels": dict(spec.labels),
        "node_epoch": spec.node_epoch,
    }


def spec_from_wire(value: object) -> SandboxSpec:
    """Raises DriverError `wire.malformed` that names the field, never its value: it may be a secret."""
    fields = _object(value, "spec")
    mounts = [_object(item, "mounts") for item in _sequence(fields.get("mounts", []), "mounts")]
    return SandboxSpec(
        name=_text(fields.get("name"), "name"),
        command=tuple(_text(item, "command") for item in _sequence(fields.get("command"), "command")),
        env=_texts(fields.get("env", {}), "env"),
        secrets=_texts(fields.get("secrets", {}), "secrets"),
        mounts=tuple(
            Mount(
                source=_text(item.get("source"), "mounts.source"),
                target=_text(item.get("target"), "mounts.target"),
                writable=_flag(item.get("writable", False), "mounts.writable"),
            )
            for item in mounts
        ),
        resources=resources_from_wire(fields.get("resources")),
        wall_clock_seconds=_whole(fields.get("wall_clock_seconds"), "wall_clock_seconds"),
        gateway=_flag(fields.get("gateway", True), "gateway"),
        stdio=_flag(fields.get("stdio", False), "stdio"),
        labels=_texts(fields.get("labels", {}), "labels"),
        node_epoch=_text(fields.get("node_epoch", ""), "node_epoch"),
    )


def resources_to_wire(resources: Resources) -> Wire:
    return {
        "cpu_millicores": resources.cpu_millicores,
        "memory_bytes": resources.memory_bytes,
        "pids": resources.pids,
        "disk_bytes": resources.disk_bytes,
    }


def resources_from_wire(value: object) -> Resources:
    fields = _object(value, "resources")
    return Resources(
        cpu_millicores=_whole(fields.get("cpu_millicores"), "cpu_millicores"),
        memory_bytes=_whole(fields.get("memory_bytes"), "memory_bytes"),
        pids=_whole(fields.get("pids"), "pids"),
        disk_bytes=_whole(fields.get("disk_bytes"), "disk_bytes"),
    )


def status_to_wire(status: SandboxStatus) -> Wire:
    return {
        "name": status.name,
        "phase": status.phase,
        "isolation": status.isolation,
        "resources": resources_to_wire(status.resources) if status.resources else None,
        "pid": status.pid,
        "started_at": status.started_at.isoformat() if status.started_at else None,
        "exited_at": status.exited_at.isoformat() if status.exited_at else None,
        "exit_code": status.exit_code,
        "exit_reason": status.exit_reason,
        "message": status.message,
        "cpu_seconds": status.cpu_seconds,
        "peak_memory_bytes": status.peak_memory_bytes,
        "resize_error": status.resize_error,
        "log_bytes": status.log_bytes,
        "labels": dict(status.labels),
    }


def status_from_wire(value: object) -> SandboxStatus:
    fields = _object(value, "status")
    return SandboxStatus(
        name=fields["name"],
        phase=SandboxPhase(fields["phase"]),
        isolation=Isolation(fields["isolation"]) if fields["isolation"] else None,
        resources=resources_from_wire(fields["resources"]) if fields["resources"] else None,
        pid=fields["pid"],
        started_at=_moment(fields["started_at"]),
        exited_at=_moment(fields["exited_at"]),
        exit_code=fields["exit_code"],
        exit_reason=ExitReason(fields["exit_reason"]) if fields["exit_reason"] else None,
        message=fields["message"],
        cpu_seconds=fields["cpu_seconds"],
        peak_memory_bytes=fields["peak_memory_bytes"],
        resize_error=fields["resize_error"],
        log_bytes=fields["log_bytes"],
        labels=fields["labels"],
    )


def info_to_wire(info: NodeInfo) -> Wire:
    return {
        "epoch": info.epoch,
        "isolation": info.isolation,
        "limits": list(info.limits),
        "cpu_millicores": info.cpu_millicores,
        "memory_bytes": info.memory_bytes,
        "message": info.message,
        "stopped_epochs": list(info.stopped_epochs),
    }


def info_from_wire(value: object) -> NodeInfo:
    fields = _object(value, "info")
    return NodeInfo(
        epoch=fields["epoch"],
        isolation=Isolation(fields["isolation"]),
        limits=tuple(fields["limits"]),
        cpu_millicores=fields["cpu_millicores"],
        memory_bytes=fields["memory_bytes"],
        message=fields["message"],
        stopped_epochs=tuple(fields.get("stopped_epochs", ())),  # a node of an earlier version tells none
    )


def chunk_to_wire(chunk: LogChunk) -> Wire:
    return {
        "offset": chunk.offset,
        "data": base64.b64encode(chunk.data).decode(),
        "dropped_bytes": chunk.dropped_bytes,
    }


def chunk_from_wire(value: object) -> LogChunk:
    fields = _object(value, "logs")
    return LogChunk(
        offset=fields["offset"], data=base64.b64decode(fields["data"]), dropped_bytes=fields["dropped_bytes"]
    )


def error_to_wire(error: DriverError) -> Wire:
    return {"message": error.message, "permanent": error.permanent, "code": error.code}


def error_from_wire(value: object) -> DriverError:
    fields = _object(value, "error")
    return DriverError(fields["message"], permanent=fields["permanent"], code=fields["code"])


def _moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None


def _object(value: object, field: str) -> Wire:
    if not isinstance(value, dict):
        raise _malformed(field, "an object")
    return value


def _sequence(value: object, field: str) -> Sequence[object]:
    if not isinstance(value, list):
        raise _malformed(field, "a list")
    return value


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise _malformed(field, "text")
    return value


def _texts(value: object, field: str) -> dict[str, str]:
    return {_text(key, field): _text(item, field) for key, item in _object(value, field).items()}


def _whole(value: object, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _malformed(field, "a whole number")
    return value


def _flag(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise _malformed(field, "true or false")
    return value


def _malformed(field: str, expected: str) -> DriverError:
    return DriverError(f"{field} must be {expected}.", permanent=True, code="wire.malformed")
