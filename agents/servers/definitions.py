"""Tool definitions: what of them is pinned and hashed, which names and schemas are usable, arguments against them."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema_rs

from agents.servers.types import RejectedTool, ToolDefinition
from controlplane.common.canonical import canonical_bytes, check_value, digest
from controlplane.common.errors import FieldError, RemitError

MAX_DEFINITION_BYTES = 128 * 1024
PINNED_PARTS = ("name", "description", "inputSchema", "outputSchema", "annotations")
SEPARATOR = "__"
# Without "__" inside and "_" at an end, the first "__" of a qualified name always parts server from tool: no two
# servers can spell the same name.
SLUG = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*\Z")
RESERVED_SLUGS = frozenset({"remit"})
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,120}\Z")
_DRAFTS = frozenset(
    {
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-06/schema",
        "http://json-schema.org/draft-04/schema",
    }
)
_MAX_ERRORS = 8


def qualified(slug: str, name: str) -> str:
    """The name agents see."""
    return f"{slug}{SEPARATOR}{name}"


def sort_out(raw_tools: Sequence[Any]) -> tuple[list[ToolDefinition], list[RejectedTool]]:
    """The tools of a listing that can be pinned, in its order, and those that can't, with the reason.

    A name that is offered twice is ambiguous: none of its definitions is taken.
    """
    names = Counter(tool["name"] for tool in raw_tools if isinstance(tool, dict) and isinstance(tool.get("name"), str))
    accepted: list[ToolDefinition] = []
    rejected: dict[str, RejectedTool] = {}
    for raw in raw_tools:
        name = raw.get("name") if isinstance(raw, dict) else None
        label = name[:60] if isinstance(name, str) else "(no name)"
        if not isinstance(name, str) or not _TOOL_NAME.match(name):
            rejected[label] = RejectedTool(
                label, "Its name has characters other than letters, digits, “_”, “.” and “-”."
            )
        elif names[name] > 1:
            rejected[label] = RejectedTool(label, "The server offers this name more than once.")
        else:
            try:
                accepted.append(pin(raw))
            except RemitError as error:
                rejected[label] = RejectedTool(label, error.message)
    return accepted, list(rejected.values())


def pin(raw: Mapping[str, Any]) -> ToolDefinition:
    """The pinned parts of one tool and their hash. Raises 422 for what can't be hashed or is too large."""
    definition = {part: raw[part] for part in PINNED_PARTS if raw.get(part) is not None}
    check_value(definition)
    size = len(canonical_bytes(definition))
    if size > MAX_DEFINITION_BYTES:
        raise RemitError(
            "tool.definition_too_large",
            f"Its definition has {size} bytes; at most {MAX_DEFINITION_BYTES} are kept.",
            422,
        )
    return ToolDefinition(name=str(raw["name"]), definition=definition, sha256=digest(definition))


def schema_problem(definition: Mapping[str, Any]) -> str:
    """Why nobody could check arguments against this definition; empty when it is usable."""
    schema = definition.get("inputSchema")
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return "Its input schema is not of type object."
    try:
        _validator(json.dumps(schema, sort_keys=True))
    except (ValueError, jsonschema_rs.ReferencingError, jsonschema_rs.ValidationError) as error:
        return f"Its input schema is not usable: {str(error).splitlines()[0][:160]}"
    return ""


def argument_errors(definition: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[FieldError]:
    """What is wrong with `arguments`, at most eight findings. An unusable schema is a finding, never a pass."""
    return _errors(schema_problem(definition) or _validator(_canonical_schema(definition)), arguments)


def call_errors(*, sha256: str, definition: str, arguments: Mapping[str, Any]) -> list[FieldError]:
    """`argument_errors` for the way of every call: the definition as text, looked at once for each hash."""
    return _errors(_looked_at(sha256, definition), arguments)


def _errors(checked: Any, arguments: Mapping[str, Any]) -> list[FieldError]:
    """`checked`: the validator, or as text why there is none."""
    if isinstance(checked, str):
        return [FieldError("", checked)]
    validator = checked
    if validator.is_valid(arguments):
        return []
    errors: list[FieldError] = []
    for error in validator.iter_errors(arguments):
        pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.instance_path)
        errors.append(FieldError(pointer, error.message[:300]))
        if len(errors) == _MAX_ERRORS:
            break
    return errors


@functools.lru_cache(maxsize=512)
def _looked_at(sha256: str, definition: str) -> Any:  # noqa: ARG001 - the hash is the key, the text is long
    parsed = json.loads(definition)
    return schema_problem(parsed) or _validator(_canonical_schema(parsed))


def _canonical_schema(definition: Mapping[str, Any]) -> str:
    return json.dumps(definition["inputSchema"], sort_keys=True)


@functools.lru_cache(maxsize=512)
def _validator(canonical: str) -> Any:
    """Compiled once per schema. Never fetches a reference, and patterns can't run away."""
    schema = json.loads(canonical)
    declared = schema.get("$schema")
    if declared is not None and (not isinstance(declared, str) or declared.rstrip("#") not in _DRAFTS):
        raise ValueError(f"it names an unknown dialect, {str(declared)[:80]}")
    _refuse_remote_references(schema)
    return jsonschema_rs.validator_for(
        schema,
        retriever=_refuse_retrieval,
        validate_formats=False,
        pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000),
    )


def _refuse_remote_references(schema: Any) -> None:
    """References may only point into the schema itself. An `$id` moves what that means: only the root may have one."""
    stack: list[tuple[Any, bool]] = [(schema, True)]
    while stack:
        node, root = stack.pop()
        if isinstance(node, dict):
            for key in ("$ref", "$dynamicRef", "$recursiveRef"):
                target = node.get(key)
                if isinstance(target, str) and not target.startswith("#"):
                    raise ValueError(f"it refers to {target[:80]}, outside of itself")
            if not root and isinstance(node.get("$id"), str):
                raise ValueError("a part of it has an $id of its own")
            stack.extend((child, False) for child in node.values())
        elif isinstance(node, list):
            stack.extend((child, False) for child in node)


def _refuse_retrieval(uri: str) -> Any:
    raise ValueError(f"it refers to {uri[:80]}, outside of itself")
