"""Errors as values: code, HTTP status, data, remedies, retryability. One handler per edge puts them into its form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True)
class FieldError:
    """One bad field. `pointer` is a JSON pointer into the body ("/grants/0/tool")."""

    pointer: str
    message: str

    def __str__(self) -> str:
        """ "/grants/0/tool: unknown"; what is said of the whole body names no place."""
        return f"{self.pointer}: {self.message}" if self.pointer else self.message


@dataclass(eq=False)
class RemitError(Exception):
    """Something a caller did or met that has a name.

    `code` is stable and dotted ("mission.not_active"), `message` one sentence for people, `remedies` what to do next,
    `data` JSON-ready facts, `retry_after_seconds` set when the same request may succeed later.
    """

    code: str
    message: str
    status: int = 400
    remedies: Sequence[str] = ()
    errors: Sequence[FieldError] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    retry_after_seconds: int | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def problem(self, *, trace_id: str = "") -> dict[str, Any]:
        """RFC 9457 problem details."""
        return {
            "type": f"https://remit.invalid/problems/{self.code}",
            "title": _TITLES.get(self.status, "Not possible"),
            "status": self.status,
            "detail": self.message,
            "code": self.code,
            "errors": [{"pointer": item.pointer, "detail": item.message} for item in self.errors],
            "remedies": list(self.remedies),
            "trace_id": trace_id,
            **({"data": dict(self.data)} if self.data else {}),
        }


_TITLES: Final = {  # a code always has the same status, so each kind of problem keeps its title
    400: "This request can't be read",
    401: "Sign in or send a token",
    403: "You may not do this",
    404: "Not found",
    405: "Not possible at this address",
    406: "No answer in that format",
    408: "The request took too long to arrive",
    409: "Not possible as things are now",
    412: "Changed meanwhile",
    413: "Too large",
    415: "Not a format that is read here",
    422: "Something in it can't be used",
    428: "A header is missing",
    429: "Too many requests",
    500: "Something went wrong here",
    503: "Not possible at the moment",
}


def not_found(what: str) -> RemitError:
    """Absent and forbidden look the same: other tenants' ids must not be guessable."""
    return RemitError(
        f"{what}.not_found",
        f"There is no such {what}, or you may not see it.",
        404,
        remedies=("Check the id, or ask an administrator of the organisation for access.",),
    )


def forbidden(permission: str) -> RemitError:
    return RemitError(
        "permission.denied",
        f"This needs the permission “{permission}”.",
        403,
        remedies=("Ask an administrator of the organisation for a role that has it.",),
    )


def conflict(code: str, message: str, *remedies: str, **data: Any) -> RemitError:
    """The loser of a race, by name: nothing was overwritten."""
    return RemitError(code, message, 409, remedies=remedies, data=data)


def invalid(code: str, message: str, *errors: FieldError, remedies: Sequence[str] = ()) -> RemitError:
    return RemitError(code, message, 422, errors=errors, remedies=remedies)


def internal_error() -> RemitError:
    """What nobody foresaw: it tells nothing but the trace id, under which the log has the rest."""
    return RemitError(
        "internal.error",
        "Something went wrong on our side.",
        500,
        remedies=("Try again; if it stays, give the trace id to whoever runs this Remit.",),
    )
