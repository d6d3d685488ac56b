-- The ledger's functions, its append-only tables and their triggers. One call, one round trip, one transaction.
--
-- Locks are always taken in this order: hold, then windows by (depth descending, account, kind, starts_at), so that the
-- hottest row, the root's, is locked last and shortest, and two callers can't wait for each other.
--
-- Hot functions switch sequential scans off: a plan made while a table was small would outlive its growth.

-- Append-only tables ---------------------------------------------------------------------------------------------------

CREATE TABLE budgets_journal (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL,
    organisation_id uuid NOT NULL,
    account_id uuid NOT NULL,
    kind varchar(12) NOT NULL,
    hold_id uuid,
    mission_id uuid,
    action_id uuid,
    money numeric(28, 12) NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0,
    steps bigint NOT NULL DEFAULT 0,
    note text NOT NULL DEFAULT ''
) PARTITION BY RANGE (at);
CREATE INDEX budget_journal_by_account ON budgets_journal (account_id, id);

-- Not partitioned: the balance is checked by journal entry, which must not mean a look into every month.
CREATE TABLE budgets_posting (
    journal_id bigint NOT NULL,
    side varchar(10) NOT NULL CHECK (side IN ('expense', 'payable')),
    at timestamptz NOT NULL,
    account_id uuid NOT NULL,
    money numeric(28, 12) NOT NULL,
    tokens bigint NOT NULL,
    steps bigint NOT NULL,
    PRIMARY KEY (journal_id, side)
);

CREATE FUNCTION budgets_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION budgets_check_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM budgets_posting WHERE journal_id = NEW.journal_id
        HAVING sum(money) <> 0 OR sum(tokens) <> 0 OR sum(steps) <> 0
    ) THEN
        RAISE EXCEPTION 'the sides of journal entry % do not balance', NEW.journal_id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER budgets_journal_append_only BEFORE UPDATE OR DELETE ON budgets_journal
    FOR EACH ROW EXECUTE FUNCTION budgets_refuse_change();
CREATE TRIGGER budgets_journal_no_truncate BEFORE TRUNCATE ON budgets_journal
    FOR EACH STATEMENT EXECUTE FUNCTION budgets_refuse_change();
CREATE TRIGGER budgets_posting_append_only BEFORE UPDATE OR DELETE ON budgets_posting
    FOR EACH ROW EXECUTE FUNCTION budgets_refuse_change();
CREATE TRIGGER budgets_posting_no_truncate BEFORE TRUNCATE ON budgets_posting
    FOR EACH STATEMENT EXECUTE FUNCTION budgets_refuse_change();
CREATE CONSTRAINT TRIGGER budgets_posting_balances AFTER INSERT ON budgets_posting
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION budgets_check_balance();
CREATE TRIGGER budgets_allocation_append_only BEFORE UPDATE OR DELETE ON budgets_allocation
    FOR EACH ROW EXECUTE FUNCTION budgets_refuse_change();

-- One partition a month. There is no default partition: rows in it would stand in the way of their month's own table.
CREATE FUNCTION budgets_make_partitions(p_months integer, p_at timestamptz DEFAULT now()) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_month timestamp;
    v_name text;
    v_made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('budgets_make_partitions', 0));
    FOR v_month IN
        SELECT generate_series(first, first + make_interval(months => p_months), interval '1 month')
        FROM (SELECT date_trunc('month', p_at AT TIME ZONE 'UTC') AS first) AS series
    LOOP
        v_name := 'budgets_journal' || to_char(v_month, '_YYYY_MM');
        CONTINUE WHEN to_regclass(v_name) IS NOT NULL;
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF budgets_journal FOR VALUES FROM (%L) TO (%L)',
            v_name, v_month AT TIME ZONE 'UTC', (v_month + interval '1 month') AT TIME ZONE 'UTC'
        );
        EXECUTE format(
            'CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION budgets_refuse_change()',
            v_name || '_no_truncate', v_name
        );
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'remit_app') THEN
            EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %I FROM PUBLIC, remit_app', v_name);
        END IF;
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END $$;

SELECT budgets_make_partitions(12);

-- Where the application has a role of its own, it may not even try.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'remit_app') THEN
        REVOKE UPDATE, DELETE, TRUNCATE ON budgets_journal, budgets_posting, budgets_allocation FROM PUBLIC, remit_app;
    END IF;
END $$;

ALTER TABLE budgets_window SET (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
ALTER TABLE budgets_guard SET (fillfactor = 50);
ALTER TABLE budgets_dailyspend SET (fillfactor = 50);
ALTER TABLE budgets_hold SET (fillfactor = 80);

-- Windows --------------------------------------------------------------------------------------------------------------

CREATE FUNCTION budgets_starts_at(p_kind text, p_zone text, p_at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE p_kind WHEN 'total' THEN timestamptz '1970-01-01 00:00:00+00' ELSE date_trunc(p_kind, p_at, p_zone) END
$$;

-- The end is counted in local time: a day of 23 or 25 hours ends at midnight all the same.
CREATE FUNCTION budgets_ends_at(p_kind text, p_zone text, p_starts_at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE p_kind WHEN 'total' THEN timestamptz '9999-12-31 00:00:00+00'
        ELSE ((p_starts_at AT TIME ZONE p_zone) + ('1 ' || p_kind)::interval) AT TIME ZONE p_zone END
$$;

CREATE FUNCTION budgets_make_windows(p_path uuid[], p_zone text, p_at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Share locks: a limit or a freeze that is being set now must be seen by the window made now.
    PERFORM FROM budgets_account AS a JOIN budgets_accountlimit AS l ON l.account_id = a.id
    WHERE a.id = ANY(p_path) ORDER BY a.depth DESC, l.kind FOR SHARE;
    INSERT INTO budgets_window (
        account_id, kind, depth, starts_at, ends_at, limit_money, limit_tokens, limit_steps,
        held_money, held_tokens, held_steps, spent_money, spent_tokens, spent_steps,
        overrun_money, overrun_tokens, overrun_steps, frozen, lowering
    )
    SELECT a.id, l.kind, a.depth, s.starts_at, budgets_ends_at(l.kind, p_zone, s.starts_at), l.money, l.tokens, l.steps,
        0, 0, 0, 0, 0, 0, 0, 0, 0, a.frozen, false
    FROM budgets_account AS a
    JOIN budgets_accountlimit AS l ON l.account_id = a.id
    CROSS JOIN LATERAL (SELECT budgets_starts_at(l.kind, p_zone, p_at) AS starts_at) AS s
    WHERE a.id = ANY(p_path)
    ORDER BY a.depth DESC, a.id, l.kind
    ON CONFLICT (account_id, kind, starts_at) DO NOTHING;
END $$;

-- The windows an account's reserves pass now, remembered until the first of them ends.
CREATE FUNCTION budgets_make_chain(p_account uuid, p_path uuid[], p_zone text, p_at timestamptz) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    v_windows bigint[];
BEGIN
    PERFORM budgets_make_windows(p_path, p_zone, p_at);
    INSERT INTO budgets_chain AS c (account_id, window_ids, valid_from, valid_until)
    SELECT p_account, array_agg(w.id ORDER BY w.depth DESC, w.account_id, w.kind), max(w.starts_at), min(w.ends_at)
    FROM budgets_accountlimit AS l
    JOIN budgets_window AS w ON w.account_id = l.account_id AND w.kind = l.kind
        AND w.starts_at = budgets_starts_at(l.kind, p_zone, p_at)
    WHERE l.account_id = ANY(p_path)
    HAVING count(*) > 0
    ON CONFLICT (account_id) DO UPDATE
        SET window_ids = excluded.window_ids, valid_from = excluded.valid_from, valid_until = excluded.valid_until
    RETURNING c.window_ids INTO v_windows;
    IF v_windows IS NULL THEN
        RAISE EXCEPTION 'account % has no window at any level', p_account USING ERRCODE = 'data_exception';
    END IF;
    RETURN v_windows;
END $$;

-- After something was released or a limit was set: the limit is what people want, but never below what is held and spent.
CREATE FUNCTION budgets_follow_limit(p_window bigint) RETURNS void LANGUAGE sql AS $$
    UPDATE budgets_window AS w SET
        limit_money = CASE WHEN l.money IS NULL THEN NULL ELSE greatest(l.money, w.held_money + w.spent_money) END,
        limit_tokens = CASE WHEN l.tokens IS NULL THEN NULL ELSE greatest(l.tokens, w.held_tokens + w.spent_tokens) END,
        limit_steps = CASE WHEN l.steps IS NULL THEN NULL ELSE greatest(l.steps, w.held_steps + w.spent_steps) END,
        lowering = coalesce(l.money < w.held_money + w.spent_money, false)
            OR coalesce(l.tokens < w.held_tokens + w.spent_tokens, false)
            OR coalesce(l.steps < w.held_steps + w.spent_steps, false)
    FROM budgets_accountlimit AS l
    WHERE w.id = p_window AND l.account_id = w.account_id AND l.kind = w.kind
$$;

CREATE FUNCTION budgets_set_limit(
    p_account uuid, p_kind text, p_money numeric, p_tokens bigint, p_steps bigint, p_at timestamptz DEFAULT now()
) RETURNS void LANGUAGE plpgsql SET lock_timeout = '250ms' AS $$
DECLARE
    v_zone text;
    v_window bigint;
BEGIN
    -- Against the share lock of whoever makes a window or a chain now.
    PERFORM FROM budgets_account WHERE id = p_account FOR NO KEY UPDATE;
    IF NOT EXISTS (SELECT FROM budgets_accountlimit WHERE account_id = p_account AND kind = p_kind) THEN
        DELETE FROM budgets_chain WHERE account_id IN (SELECT id FROM budgets_account WHERE path @> ARRAY[p_account]);
    END IF;
    INSERT INTO budgets_accountlimit (account_id, kind, money, tokens, steps)
    VALUES (p_account, p_kind, p_money, p_tokens, p_steps)
    ON CONFLICT (account_id, kind)
        DO UPDATE SET money = excluded.money, tokens = excluded.tokens, steps = excluded.steps;
    SELECT o.time_zone INTO STRICT v_zone
    FROM budgets_account AS a JOIN tenancy_organisation AS o ON o.id = a.organisation_id WHERE a.id = p_account;
    PERFORM budgets_make_windows(ARRAY[p_account], v_zone, p_at);
    FOR v_window IN
        SELECT id FROM budgets_window WHERE account_id = p_account AND kind = p_kind ORDER BY starts_at DESC LIMIT 2 FOR UPDATE
    LOOP
        PERFORM budgets_follow_limit(v_window);
        -- Room for what overran lifts the freeze the overrun caused; a person's freeze stays.
        UPDATE budgets_window AS w SET frozen = a.frozen
        FROM budgets_account AS a
        WHERE w.id = v_window AND w.frozen AND a.id = w.account_id
            AND coalesce(w.held_money + w.spent_money + w.overrun_money <= w.limit_money, true)
            AND coalesce(w.held_tokens + w.spent_tokens + w.overrun_tokens <= w.limit_tokens, true)
            AND coalesce(w.held_steps + w.spent_steps + w.overrun_steps <= w.limit_steps, true);
    END LOOP;
END $$;

CREATE FUNCTION budgets_set_frozen(p_account uuid, p_frozen boolean, p_reason text, p_at timestamptz DEFAULT now())
RETURNS void LANGUAGE plpgsql SET lock_timeout = '250ms' AS $$
BEGIN
    UPDATE budgets_account SET frozen = p_frozen, frozen_reason = p_reason WHERE id = p_account;
    UPDATE budgets_window SET frozen = p_frozen WHERE id IN (
        SELECT id FROM budgets_window WHERE account_id = p_account AND ends_at > p_at ORDER BY kind, starts_at FOR UPDATE
    );
END $$;

-- Reserve --------------------------------------------------------------------------------------------------------------

CREATE TYPE budgets_answer AS (
    outcome text,       -- held, replayed, conflict, exhausted, frozen, no_progress, unknown_account, currency, changed
    state text,         -- of the hold, where there is one
    account_id uuid,    -- the level that refused, its window, its first unit without room, and what is left of that
    level text,
    name text,
    kind text,
    unit text,
    remaining numeric,
    currency text
);

CREATE FUNCTION budgets_digest(p_value bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT substring(sha256(p_value) FOR 16)
$$;

CREATE FUNCTION budgets_request_hash(
    p_account uuid, p_money numeric, p_tokens bigint, p_steps bigint, p_signature bytea
) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(uuid_send(p_account) || numeric_send(trim_scale(p_money)) || int8send(p_tokens) || int8send(p_steps) || p_signature)
$$;

-- The first level, leaf → root, that has no room; outcome `changed` when by now every level has.
CREATE FUNCTION budgets_refusal(p_windows bigint[], p_money numeric, p_tokens bigint, p_steps bigint)
RETURNS budgets_answer LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_answer budgets_answer;
    w record;
BEGIN
    FOR w IN
        SELECT b.*, a.level, a.name,
            b.limit_money - b.held_money - b.spent_money - b.overrun_money AS left_money,
            b.limit_tokens - b.held_tokens - b.spent_tokens - b.overrun_tokens AS left_tokens,
            b.limit_steps - b.held_steps - b.spent_steps - b.overrun_steps AS left_steps
        FROM budgets_window AS b JOIN budgets_account AS a ON a.id = b.account_id
        WHERE b.id = ANY(p_windows) ORDER BY b.depth DESC, b.account_id, b.kind, b.starts_at
    LOOP
        IF w.frozen THEN
            v_answer.outcome := 'frozen';
        ELSIF p_money > 0 AND p_money > w.left_money THEN
            v_answer.outcome := 'exhausted';
            v_answer.unit := 'money';
            v_answer.remaining := greatest(w.left_money, 0);
        ELSIF p_tokens > 0 AND p_tokens > w.left_tokens THEN
            v_answer.outcome := 'exhausted';
            v_answer.unit := 'tokens';
            v_answer.remaining := greatest(w.left_tokens, 0);
        ELSIF p_steps > 0 AND p_steps > w.left_steps THEN
            v_answer.outcome := 'exhausted';
            v_answer.unit := 'steps';
            v_answer.remaining := greatest(w.left_steps, 0);
        END IF;
        IF v_answer.outcome IS NOT NULL THEN
            v_answer.account_id := w.account_id;
            v_answer.level := w.level;
            v_answer.name := w.name;
            v_answer.kind := w.kind;
            RETURN v_answer;
        END IF;
    END LOOP;
    v_answer.outcome := 'changed';
    RETURN v_answer;
END $$;

-- The stored answer to an id that was seen before.
CREATE FUNCTION budgets_replay(p_id uuid, p_organisation uuid, p_hash bytea) RETURNS budgets_answer LANGUAGE sql STABLE AS $$
    SELECT ROW(
        CASE WHEN organisation_id = p_organisation AND request_hash = p_hash THEN 'replayed' ELSE 'conflict' END,
        state, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    )::budgets_answer
    FROM budgets_hold WHERE id = p_id
$$;

CREATE FUNCTION budgets_reserve(
    p_id uuid, p_organisation uuid, p_account uuid, p_money numeric, p_tokens bigint, p_steps bigint, p_currency text,
    p_signature bytea, p_ttl integer, p_action uuid DEFAULT NULL, p_mission uuid DEFAULT NULL,
    p_note text DEFAULT '', p_rates bigint[] DEFAULT NULL, p_at timestamptz DEFAULT now()
) RETURNS budgets_answer LANGUAGE plpgsql SET lock_timeout = '250ms' SET enable_seqscan = off AS $$
DECLARE
    v_answer budgets_answer;
    v_path uuid[];
    v_zone text;
    v_currency text;
    v_blocked bytea[];
    v_mission uuid;
    v_hash bytea;
    v_windows bigint[];
    v_fits boolean;
    v_window bigint;
BEGIN
    IF (p_money >= 0 AND p_money < 1e16 AND p_tokens >= 0 AND p_steps >= 0 AND p_ttl > 0) IS NOT TRUE OR min_scale(p_money) > 12 THEN
        RAISE EXCEPTION 'amounts must be exact and not negative' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- 1. Read without a lock: what can't fit is refused here, and a crowd at an empty budget never queues.
    SELECT a.path, o.time_zone, o.currency, g.blocked, c.window_ids,
        coalesce(p_mission, CASE WHEN a.subject_type = 'mission' THEN a.subject_id END), (
            SELECT bool_and(
                NOT frozen
                AND (p_money = 0 OR (held_money + spent_money + overrun_money + p_money <= limit_money) IS NOT FALSE)
                AND (p_tokens = 0 OR (held_tokens + spent_tokens + overrun_tokens + p_tokens <= limit_tokens) IS NOT FALSE)
                AND (p_steps = 0 OR (held_steps + spent_steps + overrun_steps + p_steps <= limit_steps) IS NOT FALSE)
            ) FROM budgets_window WHERE id = ANY(c.window_ids)
        )
    INTO v_path, v_zone, v_currency, v_blocked, v_windows, v_mission, v_fits
    FROM budgets_account AS a
    JOIN tenancy_organisation AS o ON o.id = a.organisation_id
    LEFT JOIN budgets_chain AS c ON c.account_id = a.id AND p_at >= c.valid_from AND p_at < c.valid_until
    LEFT JOIN budgets_guard AS g ON g.account_id = a.id
    WHERE a.id = p_account AND a.organisation_id = p_organisation;
    IF NOT FOUND THEN
        v_answer.outcome := 'unknown_account';
        RETURN v_answer;
    END IF;
    IF v_currency <> p_currency THEN
        v_answer.outcome := 'currency';
        v_answer.currency := v_currency;
        RETURN v_answer;
    END IF;
    v_hash := budgets_request_hash(p_account, p_money, p_tokens, p_steps, p_signature);

    IF v_windows IS NULL THEN
        v_windows := budgets_make_chain(p_account, v_path, v_zone, p_at);
        v_fits := (budgets_refusal(v_windows, p_money, p_tokens, p_steps)).outcome = 'changed';
    END IF;
    IF NOT v_fits OR budgets_digest(p_signature) = ANY(v_blocked) THEN
        v_answer := budgets_replay(p_id, p_organisation, v_hash);
        IF v_answer.outcome IS NOT NULL THEN
            RETURN v_answer;
        END IF;
        IF v_fits THEN
            v_answer.outcome := 'no_progress';
        ELSE
            v_answer := budgets_refusal(v_windows, p_money, p_tokens, p_steps);
        END IF;
        v_answer.currency := v_currency;
        RETURN v_answer;
    END IF;

    -- 2. The hold is the idempotency key: a second caller with this id waits here for the first one's end.
    INSERT INTO budgets_hold (
        id, organisation_id, account_id, request_hash, window_ids, money, tokens, steps, state, provisional,
        action_id, mission_id, rate_ids, ttl_seconds, created_at, expires_at
    ) VALUES (
        p_id, p_organisation, p_account, v_hash, v_windows, p_money, p_tokens, p_steps, 'held', false,
        p_action, v_mission, p_rates, p_ttl, p_at, p_at + make_interval(secs => p_ttl)
    ) ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN budgets_replay(p_id, p_organisation, v_hash);
    END IF;
    -- 3. Leaf → root; check and increment are one statement under the row's lock. No block with an exception handler
    -- around it: that is a subtransaction, and whoever queues at a row that one has touched is woken twice.
    FOREACH v_window IN ARRAY v_windows LOOP
        UPDATE budgets_window SET
            held_money = held_money + p_money, held_tokens = held_tokens + p_tokens, held_steps = held_steps + p_steps
        WHERE id = v_window AND NOT frozen
            AND (p_money = 0 OR (held_money + spent_money + overrun_money + p_money <= limit_money) IS NOT FALSE)
            AND (p_tokens = 0 OR (held_tokens + spent_tokens + overrun_tokens + p_tokens <= limit_tokens) IS NOT FALSE)
            AND (p_steps = 0 OR (held_steps + spent_steps + overrun_steps + p_steps <= limit_steps) IS NOT FALSE);
        IF NOT FOUND THEN
            -- This level filled up since step 1. Undo the levels below and the hold; nothing is in the journal yet.
            v_answer := budgets_refusal(ARRAY[v_window], p_money, p_tokens, p_steps);
            IF v_answer.outcome = 'changed' THEN
                SELECT w.account_id, a.level, a.name, w.kind INTO v_answer.account_id, v_answer.level, v_answer.name, v_answer.kind
                FROM budgets_window AS w JOIN budgets_account AS a ON a.id = w.account_id WHERE w.id = v_window;
            END IF;
            v_answer.currency := v_currency;
            UPDATE budgets_window SET
                held_money = held_money - p_money, held_tokens = held_tokens - p_tokens, held_steps = held_steps - p_steps
            WHERE id = ANY(v_windows[:array_position(v_windows, v_window) - 1]);
            DELETE FROM budgets_hold WHERE id = p_id;
            RETURN v_answer;
        END IF;
    END LOOP;
    INSERT INTO budgets_journal (
        at, organisation_id, account_id, kind, hold_id, mission_id, action_id, money, tokens, steps, note
    ) VALUES (p_at, p_organisation, p_account, 'reserve', p_id, v_mission, p_action, p_money, p_tokens, p_steps, p_note);
    v_answer.outcome := 'held';
    v_answer.state := 'held';
    RETURN v_answer;
END $$;

-- Many reserves at once: one insert, and one update per window with the net. Whatever is not the plain case (a replay, an
-- unknown account, a blocked call, a window not made yet, a net that does not fit) is answered item by item instead.
CREATE FUNCTION budgets_reserve_batch(
    p_organisation uuid, p_currency text, p_ids uuid[], p_accounts uuid[], p_money numeric[], p_tokens bigint[],
    p_steps bigint[], p_signatures bytea[], p_actions uuid[], p_ttl integer, p_at timestamptz DEFAULT now()
) RETURNS TABLE (item integer, answer budgets_answer) LANGUAGE plpgsql SET lock_timeout = '250ms' SET enable_seqscan = off AS $$
DECLARE
    v_count integer := cardinality(p_ids);
    v_taken integer;
    v_nets record;
    v_paths record;
    i integer;
BEGIN
    IF EXISTS (
        SELECT FROM unnest(p_money, p_tokens, p_steps) AS r (money, tokens, steps)
        WHERE (r.money >= 0 AND r.money < 1e16 AND r.tokens >= 0 AND r.steps >= 0 AND p_ttl > 0) IS NOT TRUE OR min_scale(r.money) > 12
    ) THEN
        RAISE EXCEPTION 'amounts must be exact and not negative' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    BEGIN
        WITH request AS MATERIALIZED (
            SELECT * FROM unnest(p_ids, p_accounts, p_money, p_tokens, p_steps, p_signatures, p_actions)
                AS r (id, account_id, money, tokens, steps, signature, action_id)
        ), chain AS MATERIALIZED (
            SELECT a.id AS account_id, CASE WHEN a.subject_type = 'mission' THEN a.subject_id END AS mission_id, g.blocked, c.window_ids AS windows
            FROM (SELECT DISTINCT account_id FROM request) AS d
            JOIN budgets_account AS a ON a.id = d.account_id AND a.organisation_id = p_organisation
            JOIN tenancy_organisation AS o ON o.id = a.organisation_id AND o.currency = coalesce(p_currency, o.currency)
            LEFT JOIN budgets_guard AS g ON g.account_id = a.id
            JOIN budgets_chain AS c ON c.account_id = a.id AND p_at >= c.valid_from AND p_at < c.valid_until
        ), inserted AS (
            INSERT INTO budgets_hold (
                id, organisation_id, account_id, request_hash, window_ids, money, tokens, steps, state, provisional,
                action_id, mission_id, ttl_seconds, created_at, expires_at
            )
            SELECT r.id, p_organisation, r.account_id,
                budgets_request_hash(r.account_id, r.money, r.tokens, r.steps, r.signature), c.windows,
                r.money, r.tokens, r.steps, 'held', false, r.action_id, c.mission_id, p_ttl, p_at,
                p_at + make_interval(secs => p_ttl)
            FROM request AS r JOIN chain AS c ON c.account_id = r.account_id
            WHERE c.blocked IS NULL OR NOT budgets_digest(r.signature) = ANY(c.blocked)
            ORDER BY r.id
            ON CONFLICT (id) DO NOTHING
            RETURNING id, account_id, mission_id, action_id, money, tokens, steps
        ), journal AS (
            INSERT INTO budgets_journal (at, organisation_id, account_id, kind, hold_id, mission_id, action_id, money, tokens, steps)
            SELECT p_at, p_organisation, account_id, 'reserve', id, mission_id, action_id, money, tokens, steps FROM inserted
            RETURNING 1
        ), net AS (
            SELECT w.id, w.depth, w.account_id, w.kind, sum(n.money) AS money, sum(n.tokens) AS tokens, sum(n.steps) AS steps
            FROM (
                SELECT account_id, sum(money) AS money, sum(tokens) AS tokens, sum(steps) AS steps FROM request GROUP BY account_id
            ) AS n
            JOIN chain AS c ON c.account_id = n.account_id
            JOIN budgets_window AS w ON w.id = ANY(c.windows)
            GROUP BY w.id
        )
        SELECT (SELECT count(*) FROM journal) AS taken,
            array_agg(id ORDER BY depth DESC, account_id, kind) AS windows,
            array_agg(money ORDER BY depth DESC, account_id, kind) AS money,
            array_agg(tokens::bigint ORDER BY depth DESC, account_id, kind) AS tokens,
            array_agg(steps::bigint ORDER BY depth DESC, account_id, kind) AS steps
        INTO v_nets FROM net;
        IF v_nets.taken <> v_count THEN
            RAISE EXCEPTION 'not the plain case' USING ERRCODE = 'RB001';
        END IF;
        FOR i IN 1..cardinality(v_nets.windows) LOOP
            UPDATE budgets_window SET
                held_money = held_money + v_nets.money[i],
                held_tokens = held_tokens + v_nets.tokens[i],
                held_steps = held_steps + v_nets.steps[i]
            WHERE id = v_nets.windows[i] AND NOT frozen
                AND (v_nets.money[i] = 0
                    OR (held_money + spent_money + overrun_money + v_nets.money[i] <= limit_money) IS NOT FALSE)
                AND (v_nets.tokens[i] = 0
                    OR (held_tokens + spent_tokens + overrun_tokens + v_nets.tokens[i] <= limit_tokens) IS NOT FALSE)
                AND (v_nets.steps[i] = 0
                    OR (held_steps + spent_steps + overrun_steps + v_nets.steps[i] <= limit_steps) IS NOT FALSE);
            IF NOT FOUND THEN
                RAISE EXCEPTION 'no room' USING ERRCODE = 'RB001';
            END IF;
        END LOOP;
        RETURN QUERY SELECT n, ROW('held', 'held', NULL, NULL, NULL, NULL, NULL, NULL, NULL)::budgets_answer FROM generate_series(1, v_count) AS n;
        RETURN;
    EXCEPTION WHEN SQLSTATE 'RB001' OR cardinality_violation THEN
        NULL;
    END;
    -- Every window of every item first, in the one order, so that the items may then come as they are.
    FOR v_paths IN
        SELECT a.id, a.path, o.time_zone FROM budgets_account AS a JOIN tenancy_organisation AS o ON o.id = a.organisation_id
        WHERE a.id = ANY(p_accounts) AND a.organisation_id = p_organisation ORDER BY a.id
    LOOP
        PERFORM budgets_make_chain(v_paths.id, v_paths.path, v_paths.time_zone, p_at);
    END LOOP;
    PERFORM FROM budgets_window AS w
    WHERE w.id IN (
        SELECT unnest(c.window_ids) FROM budgets_chain AS c JOIN budgets_account AS a ON a.id = c.account_id
        WHERE a.id = ANY(p_accounts) AND a.organisation_id = p_organisation
    ) ORDER BY w.depth DESC, w.account_id, w.kind, w.starts_at FOR UPDATE;
    FOR i IN 1..v_count LOOP
        item := i;
        answer := budgets_reserve(
            p_ids[i], p_organisation, p_accounts[i], p_money[i], p_tokens[i], p_steps[i], p_currency,
            p_signatures[i], p_ttl, p_actions[i], NULL, '', NULL, p_at
        );
        RETURN NEXT;
    END LOOP;
END $$;

-- What becomes of a hold -----------------------------------------------------------------------------------------------

-- The money may be spent from here on. The clock starts anew. Outcomes: dispatched, replayed, unknown, closed.
CREATE FUNCTION budgets_dispatch(p_id uuid, p_at timestamptz DEFAULT now(), OUT outcome text, OUT hold_state text)
LANGUAGE plpgsql SET lock_timeout = '250ms' SET enable_seqscan = off AS $$
DECLARE
    h budgets_hold;
BEGIN
    UPDATE budgets_hold SET state = 'dispatched', expires_at = greatest(expires_at, p_at + make_interval(secs => ttl_seconds))
    WHERE id = p_id AND state = 'held' RETURNING * INTO h;
    IF FOUND THEN
        INSERT INTO budgets_journal (at, organisation_id, account_id, kind, hold_id, mission_id, action_id)
        VALUES (p_at, h.organisation_id, h.account_id, 'dispatch', p_id, h.mission_id, h.action_id);
        outcome := 'dispatched';
        hold_state := h.state;
        RETURN;
    END IF;
    SELECT state INTO hold_state FROM budgets_hold WHERE id = p_id;
    outcome := CASE WHEN hold_state IS NULL THEN 'unknown' WHEN hold_state = 'dispatched' THEN 'replayed' ELSE 'closed' END;
END $$;

-- More time for an open hold. Outcomes: extended, unknown, closed.
CREATE FUNCTION budgets_extend(
    p_id uuid, p_ttl integer, p_at timestamptz DEFAULT now(), OUT outcome text, OUT hold_state text
) LANGUAGE plpgsql SET lock_timeout = '250ms' AS $$
DECLARE
    h budgets_hold;
BEGIN
    UPDATE budgets_hold SET expires_at = greatest(expires_at, p_at + make_interval(secs => p_ttl))
    WHERE id = p_id AND state IN ('held', 'dispatched') RETURNING * INTO h;
    IF FOUND THEN
        INSERT INTO budgets_journal (at, organisation_id, account_id, kind, hold_id, mission_id, action_id)
        VALUES (p_at, h.organisation_id, h.account_id, 'extend', p_id, h.mission_id, h.action_id);
        outcome := 'extended';
        hold_state := h.state;
        RETURN;
    END IF;
    SELECT state INTO hold_state FROM budgets_hold WHERE id = p_id;
    outcome := CASE WHEN hold_state IS NULL THEN 'unknown' ELSE 'closed' END;
END $$;

-- Charge once. NULL: as held. What goes beyond the hold takes what room is left, then is counted as overrun and freezes the
-- window: never hidden, never lost. A report that comes after a provisional settlement corrects it; one that comes after an
-- expiry is charged in full. Outcomes: settled, corrected, replayed, unknown, voided.
CREATE FUNCTION budgets_settle(
    p_id uuid, p_money numeric, p_tokens bigint, p_steps bigint, p_provisional boolean DEFAULT false,
    p_at timestamptz DEFAULT now(),
    OUT outcome text, OUT charged_money numeric, OUT charged_tokens bigint, OUT charged_steps bigint, OUT overruns uuid[], OUT beyond numeric
) LANGUAGE plpgsql SET lock_timeout = '250ms' SET enable_seqscan = off AS $$
DECLARE
    h budgets_hold;
    w budgets_window;
    v_window bigint;
    v_journal bigint;
    v_day date;
    v_lowering boolean;
    -- was: charged before; free: taken from the held columns; sure: goes to spent without asking; more: has to find room
    was_m numeric := 0; was_t bigint := 0; was_s bigint := 0;
    free_m numeric := 0; free_t bigint := 0; free_s bigint := 0;
    sure_m numeric; sure_t bigint; sure_s bigint;
    more_m numeric; more_t bigint; more_s bigint;
    room_m numeric; room_t bigint; room_s bigint;
BEGIN
    overruns := '{}';
    beyond := 0;
    SELECT * INTO h FROM budgets_hold WHERE id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        outcome := 'unknown';
        RETURN;
    END IF;
    IF h.state = 'voided' THEN
        outcome := 'voided';
        RETURN;
    END IF;
    charged_money := coalesce(p_money, h.money);
    charged_tokens := coalesce(p_tokens, h.tokens);
    charged_steps := coalesce(p_steps, h.steps);
    IF (charged_money >= 0 AND charged_money < 1e16 AND charged_tokens >= 0 AND charged_steps >= 0) IS NOT TRUE
        OR min_scale(charged_money) > 12 THEN
        RAISE EXCEPTION 'amounts must be exact and not negative' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF h.state = 'settled' THEN
        IF p_provisional OR NOT h.provisional THEN
            outcome := 'replayed';
            charged_money := h.actual_money;
            charged_tokens := h.actual_tokens;
            charged_steps := h.actual_steps;
            RETURN;
        END IF;
        outcome := 'corrected';
        was_m := h.actual_money; was_t := h.actual_tokens; was_s := h.actual_steps;
    ELSE
        outcome := 'settled';
        IF h.state IN ('held', 'dispatched') THEN
            free_m := h.money; free_t := h.tokens; free_s := h.steps;
        END IF;
    END IF;
    sure_m := least(charged_money, was_m + free_m) - was_m; more_m := greatest(charged_money - was_m - free_m, 0);
    sure_t := least(charged_tokens, was_t + free_t) - was_t; more_t := greatest(charged_tokens - was_t - free_t, 0);
    sure_s := least(charged_steps, was_s + free_s) - was_s; more_s := greatest(charged_steps - was_s - free_s, 0);

    FOREACH v_window IN ARRAY h.window_ids LOOP
        IF more_m = 0 AND more_t = 0 AND more_s = 0 THEN
            UPDATE budgets_window SET
                held_money = held_money - free_m, held_tokens = held_tokens - free_t, held_steps = held_steps - free_s,
                spent_money = spent_money + sure_m, spent_tokens = spent_tokens + sure_t, spent_steps = spent_steps + sure_s
            WHERE id = v_window RETURNING lowering INTO STRICT v_lowering;
        ELSE
            SELECT * INTO STRICT w FROM budgets_window WHERE id = v_window FOR UPDATE;
            room_m := least(more_m, greatest(w.limit_money - (w.held_money - free_m) - w.spent_money - sure_m - w.overrun_money, 0));
            room_t := least(more_t, greatest(w.limit_tokens - (w.held_tokens - free_t) - w.spent_tokens - sure_t - w.overrun_tokens, 0));
            room_s := least(more_s, greatest(w.limit_steps - (w.held_steps - free_s) - w.spent_steps - sure_s - w.overrun_steps, 0));
            -- greatest() skips NULLs, so without a limit the room would read as none.
            IF w.limit_money IS NULL THEN room_m := more_m; END IF;
            IF w.limit_tokens IS NULL THEN room_t := more_t; END IF;
            IF w.limit_steps IS NULL THEN room_s := more_s; END IF;
            UPDATE budgets_window SET
                held_money = held_money - free_m, held_tokens = held_tokens - free_t, held_steps = held_steps - free_s,
                spent_money = spent_money + sure_m + room_m,
                spent_tokens = spent_tokens + sure_t + room_t,
                spent_steps = spent_steps + sure_s + room_s,
                overrun_money = overrun_money + more_m - room_m,
                overrun_tokens = overrun_tokens + more_t - room_t,
                overrun_steps = overrun_steps + more_s - room_s,
                frozen = frozen OR room_m < more_m OR room_t < more_t OR room_s < more_s
            WHERE id = v_window RETURNING lowering INTO STRICT v_lowering;
            IF room_m < more_m OR room_t < more_t OR room_s < more_s THEN
                overruns := array_append(overruns, w.account_id);
                beyond := greatest(beyond, more_m - room_m);
                INSERT INTO budgets_journal (
                    at, organisation_id, account_id, kind, hold_id, mission_id, action_id, money, tokens, steps
                ) VALUES (
                    p_at, h.organisation_id, w.account_id, 'overrun', p_id, h.mission_id, h.action_id,
                    more_m - room_m, more_t - room_t, more_s - room_s
                );
            END IF;
        END IF;
        IF v_lowering THEN
            PERFORM budgets_follow_limit(v_window);
        END IF;
    END LOOP;

    UPDATE budgets_hold SET state = 'settled', provisional = p_provisional, closed_at = coalesce(closed_at, p_at),
        actual_money = charged_money, actual_tokens = charged_tokens, actual_steps = charged_steps
    WHERE id = p_id;
    INSERT INTO budgets_journal (at, organisation_id, account_id, kind, hold_id, mission_id, action_id, money, tokens, steps, note)
    VALUES (
        p_at, h.organisation_id, h.account_id, CASE outcome WHEN 'corrected' THEN 'correct' ELSE 'settle' END, p_id,
        h.mission_id, h.action_id, charged_money - was_m, charged_tokens - was_t, charged_steps - was_s,
        CASE WHEN p_provisional THEN 'provisional' WHEN h.state = 'expired' THEN 'late' ELSE '' END
    ) RETURNING id INTO v_journal;
    INSERT INTO budgets_posting (journal_id, side, at, account_id, money, tokens, steps) VALUES
        (v_journal, 'expense', p_at, h.account_id, charged_money - was_m, charged_tokens - was_t, charged_steps - was_s),
        (v_journal, 'payable', p_at, h.account_id, was_m - charged_money, was_t - charged_tokens, was_s - charged_steps);
    SELECT (h.created_at AT TIME ZONE o.time_zone)::date INTO STRICT v_day FROM tenancy_organisation AS o WHERE o.id = h.organisation_id;
    INSERT INTO budgets_dailyspend AS d (account_id, day, money, tokens, steps)
    VALUES (h.account_id, v_day, charged_money - was_m, charged_tokens - was_t, charged_steps - was_s)
    ON CONFLICT (account_id, day) DO UPDATE SET
        money = d.money + excluded.money, tokens = d.tokens + excluded.tokens, steps = d.steps + excluded.steps;
END $$;

-- Nothing was spent: give it back. A provisional settlement is corrected to nothing.
-- Outcomes: voided (or expired), replayed, unknown, settled (too late: it was charged).
CREATE FUNCTION budgets_void(
    p_id uuid, p_state text DEFAULT 'voided', p_at timestamptz DEFAULT now(), OUT outcome text
) LANGUAGE plpgsql SET lock_timeout = '250ms' SET enable_seqscan = off AS $$
DECLARE
    h budgets_hold;
    v_window bigint;
    v_lowering boolean;
BEGIN
    SELECT * INTO h FROM budgets_hold WHERE id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        outcome := 'unknown';
        RETURN;
    END IF;
    IF h.state = 'settled' THEN
        IF NOT h.provisional THEN
            outcome := 'settled';
            RETURN;
        END IF;
        PERFORM budgets_settle(p_id, 0, 0, 0, false, p_at);
        outcome := 'voided';
        RETURN;
    END IF;
    IF h.state IN ('voided', 'expired') THEN
        outcome := 'replayed';
        RETURN;
    END IF;
    FOREACH v_window IN ARRAY h.window_ids LOOP
        UPDATE budgets_window SET
            held_money = held_money - h.money, held_tokens = held_tokens - h.tokens, held_steps = held_steps - h.steps
        WHERE id = v_window RETURNING lowering INTO STRICT v_lowering;
        IF v_lowering THEN
            PERFORM budgets_follow_limit(v_window);
        END IF;
    END LOOP;
    UPDATE budgets_hold SET state = p_state, closed_at = p_at WHERE id = p_id;
    INSERT INTO budgets_journal (at, organisation_id, account_id, kind, hold_id, mission_id, action_id, money, tokens, steps)
    VALUES (
        p_at, h.organisation_id, h.account_id, CASE p_state WHEN 'expired' THEN 'expire' ELSE 'void' END, p_id,
        h.mission_id, h.action_id, -h.money, -h.tokens, -h.steps
    );
    outcome := p_state;
END $$;

-- Holds whose time is over. Never dispatched: given back. Dispatched and silent: charged as held, provisionally.
CREATE FUNCTION budgets_sweep(p_limit integer, p_at timestamptz DEFAULT now(), OUT expired integer, OUT provisional integer)
LANGUAGE plpgsql SET lock_timeout = '250ms' AS $$
DECLARE
    v_holds uuid[];
    h budgets_hold;
BEGIN
    expired := 0;
    provisional := 0;
    SELECT array_agg(due.id) INTO v_holds FROM (
        SELECT id FROM budgets_hold WHERE closed_at IS NULL AND expires_at <= p_at
        ORDER BY expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ) AS due;
    IF v_holds IS NULL THEN
        RETURN;
    END IF;
    PERFORM FROM budgets_window AS w
    WHERE w.id IN (SELECT unnest(window_ids) FROM budgets_hold WHERE id = ANY(v_holds))
    ORDER BY w.depth DESC, w.account_id, w.kind, w.starts_at FOR UPDATE;
    FOR h IN SELECT * FROM budgets_hold WHERE id = ANY(v_holds) LOOP
        IF h.state = 'held' THEN
            PERFORM budgets_void(h.id, 'expired', p_at);
            expired := expired + 1;
        ELSE
            PERFORM budgets_settle(h.id, NULL, NULL, NULL, true, p_at);
            provisional := provisional + 1;
        END IF;
    END LOOP;
END $$;

-- What came of a call, for the loop guard. A pair (call, result) not in the ring is something new: it frees every blocked call
-- and starts the count again. A pair seen `guard_repeats` times with nothing new in between, or `guard_ring_repeats` times in
-- the ring at all, blocks its call. True: the call is blocked now.
CREATE FUNCTION budgets_note_result(
    p_account uuid, p_organisation uuid, p_signature bytea, p_result bytea, p_at timestamptz DEFAULT now()
) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '250ms' AS $$
DECLARE
    a budgets_account;
    g budgets_guard;
    v_call bytea := budgets_digest(p_signature);
    v_pair bytea := budgets_digest(budgets_digest(p_signature) || p_result);
    v_recent bytea[];
    v_stuck boolean;
BEGIN
    SELECT * INTO a FROM budgets_account WHERE id = p_account AND organisation_id = coalesce(p_organisation, organisation_id);
    IF NOT FOUND OR a.guard_repeats = 0 THEN
        RETURN false;
    END IF;
    INSERT INTO budgets_guard (account_id, results, pairs, since_new, blocked, updated_at) VALUES (p_account, 0, '{}', 0, '{}', p_at)
    ON CONFLICT (account_id) DO NOTHING;
    SELECT * INTO STRICT g FROM budgets_guard WHERE account_id = p_account FOR UPDATE;
    g.since_new := g.since_new + 1;
    IF NOT v_pair = ANY(g.pairs) THEN
        g.since_new := 1;
        g.blocked := '{}';
    END IF;
    g.pairs := array_append(g.pairs, v_pair);
    IF cardinality(g.pairs) > a.guard_ring THEN
        g.pairs := g.pairs[cardinality(g.pairs) - a.guard_ring + 1:];
    END IF;
    v_recent := g.pairs[greatest(cardinality(g.pairs) - g.since_new + 1, 1):];
    v_stuck := cardinality(array_positions(v_recent, v_pair)) >= a.guard_repeats
        OR cardinality(array_positions(g.pairs, v_pair)) >= a.guard_ring_repeats;
    g.blocked := array_remove(g.blocked, v_call);
    IF v_stuck THEN
        g.blocked := array_append(g.blocked, v_call);
    END IF;
    UPDATE budgets_guard SET results = results + 1, pairs = g.pairs, since_new = g.since_new, blocked = g.blocked, updated_at = p_at
    WHERE account_id = p_account;
    RETURN v_stuck;
END $$;
