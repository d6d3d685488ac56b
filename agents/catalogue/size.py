"""An organisation as large as asked for, made of rows as the product would have left them, in a few statements.

For trying pages and upgrades at size. Nothing in it can run: its agents are elsewhere and its missions have no tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django.db import connection, transaction

from agents.services.onboarding import Person, create_organisation
from budgets.types import Limits
from controlplane.audit.sealing import seal_batch
from controlplane.common.errors import conflict
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import Role

TEAMS: Final = 20
TOOLS: Final = 40
DAYS: Final = 90
_PEOPLE = (
    Person("nadia@size.example", "Nadia", (Role.ADMIN,)),
    Person("dana@size.example", "Dana", (Role.APPROVER,)),
    Person("finn@size.example", "Finn", (Role.FINANCE,)),
    Person("alice@size.example", "Alice", (Role.BUILDER,), "Team 07"),
)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """`actions` are spread over the missions, half of them over the last tenth; each one done has its ledger line."""

    missions: int
    actions: int
    escalations: int
    audit_entries: int


def seed(size: Size, say: Say) -> Organisation:
    """Raises 409 when any organisation is there: it holds tables for as long as it takes, and makes people up."""
    if Organisation.objects.exists():
        raise conflict("size.not_empty", "There are organisations already.", "Use a database without any.")
    limits = {f"Team {number:02d}": Limits(money=Decimal(100_000)) for number in range(TEAMS)}
    organisation = create_organisation(
        name="Size", currency="EUR", monthly_limit=Limits(money=Decimal(1_000_000)), teams=limits, people=_PEOPLE
    )
    numbers: dict[str, str | int] = {
        "organisation": str(organisation.pk),
        "missions": size.missions,
        "actions": size.actions,
        "escalations": min(size.escalations, size.actions),
        "audit": size.audit_entries,
        "teams": TEAMS,
        "tools": TOOLS,
        "agents": max(size.missions // 50, TEAMS),
        "days": DAYS,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT budgets_make_partitions(12, now() - interval '6 months')")
        for name, statement in _STATEMENTS:
            began = time.monotonic()
            cursor.execute(statement, numbers)
            if name:
                say(f"{name}: {cursor.rowcount:,} in {time.monotonic() - began:.1f} s")
    while seal_batch(organisation_id=organisation.pk, batch=5000):
        pass
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return organisation


# A UUIDv7 of a moment: ids sort as the rows were made.
_UUID7: Final = """
CREATE FUNCTION pg_temp.uuid7(at timestamptz, n bigint) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(n %% 4096), 3, '0')
        || '8' || substr(md5(n || random()::text), 1, 15))::uuid
$$
"""
_STATEMENTS: Final[tuple[tuple[str, str], ...]] = (
    ("", _UUID7),
    (
        "",
        """CREATE TEMP TABLE size_team ON COMMIT DROP AS
        SELECT t.id, t.slug, a.id AS account_id, a.path, row_number() OVER (ORDER BY t.slug) - 1 AS k
        FROM tenancy_team t JOIN budgets_account a ON a.subject_id = t.id WHERE t.organisation_id = %(organisation)s""",
    ),
    (
        "",
        """CREATE TEMP TABLE size_owner ON COMMIT DROP AS SELECT user_id AS id FROM tenancy_membership
        WHERE organisation_id = %(organisation)s AND role = 'builder' LIMIT 1""",
    ),
    (
        "",
        """CREATE TEMP TABLE size_agent ON COMMIT DROP AS
        SELECT n AS k, pg_temp.uuid7(now() - interval '100 days' + make_interval(mins => n), n) AS id, t.id AS team_id,
            pg_temp.uuid7(now() - interval '100 days' + make_interval(mins => n), n) AS account_id,
            t.account_id AS parent_id, t.path
        FROM generate_series(0, %(agents)s - 1) AS n JOIN size_team t ON t.k = n %% %(teams)s""",
    ),
    (
        "agents",
        """INSERT INTO agents_agent (id, organisation_id, team_id, owner_id, name, slug, description, runtime,
            capabilities, state, current_version, account_id, last_seen_at, created_at)
        SELECT a.id, %(organisation)s, team_id, o.id, 'Clerk ' || k, 'clerk-' || k, 'Works on accounts of region ' || k,
            'external', '{}', CASE WHEN k %% 25 = 24 THEN 'retired' ELSE 'active' END, 1, a.account_id,
            now() - make_interval(mins => k), now() - interval '100 days'
        FROM size_agent a, size_owner o""",
    ),
    (
        "",
        """INSERT INTO agents_agentversion (id, agent_id, number, label, program, command, resources,
            wall_clock_seconds, created_by_id, created_at)
        SELECT gen_random_uuid(), a.id, 1, '1.0', '', '{}', '{}', 3600, o.id, now() FROM size_agent a, size_owner o""",
    ),
    (
        "",
        """CREATE TEMP TABLE size_mission ON COMMIT DROP AS
        SELECT n AS k, pg_temp.uuid7(at, n) AS id, pg_temp.uuid7(at, n) AS account_id, a.id AS agent_id, a.team_id, at,
            CASE WHEN n >= %(missions)s * 95 / 100 THEN 'active' WHEN n %% 40 = 7 THEN 'paused'
                WHEN n %% 10 = 3 THEN 'failed' WHEN n %% 10 = 4 THEN 'stopped' WHEN n %% 10 = 5 THEN 'expired'
                ELSE 'succeeded' END AS state
        FROM (SELECT n, now() - (%(missions)s - n) * make_interval(days => %(days)s) / %(missions)s AS at
            FROM generate_series(0, %(missions)s - 1) AS n) AS series
        JOIN size_agent a ON a.k = n %% %(agents)s""",
    ),
    ("", "CREATE UNIQUE INDEX ON size_mission (k)"),
    (
        "missions",
        """INSERT INTO agents_mission (id, organisation_id, team_id, agent_id, owner_id, template, title, state,
            state_reason, outcome, version, account_id, settings, created_by_id, created_at, started_at, ended_at,
            deadline)
        SELECT m.id, %(organisation)s, team_id, agent_id, o.id, 'receivables', 'Chase overdue invoices, region ' || k,
            state, '', CASE state WHEN 'succeeded' THEN 'accepted' WHEN 'failed' THEN 'rejected' ELSE 'none' END, 1,
            account_id, '{}', o.id, at, at,
            CASE WHEN state IN ('active', 'paused') THEN NULL ELSE at + interval '5 h' END,
            at + interval '120 days'
        FROM size_mission m, size_owner o""",
    ),
    (
        "",
        """INSERT INTO agents_missionversion (id, mission_id, number, state, goal, criteria, grants, budget_money,
            budget_tokens, budget_steps, currency, deadline, importance, residency, widens, change_note, created_by_id,
            created_at)
        SELECT gen_random_uuid(), m.id, 1, 'active', 'Every overdue invoice of region ' || k || ' has a reminder.',
            ARRAY['Every overdue invoice has a reminder'],
            jsonb_build_array(jsonb_build_object('tool', 'size0__tool_' || k %% %(tools)s, 'effect', 'allow',
                'constraints', '{}'::jsonb)), 5, 100000, 500, 'EUR', at + interval '120 days', 'normal', '', false, '',
            o.id, at
        FROM size_mission m, size_owner o""",
    ),
    (
        "",
        """INSERT INTO agents_run (id, mission_id, attempt, agent_version_id, state, desired, reason, created_at,
            started_at, first_call_at, ended_at)
        SELECT pg_temp.uuid7(at, k), m.id, 1, v.id, CASE WHEN m.state = 'active' THEN 'running' ELSE 'succeeded' END,
            'running', '', at, at, at, CASE WHEN m.state = 'active' THEN NULL ELSE at + interval '5 h' END
        FROM size_mission m JOIN agents_agentversion v ON v.agent_id = m.agent_id""",
    ),
    (
        "",
        """INSERT INTO budgets_account (id, organisation_id, team_id, parent_id, path, depth, level, name, subject_type,
            subject_id, frozen, frozen_reason, closed_at, guard_repeats, guard_ring_repeats, guard_ring, created_at)
        SELECT a.account_id, %(organisation)s::uuid, a.team_id, a.parent_id, a.path || a.account_id,
            cardinality(a.path), 'agent', 'Clerk ' || a.k, 'agent', a.id, false, '', NULL::timestamptz, 3, 10, 32,
            now() - interval '100 days'
        FROM size_agent a
        UNION ALL
        SELECT m.account_id, %(organisation)s::uuid, m.team_id, a.account_id, a.path || a.account_id || m.account_id,
            cardinality(a.path) + 1, 'mission', 'Mission ' || m.k, 'mission', m.id, false, '',
            CASE WHEN m.state IN ('active', 'paused') THEN NULL ELSE m.at + interval '5 h' END, 3, 10, 32, m.at
        FROM size_mission m JOIN size_agent a ON a.id = m.agent_id""",
    ),
    (
        "budgets",
        """INSERT INTO budgets_accountlimit (account_id, kind, money, tokens, steps)
        SELECT account_id, 'month', NULL::numeric, NULL::bigint, NULL::bigint FROM size_agent
        UNION ALL SELECT account_id, 'total', 5, 100000, 500 FROM size_mission""",
    ),
    (
        "",
        """INSERT INTO budgets_window (account_id, kind, depth, starts_at, ends_at, limit_money, limit_tokens,
            limit_steps, held_money, held_tokens, held_steps, spent_money, spent_tokens, spent_steps, overrun_money,
            overrun_tokens, overrun_steps, frozen, lowering)
        SELECT account_id, 'total', 3, budgets_starts_at('total', 'UTC', now()), 'infinity', 5, 100000, 500, 0, 0, 0,
            (k %% 400)::numeric / 100, 0, k %% 90, 0, 0, 0, false, false
        FROM size_mission""",
    ),
    (
        "",
        # Half of the actions belong to the last tenth of the missions: some are long.
        """CREATE TEMP TABLE size_action ON COMMIT DROP AS
        SELECT n, pg_temp.uuid7(moment, n) AS id, moment AS at, m.id AS mission_id, m.team_id, m.agent_id, m.account_id,
            r.id AS run_id, 'size' || (n / 7) %% 10 || '__tool_' || n %% %(tools)s AS tool,
            gen_random_uuid() AS hold_id,
            CASE WHEN n >= %(actions)s - %(escalations)s THEN 'waiting'
                WHEN n %% 20 = 11 THEN 'denied' WHEN n %% 50 = 12 THEN 'failed' ELSE 'succeeded' END AS state
        FROM generate_series(0, %(actions)s - 1) AS n
        JOIN size_mission m ON m.k = CASE WHEN n %% 2 = 0 THEN (n / 2) %% %(missions)s
            ELSE %(missions)s - 1 - (n / 2) %% GREATEST(%(missions)s / 10, 1) END
        JOIN agents_run r ON r.mission_id = m.id
        CROSS JOIN LATERAL (SELECT m.at + (n::float / %(actions)s) * CASE
            WHEN m.state IN ('active', 'paused') OR n >= %(actions)s - 2 * %(escalations)s THEN now() - m.at
            ELSE least(interval '5 h', now() - m.at) END AS moment) AS t""",
    ),
    ("", "CREATE INDEX ON size_action (n)"),
    ("", "ANALYZE size_action"),
    (
        "actions",
        """INSERT INTO governance_action (id, organisation_id, team_id, kind, tool, arguments, envelope, digest,
            justification, title, proposer_kind, proposer_id, proposer_name, agent_id, mission_id, mission_version,
            run_id, subject_type, state, verdict, reason_code, message, remedies, idempotency_key, request_sha256,
            hold_id, account_id, signature, price, cost, currency, outcome, effects, trace_id, created_at, decided_at,
            executing_at, ended_at)
        SELECT id, %(organisation)s, team_id, 'tool.call', tool,
            jsonb_build_object('invoice', 'INV-' || n, 'amount', n %% 300 || '.00'), '{}',
            'sha256:' || md5(n::text), '', tool, 'run', run_id, 'Clerk', agent_id, mission_id, 1, run_id, 'tool', state,
            CASE state WHEN 'denied' THEN 'deny' WHEN 'waiting' THEN 'escalate' ELSE 'allow' END,
            CASE state WHEN 'denied' THEN 'grant.argument_above_limit' ELSE '' END, '', '{}', 'k-' || n, '', hold_id,
            account_id, '', 0.002, CASE WHEN state IN ('succeeded', 'failed') THEN 0.002 END, 'EUR', NULL, '{}', '', at,
            at, CASE WHEN state IN ('succeeded', 'failed') THEN at END,
            CASE WHEN state <> 'waiting' THEN at + interval '1 s' END
        FROM size_action ORDER BY id""",
    ),
    (
        "decisions",
        """INSERT INTO governance_decision (id, organisation_id, action_id, verdict, reason_code, message, digest,
            stages, approved_policies, judged_policies, bundle_sha256, duration_microseconds, created_at)
        SELECT gen_random_uuid(), %(organisation)s, id, 'escalate', 'policy.amount', 'Above 100.00 a person decides.',
            'sha256:' || md5(n::text), '[]', '{}', '{}', '', 900, at
        FROM size_action WHERE n >= %(actions)s - 2 * %(escalations)s""",
    ),
    (
        "questions",
        """INSERT INTO governance_escalation (id, organisation_id, team_id, action_id, decision_id, kind, title,
            mission_id, agent_id, policies, excluded_user_ids, needed, state, version, opened_at,
            expires_at, closed_at, reason)
        SELECT pg_temp.uuid7(a.at, a.n), %(organisation)s, a.team_id, a.id, d.id, 'tool.call', a.tool, a.mission_id,
            a.agent_id, ARRAY['size.amount'], ARRAY[o.id], 1,
            CASE WHEN a.state = 'waiting' THEN 'open' ELSE 'approved' END, 1, a.at,
            now() + make_interval(mins => 30 + (a.n %% 3000)::int),
            CASE WHEN a.state = 'waiting' THEN NULL ELSE a.at + interval '1 min' END, ''
        FROM size_action a JOIN governance_decision d ON d.action_id = a.id, size_owner o
        WHERE a.n >= %(actions)s - 2 * %(escalations)s""",
    ),
    (
        "holds",
        """INSERT INTO budgets_hold (id, organisation_id, account_id, request_hash, window_ids, money, tokens, steps,
            actual_money, actual_tokens, actual_steps, state, provisional, action_id, mission_id, ttl_seconds,
            created_at, expires_at, closed_at)
        SELECT hold_id, %(organisation)s, account_id, '', '{}', 0.002, 0, 1, 0.002, 0, 1, 'settled', false, id,
            mission_id, 60, at, at, at FROM size_action WHERE state IN ('succeeded', 'failed')""",
    ),
    (
        "ledger lines",
        """INSERT INTO budgets_journal (at, organisation_id, account_id, kind, hold_id, mission_id, action_id, money,
            tokens, steps)
        SELECT at, %(organisation)s, account_id, 'settle', hold_id, mission_id, id, 0.002, 0, 1
        FROM size_action WHERE state IN ('succeeded', 'failed') ORDER BY at""",
    ),
    ("", "ALTER TABLE budgets_posting DISABLE TRIGGER budgets_posting_balances"),
    (
        "",  # balanced by the way they are made: a check a row would take longer than all the rest
        """INSERT INTO budgets_posting (journal_id, side, at, account_id, money, tokens, steps)
        SELECT j.id, side, j.at, j.account_id, sign * j.money, 0, sign * j.steps
        FROM budgets_journal AS j CROSS JOIN (VALUES ('expense', 1), ('payable', -1)) AS s (side, sign)
        WHERE j.organisation_id = %(organisation)s AND j.kind = 'settle'""",
    ),
    ("", "ALTER TABLE budgets_posting ENABLE TRIGGER budgets_posting_balances"),
    (
        "",
        """INSERT INTO budgets_dailyspend (account_id, day, money, tokens, steps)
        SELECT account_id, (at AT TIME ZONE 'UTC')::date, sum(0.002), 0, count(*) FROM size_action
        WHERE state IN ('succeeded', 'failed') GROUP BY 1, 2 ORDER BY 2""",
    ),
    (
        "",
        """INSERT INTO agents_mcpserver (id, organisation_id, name, slug, transport, environment, command, mounts, url,
            state, error, protocol_version, created_by_id, created_at)
        SELECT gen_random_uuid(), %(organisation)s, 'Server ' || n, 'size' || n, 'http', '', '{}', '[]',
            'https://size' || n || '.example/mcp', 'ok', '', '2025-11-25', o.id, now()
        FROM generate_series(0, 49) AS n, size_owner o""",
    ),
    (
        "tools",
        """INSERT INTO agents_mcptool (id, server_id, name, qualified_name, definition, definition_sha256,
            pending_sha256, state, read_only, reversible, effects)
        SELECT gen_random_uuid(), s.id, 'tool_' || n, s.slug || '__tool_' || n,
            jsonb_build_object('name', 'tool_' || n, 'inputSchema', '{"type": "object"}'::jsonb),
            'sha256:' || md5(n::text), '', 'active', false, false, '{}'
        FROM agents_mcpserver s, generate_series(0, %(tools)s - 1) AS n WHERE s.organisation_id = %(organisation)s""",
    ),
    (
        "audit entries",
        """INSERT INTO audit_entry (id, organisation_id, team_id, at, event, actor_kind, actor_id, actor_name,
            subject_type, subject_id, subject_name, mission_id, payload, payload_sha256, trace_id)
        SELECT pg_temp.uuid7(at, n), %(organisation)s, team_id, at,
            CASE state WHEN 'denied' THEN 'action.denied' WHEN 'waiting' THEN 'action.escalated'
                ELSE 'action.allowed' END,
            'run', run_id, 'Clerk', 'action', id, tool, mission_id, '{}',
            'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a', ''
        FROM size_action WHERE n >= %(actions)s - %(audit)s ORDER BY at""",
    ),
)
