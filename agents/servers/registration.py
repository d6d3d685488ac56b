"""What is wrong with a server as somebody wants to register it, field by field."""

from __future__ import annotations

from collections.abc import Sequence

from agents.choices import Transport
from agents.servers import sandboxes
from agents.servers.addresses import url_problem
from agents.servers.definitions import RESERVED_SLUGS, SLUG
from agents.servers.environments import NODE_PACKAGES, names
from agents.servers.types import MountRequest
from controlplane.common.errors import FieldError


def registration_errors(
    name: str,
    slug: str,
    transport: Transport,
    environment: str,
    command: Sequence[str],
    url: str,
    mounts: Sequence[MountRequest],
) -> list[FieldError]:
    errors: list[FieldError] = []
    if not name.strip() or len(name.strip()) > 120:
        errors.append(FieldError("/name", "1 to 120 characters"))
    if not SLUG.match(slug) or len(slug) > 40:
        errors.append(
            FieldError(
                "/slug", "1 to 40 of a-z and 0-9, with single “-” or “_” between them; tools are called <slug>__<tool>"
            )
        )
    elif slug in RESERVED_SLUGS:
        errors.append(FieldError("/slug", f"“{slug}” is Remit's own"))
    if transport is Transport.HTTP:
        problem = url_problem(url)
        if problem:
            errors.append(FieldError("/url", problem))
        if environment or command or mounts:
            errors.append(FieldError("/command", "an HTTP server has a URL, and no program or folders"))
        return errors
    if url:
        errors.append(FieldError("/url", "a stdio server has a program, and no URL"))
    if not environment or environment not in (*names(), *NODE_PACKAGES):
        errors.append(FieldError("/environment", f"one of: {', '.join((*names(), *NODE_PACKAGES))}"))
    if len(command) > 40 or any(not part or len(part) > 400 or "\0" in part for part in command):
        errors.append(FieldError("/command", "up to 40 arguments of 1 to 400 characters"))
    return errors + sandboxes.mount_errors(mounts)
