"""Stage 0: what reaches the gate means one thing, names what it seems to name, and has a digest."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from controlplane.common.canonical import canonical_bytes, check_value, digest, digest_of_bytes
from controlplane.common.errors import FieldError, RemitError, invalid
from controlplane.tenancy.types import Permission, Principal, PrincipalKind
from governance.types import Prepared, Proposal

MAX_ARGUMENT_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 32
MAX_JUSTIFICATION: Final = 4000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,159}\Z")
_KEY = re.compile(r"[\x21-\x7e]{1,120}\Z")  # "Idempotency-Key": visible ASCII
_AUDIENCES: Final = frozenset({"mcp", "api", "remit"})


def check_proposal(*, proposer: Principal, proposal: Proposal) -> str:
    """Refuse (4xx) what must not be judged at all; returns the hash that a repeated idempotency key has to match."""
    if not proposer.is_person and proposer.kind is not PrincipalKind.SYSTEM:
        proposer.require(Permission.ACTION_PROPOSE, team_id=proposer.team_id)
    errors = _problems(proposal)
    if errors:
        raise invalid("action.malformed", "This is not a well-formed proposal.", *errors)
    check_value(proposal.arguments, max_depth=MAX_DEPTH)
    check_value(proposal.justification)
    _check_keys(proposal.arguments)
    body = canonical_bytes(
        [proposal.kind, proposal.tool, proposal.arguments, proposal.justification, proposal.audience]
    )
    if len(body) > MAX_ARGUMENT_BYTES:
        raise RemitError(
            "action.too_large", f"The arguments have {len(body)} bytes; at most {MAX_ARGUMENT_BYTES} are judged.", 413
        )
    return digest_of_bytes(body)


def envelope_of(*, proposer: Principal, proposal: Proposal, prepared: Prepared) -> dict[str, Any]:
    """What the digest covers. Kinds add mission version, tool definition and target. In a run its token and its agent's
    own credential are one proposer."""
    by_run = proposer.run_id is not None
    return {
        **prepared.envelope,
        "kind": proposal.kind,
        "tool": proposal.tool,
        "arguments": proposal.arguments,
        "organisation": str(proposer.organisation_id),
        "proposer": f"run:{proposer.run_id}" if by_run else f"{proposer.kind.value}:{proposer.id}",
    }


def digest_of_envelope(envelope: Mapping[str, Any]) -> str:
    return digest(envelope)


def _problems(proposal: Proposal) -> list[FieldError]:
    errors: list[FieldError] = []
    if not _NAME.match(proposal.kind):
        errors.append(FieldError("/kind", "a kind of action, such as tool.call"))
    if proposal.tool and not _NAME.match(proposal.tool):
        errors.append(FieldError("/tool", "plain ASCII letters, digits and _ . / -: look-alike letters are refused"))
    if not isinstance(proposal.arguments, Mapping):
        errors.append(FieldError("/arguments", "an object"))
    if not isinstance(proposal.justification, str) or len(proposal.justification) > MAX_JUSTIFICATION:
        errors.append(FieldError("/justification", f"text of at most {MAX_JUSTIFICATION} characters"))
    if proposal.idempotency_key is not None and not _KEY.match(proposal.idempotency_key):
        errors.append(FieldError("/idempotency_key", "1 to 120 visible ASCII characters"))
    if proposal.audience not in _AUDIENCES:
        errors.append(FieldError("/audience", f"one of: {', '.join(sorted(_AUDIENCES))}"))
    return errors


def _check_keys(value: Any) -> None:
    """Argument names, at any depth, in one spelling: nothing invisible, direction-changing or decomposed."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            for key, child in item.items():
                if not key.isascii() and not _plain(key):
                    raise invalid(
                        "action.confusable_name",
                        "An argument's name holds invisible, look-alike or decomposed characters.",
                        FieldError("/arguments", f"the name {key.encode('ascii', 'backslashreplace').decode()[:80]}"),
                    )
                stack.append(child)
        elif isinstance(item, list | tuple):
            stack.extend(item)


def _plain(key: str) -> bool:
    return unicodedata.normalize("NFKC", key) == key and not any(
        unicodedata.category(character) in ("Cf", "Cc", "Co", "Cn", "Zl", "Zp") for character in key
    )
