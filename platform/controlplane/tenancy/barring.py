"""Why a credential that is good in itself opens nothing at present. What bars it stands above tenancy and registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from controlplane.tenancy.tokens import KnownToken

Bar = Callable[[KnownToken], None]
_BARS: Final[list[Bar]] = []


def register_bar(bar: Bar) -> None:
    """`bar(token)` raises 401 while an agent's own credential must not authenticate. Asked at every use."""
    _BARS[:] = [bar]


def require_not_barred(token: KnownToken) -> None:
    for bar in _BARS:
        bar(token)
