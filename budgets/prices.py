"""Prices: dated rates per tool call and sandbox second, looked up in memory, imported from files, never changed.

The most exact key wins: the tool, then `server__*`, then `*`; for one key the organisation's own rate.
"""

from __future__ import annotations

import functools
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from django.db import transaction
from django.db.models import Q

from budgets.models import Price
from budgets.pricelist import Rate, parse_price_list
from budgets.types import RateKind, SandboxRates
from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.clusters.types import GIB, Resources
from controlplane.common.canonical import digest_of_bytes
from controlplane.common.clock import now
from controlplane.common.errors import conflict, not_found
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import Permission, Principal, system_principal

DEFAULT_PRICES: Final = Path(__file__).parent / "data" / "default_prices.json"
FRESH_SECONDS: Final = 10.0
_Key = tuple[str, str, str]
_BOOKS: Final[dict[uuid.UUID, tuple[float, _Book]]] = {}
_LOCK: Final = threading.Lock()


def tool_call_price(*, organisation_id: uuid.UUID, tool: str) -> Decimal:
    """What one call of a tool (its full name) costs now, in the organisation's currency. No query while fresh."""
    rate = _tool_rate(_book(organisation_id), tool)
    return rate.amount if rate else Decimal(0)


def tool_call_rate_ids(*, organisation_id: uuid.UUID, tool: str) -> Sequence[int]:
    """The rate behind `tool_call_price`, for re-rating; empty for the shipped defaults."""
    rate = _tool_rate(_book(organisation_id), tool)
    return (rate.id,) if rate and rate.id else ()


def sandbox_rates(*, organisation_id: uuid.UUID) -> SandboxRates:
    book = _book(organisation_id)
    vcpu, gib = book.find(RateKind.VCPU_SECOND, "*"), book.find(RateKind.GIB_SECOND, "*")
    return SandboxRates(
        vcpu_second=vcpu.amount if vcpu else Decimal(0),
        gib_second=gib.amount if gib else Decimal(0),
        rate_ids=tuple(rate.id for rate in (vcpu, gib) if rate and rate.id),
    )


def sandbox_price(*, organisation_id: uuid.UUID, resources: Resources, seconds: Decimal) -> Decimal:
    """What a sandbox of this size costs for so long, rounded up to the ledger's twelve decimals."""
    rates = sandbox_rates(organisation_id=organisation_id)
    per_second = (
        rates.vcpu_second * resources.cpu_millicores / 1000 + rates.gib_second * Decimal(resources.memory_bytes) / GIB
    )
    return (per_second * seconds).quantize(Decimal("1e-12"), rounding="ROUND_CEILING")


def load_default_prices(*, organisation_id: uuid.UUID) -> int:
    """Give a new organisation the shipped price book, in its own currency. Audited; again changes nothing."""
    organisation = Organisation.objects.filter(pk=organisation_id).first()
    if organisation is None:
        raise not_found("organisation")
    raw = DEFAULT_PRICES.read_bytes()
    return _store(system_principal(organisation_id=organisation_id), organisation, raw, "json", DEFAULT_PRICES.name)


def import_prices(*, actor: Principal, raw: bytes, form: str, source: str) -> int:
    """Add dated rates from a JSON or CSV file (`form`), all or none. Returns how many are new.

    Raises 403, 409 `prices.changed` (a rate of that date exists with another amount), 422 `prices.invalid`.
    """
    actor.require(Permission.BUDGET_WRITE)
    return _store(actor, Organisation.objects.get(pk=actor.organisation_id), raw, form, source)


def forget() -> None:
    """Drop every book held in this process; the next lookup reads them again."""
    with _LOCK:
        _BOOKS.clear()


@dataclass(frozen=True)
class _Entry:
    """`id` 0: a shipped default without a row."""

    id: int
    amount: Decimal
    valid_from: datetime


@dataclass(frozen=True)
class _Book:
    """Rates of one organisation by (kind, key, token class), newest first; its own before those for everyone."""

    rates: Mapping[_Key, Sequence[_Entry]] = field(default_factory=dict)

    def find(self, kind: RateKind, key: str, token_class: str = "") -> _Entry | None:
        moment = now()
        entries = self.rates.get((kind.value, key, token_class), ())
        return next((entry for entry in entries if entry.valid_from <= moment), None)


def _tool_rate(book: _Book, tool: str) -> _Entry | None:
    server = tool.partition("__")[0]
    for key in (tool, f"{server}__*", "*"):
        if rate := book.find(RateKind.TOOL_CALL, key):
            return rate
    return None


def _book(organisation_id: uuid.UUID) -> _Book:
    held = _BOOKS.get(organisation_id)
    if held is not None and time.monotonic() - held[0] < FRESH_SECONDS:
        return held[1]
    book = _load(organisation_id)
    with _LOCK:
        _BOOKS[organisation_id] = (time.monotonic(), book)
    return book


def _load(organisation_id: uuid.UUID) -> _Book:
    rows = (
        Price.objects.filter(Q(organisation_id=organisation_id) | Q(organisation_id=None))
        .filter(currency__in=Organisation.objects.filter(pk=organisation_id).values("currency"))
        .values_list("kind", "key", "token_class", "id", "amount", "valid_from", "organisation_id")
    )
    found: dict[_Key, list[tuple[bool, _Entry]]] = {}
    for kind, key, token_class, identifier, amount, valid_from, owner in rows:
        found.setdefault((kind, key, token_class), []).append(
            (owner is not None, _Entry(identifier, amount, valid_from))
        )
    rates: dict[_Key, Sequence[_Entry]] = {
        key: [entry for _, entry in sorted(entries, key=lambda pair: (pair[0], pair[1].valid_from), reverse=True)]
        for key, entries in found.items()
    }
    for rate in _shipped():
        rates.setdefault((rate.kind.value, rate.key, rate.token_class), [_Entry(0, rate.amount, rate.valid_from)])
    return _Book(rates)


@functools.cache
def _shipped() -> Sequence[Rate]:
    return parse_price_list(DEFAULT_PRICES.read_bytes(), form="json")


def _store(actor: Principal, organisation: Organisation, raw: bytes, form: str, source: str) -> int:
    rates = parse_price_list(raw, form=form)
    sha256 = digest_of_bytes(raw)
    with transaction.atomic():
        Organisation.objects.select_for_update().get(pk=organisation.pk)  # one import at a time
        known = {
            (kind, key, token_class, currency, valid_from): amount
            for kind, key, token_class, currency, valid_from, amount in Price.objects.filter(
                organisation=organisation
            ).values_list("kind", "key", "token_class", "currency", "valid_from", "amount")
        }
        fresh = []
        for rate in rates:
            currency = rate.currency or organisation.currency
            place = (rate.kind.value, rate.key, rate.token_class, currency, rate.valid_from)
            if place not in known:
                known[place] = rate.amount
                fresh.append(_row(organisation, rate, currency, source, sha256, actor))
            elif known[place] != rate.amount:
                raise conflict(
                    "prices.changed",
                    f"{rate.kind.label} {rate.key} has another rate from {rate.valid_from:%Y-%m-%d} on already.",
                    "Rates never change in place: give the new one a later date.",
                )
        if not fresh:
            return 0
        Price.objects.bulk_create(fresh)
        record(
            event=Event.PRICES_IMPORTED,
            actor=actor,
            subject=Subject("prices", organisation.pk, organisation.name),
            payload={"count": len(fresh), "source": source, "sha256": sha256},
        )
        transaction.on_commit(forget)
    return len(fresh)


def _row(organisation: Organisation, rate: Rate, currency: str, source: str, sha256: str, actor: Principal) -> Price:
    return Price(
        organisation=organisation,
        kind=rate.kind.value,
        key=rate.key,
        token_class=rate.token_class,
        amount=rate.amount,
        currency=currency,
        valid_from=rate.valid_from,
        source=source[:200],
        source_sha256=sha256,
        approved_by=actor.name[:120],
    )
