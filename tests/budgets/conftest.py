"""A tree of five levels under Northwind, and short ways to look at the ledger's own sums."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import pytest
from django.db import connection

from budgets import prices, services
from budgets.models import Account, Window
from budgets.types import Amounts, Level, Limits, Refusal, WindowKind
from controlplane.common.ids import new_id
from controlplane.tenancy.models import Organisation, Team
from controlplane.tenancy.types import Principal, system_principal

ROOMY = Limits(money=Decimal(1000), tokens=10_000_000, steps=100_000)


@dataclass(frozen=True)
class Tree:
    """organisation → team → project → agent → mission, each with a total of its own."""

    organisation_id: uuid.UUID
    organisation: uuid.UUID
    team: uuid.UUID
    project: uuid.UUID
    agent: uuid.UUID
    mission: uuid.UUID
    system: Principal

    @property
    def levels(self) -> tuple[uuid.UUID, ...]:
        return (self.mission, self.agent, self.project, self.team, self.organisation)

    def reserve(
        self,
        money: str = "1",
        *,
        tokens: int = 0,
        steps: int = 1,
        hold_id: uuid.UUID | None = None,
        signature: bytes = b"",
        ttl_seconds: int = 60,
        account: uuid.UUID | None = None,
    ) -> tuple[uuid.UUID, Refusal | None]:
        identifier = hold_id or new_id()
        refusal = services.reserve(
            hold_id=identifier,
            account_id=account or self.mission,
            organisation_id=self.organisation_id,
            amounts=Amounts(Decimal(money), tokens, steps),
            ttl_seconds=ttl_seconds,
            signature=signature,
        )
        return identifier, refusal

    def held(self, money: str = "1", **options: object) -> uuid.UUID:
        identifier, refusal = self.reserve(money, **options)  # type: ignore[arg-type]
        assert refusal is None, refusal
        return identifier

    def limit(self, account: uuid.UUID, window: WindowKind = WindowKind.TOTAL, **limits: object) -> None:
        services.set_limit(
            actor=self.system,
            account_id=account,
            window=window,
            limits=Limits(**limits),  # type: ignore[arg-type]
        )


@pytest.fixture(autouse=True)
def _no_prices_from_other_tests() -> None:
    prices.forget()


@pytest.fixture
def open_tree() -> Callable[..., Tree]:
    def make(organisation: Organisation, team: Team, limits: Limits = ROOMY) -> Tree:
        system = system_principal(organisation_id=organisation.pk)
        chain: list[uuid.UUID] = []
        for level in (Level.ORGANISATION, Level.TEAM, Level.OTHER, Level.AGENT, Level.MISSION):
            chain.append(
                services.open_account(
                    actor=system,
                    organisation_id=organisation.pk,
                    team_id=None if level is Level.ORGANISATION else team.pk,
                    parent_id=chain[-1] if chain else None,
                    level=level,
                    name=f"The {level}",
                    subject_type=level.value,
                    subject_id=new_id(),
                    limits=limits,
                    window=WindowKind.TOTAL,
                )
            )
        return Tree(organisation.pk, *chain, system)

    return make


@pytest.fixture
def tree(northwind: Organisation, team: Team, open_tree: Callable[..., Tree]) -> Tree:
    return open_tree(northwind, team)


def window(account_id: uuid.UUID, kind: WindowKind = WindowKind.TOTAL) -> Window:
    return Window.objects.filter(account_id=account_id, kind=kind).latest("starts_at")


def mission_of(account_id: uuid.UUID) -> uuid.UUID:
    subject = Account.objects.get(pk=account_id).subject_id
    assert subject is not None
    return subject


def wrong_sums() -> list[tuple[object, ...]]:
    """Windows that are not the sums of their holds, and journal entries that don't balance. Empty when all is well."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT w.id, w.held_money, w.spent_money, w.overrun_money, s.* FROM budgets_window AS w
            LEFT JOIN LATERAL (
                SELECT
                    coalesce(sum(h.money) FILTER (WHERE h.state IN ('held', 'dispatched')), 0) AS money,
                    coalesce(sum(h.tokens) FILTER (WHERE h.state IN ('held', 'dispatched')), 0) AS tokens,
                    coalesce(sum(h.steps) FILTER (WHERE h.state IN ('held', 'dispatched')), 0) AS steps,
                    coalesce(sum(h.actual_money), 0) AS charged_money,
                    coalesce(sum(h.actual_tokens), 0) AS charged_tokens,
                    coalesce(sum(h.actual_steps), 0) AS charged_steps
                FROM budgets_hold AS h WHERE w.id = ANY(h.window_ids)
            ) AS s ON true
            WHERE (w.held_money, w.held_tokens, w.held_steps) IS DISTINCT FROM (s.money, s.tokens, s.steps)
                OR w.spent_money + w.overrun_money <> s.charged_money
                OR w.spent_tokens + w.overrun_tokens <> s.charged_tokens
                OR w.spent_steps + w.overrun_steps <> s.charged_steps
                OR w.held_money + w.spent_money > w.limit_money
                OR w.held_tokens + w.spent_tokens > w.limit_tokens
                OR w.held_steps + w.spent_steps > w.limit_steps
            """
        )
        wrong = list(cursor.fetchall())
        cursor.execute(
            """
            SELECT h.id, h.actual_money, sum(j.money) FROM budgets_hold AS h
            LEFT JOIN budgets_journal AS j ON j.hold_id = h.id AND j.kind IN ('settle', 'correct')
            GROUP BY h.id HAVING coalesce(h.actual_money, 0) <> coalesce(sum(j.money), 0)
                OR coalesce(h.actual_tokens, 0) <> coalesce(sum(j.tokens), 0)
                OR coalesce(h.actual_steps, 0) <> coalesce(sum(j.steps), 0)
            """
        )
        wrong += cursor.fetchall()
        cursor.execute(
            "SELECT journal_id FROM budgets_posting GROUP BY journal_id"
            " HAVING sum(money) <> 0 OR sum(tokens) <> 0 OR sum(steps) <> 0"
        )
        wrong += cursor.fetchall()
        cursor.execute(
            "SELECT account_id, sum(money) FROM budgets_dailyspend GROUP BY account_id HAVING sum(money) <>"
            " (SELECT coalesce(sum(h.actual_money), 0) FROM budgets_hold AS h"
            " WHERE h.account_id = budgets_dailyspend.account_id)"
        )
        return wrong + list(cursor.fetchall())
