-- The same functions in fewer statements. Starting a statement, and reading the text of the windows' check anew in each, cost
-- more than the rows they touch.
--
-- One UPDATE locks the windows in the order of the array, leaf → root, because it is a nested loop with the array outside:
-- the other joins are off, and so is planning anew for every call.

-- Reserve: the stored answer, a refusal, or all levels at once.
CREATE OR REPLACE FUNCTION budgets_reserve(
    p_id uuid, p_organisation uuid, p_account uuid, p_money numeric, p_tokens bigint, p_steps bigint, p_currency text,
    p_signature bytea, p_ttl integer, p_action uuid DEFAULT NULL, p_mission uuid DEFAULT NULL,
    p_note text DEFAULT '', p_rates bigint[] DEFAULT NULL, p_at timestamptz DEFAULT now()
) RETURNS budgets_answer LANGUAGE plpgsql SET lock_timeout = '250ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
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
    v_taken integer;
    v_held bigint[];
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
    -- 3. Leaf → root; check and increment are one statement under the row's lock. No block with an exception handler
    -- around it: that is a subtransaction, and whoever queues at a row that one has touched is woken twice.
    -- 4. The journal, if every level had room.
    WITH hold AS (
        INSERT INTO budgets_hold (
            id, organisation_id, account_id, request_hash, window_ids, money, tokens, steps, state, provisional,
            action_id, mission_id, rate_ids, ttl_seconds, created_at, expires_at
        ) VALUES (
            p_id, p_organisation, p_account, v_hash, v_windows, p_money, p_tokens, p_steps, 'held', false,
            p_action, v_mission, p_rates, p_ttl, p_at, p_at + make_interval(secs => p_ttl)
        ) ON CONFLICT (id) DO NOTHING RETURNING id
    ), held AS (
        UPDATE budgets_window AS w SET
            held_money = held_money + p_money, held_tokens = held_tokens + p_tokens, held_steps = held_steps + p_steps
        FROM hold CROSS JOIN unnest(v_windows) AS level (id)
        WHERE w.id = level.id AND NOT w.frozen
            AND (p_money = 0 OR (held_money + spent_money + overrun_money + p_money <= limit_money) IS NOT FALSE)
            AND (p_tokens = 0 OR (held_tokens + spent_tokens + overrun_tokens + p_tokens <= limit_tokens) IS NOT FALSE)
            AND (p_steps = 0 OR (held_steps + spent_steps + overrun_steps + p_steps <= limit_steps) IS NOT FALSE)
        RETURNING w.id
    ), passed AS (
        SELECT array_agg(id) AS windows FROM held
    ), journal AS (
        INSERT INTO budgets_journal (
            at, organisation_id, account_id, kind, hold_id, mission_id, action_id, money, tokens, steps, note
        )
        SELECT p_at, p_organisation, p_account, 'reserve', p_id, v_mission, p_action, p_money, p_tokens, p_steps, p_note
        FROM passed WHERE cardinality(windows) = cardinality(v_windows)
    )
    SELECT windows, (SELECT count(*) FROM hold) INTO v_held, v_taken FROM passed;
    IF v_taken = 0 THEN
        RETURN budgets_replay(p_id, p_organisation, v_hash);
    END IF;
    IF cardinality(v_held) = cardinality(v_windows) THEN
        v_answer.outcome := 'held';
        v_answer.state := 'held';
        RETURN v_answer;
    END IF;
    -- A level filled up since step 1. Undo the others and the hold; nothing is in the journal yet.
    v_held := coalesce(v_held, '{}');
    SELECT level.id INTO v_window FROM unnest(v_windows) WITH ORDINALITY AS level (id, position)
    WHERE level.id <> ALL(v_held) ORDER BY position LIMIT 1;
    v_answer := budgets_refusal(ARRAY[v_window], p_money, p_tokens, p_steps);
    IF v_answer.outcome = 'changed' THEN
        SELECT w.account_id, a.level, a.name, w.kind INTO v_answer.account_id, v_answer.level, v_answer.name, v_answer.kind
        FROM budgets_window AS w JOIN budgets_account AS a ON a.id = w.account_id WHERE w.id = v_window;
    END IF;
    v_answer.currency := v_currency;
    UPDATE budgets_window SET
        held_money = held_money - p_money, held_tokens = held_tokens - p_tokens, held_steps = held_steps - p_steps
    WHERE id = ANY(v_held);
    DELETE FROM budgets_hold WHERE id = p_id;
    RETURN v_answer;
END $$;

-- The money may be spent from here on. The clock starts anew. Outcomes: dispatched, replayed, unknown, closed.
CREATE OR REPLACE FUNCTION budgets_dispatch(p_id uuid, p_at timestamptz DEFAULT now(), OUT outcome text, OUT hold_state text)
LANGUAGE plpgsql SET lock_timeout = '250ms' SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    WITH hold AS (
        UPDATE budgets_hold SET state = 'dispatched', expires_at = greatest(expires_at, p_at + make_interval(secs => ttl_seconds))
        WHERE id = p_id AND state = 'held' RETURNING organisation_id, account_id, mission_id, action_id
    )
    INSERT INTO budgets_journal (at, organisation_id, account_id, kind, hold_id, mission_id, action_id)
    SELECT p_at, organisation_id, account_id, 'dispatch', p_id, mission_id, action_id FROM hold;
    IF FOUND THEN
        outcome := 'dispatched';
        hold_state := 'dispatched';
        RETURN;
    END IF;
    SELECT state INTO hold_state FROM budgets_hold WHERE id = p_id;
    outcome := CASE WHEN hold_state IS NULL THEN 'unknown' WHEN hold_state = 'dispatched' THEN 'replayed' ELSE 'closed' END;
END $$;

-- Charge once; see migration 0002 for what a late or larger report does. Outcomes: settled, corrected, replayed, unknown, voided.
CREATE OR REPLACE FUNCTION budgets_settle(
    p_id uuid, p_money numeric, p_tokens bigint, p_steps bigint, p_provisional boolean DEFAULT false,
    p_at timestamptz DEFAULT now(),
    OUT outcome text, OUT charged_money numeric, OUT charged_tokens bigint, OUT charged_steps bigint, OUT overruns uuid[], OUT beyond numeric
) LANGUAGE plpgsql SET lock_timeout = '250ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    h budgets_hold;
    w budgets_window;
    v_window bigint;
    v_levels integer;
    v_lowered bigint[];
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

    WITH hold AS (
        UPDATE budgets_hold SET state = 'settled', provisional = p_provisional, closed_at = coalesce(closed_at, p_at),
            actual_money = charged_money, actual_tokens = charged_tokens, actual_steps = charged_steps
        WHERE id = p_id
    ), journal AS (
        INSERT INTO budgets_journal (at, organisation_id, account_id, kind, hold_id, mission_id, action_id, money, tokens, steps, note)
        VALUES (
            p_at, h.organisation_id, h.account_id, CASE outcome WHEN 'corrected' THEN 'correct' ELSE 'settle' END, p_id,
            h.mission_id, h.action_id, charged_money - was_m, charged_tokens - was_t, charged_steps - was_s,
            CASE WHEN p_provisional THEN 'provisional' WHEN h.state = 'expired' THEN 'late' ELSE '' END
        ) RETURNING id, account_id, money, tokens, steps
    )
    INSERT INTO budgets_posting (journal_id, side, at, account_id, money, tokens, steps)
    SELECT id, side, p_at, account_id, sign * money, sign * tokens, sign * steps
    FROM journal CROSS JOIN (VALUES ('expense', 1), ('payable', -1)) AS sides (side, sign);

    IF more_m = 0 AND more_t = 0 AND more_s = 0 THEN
        WITH charged AS (
            UPDATE budgets_window AS charge SET
                held_money = held_money - free_m, held_tokens = held_tokens - free_t, held_steps = held_steps - free_s,
                spent_money = spent_money + sure_m, spent_tokens = spent_tokens + sure_t, spent_steps = spent_steps + sure_s
            FROM unnest(h.window_ids) AS level (id)
            WHERE charge.id = level.id
            RETURNING charge.id, charge.lowering
        )
        SELECT count(*), array_agg(id) FILTER (WHERE lowering) INTO v_levels, v_lowered FROM charged;
        IF v_levels <> cardinality(h.window_ids) THEN
            RAISE EXCEPTION 'a window of hold % is missing', p_id USING ERRCODE = 'no_data_found';
        END IF;
        IF v_lowered IS NOT NULL THEN
            FOREACH v_window IN ARRAY v_lowered LOOP
                PERFORM budgets_follow_limit(v_window);
            END LOOP;
        END IF;
    ELSE
        FOREACH v_window IN ARRAY h.window_ids LOOP
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
            IF v_lowering THEN
                PERFORM budgets_follow_limit(v_window);
            END IF;
        END LOOP;
    END IF;

    INSERT INTO budgets_dailyspend AS d (account_id, day, money, tokens, steps)
    SELECT h.account_id, (h.created_at AT TIME ZONE o.time_zone)::date,
        charged_money - was_m, charged_tokens - was_t, charged_steps - was_s
    FROM tenancy_organisation AS o WHERE o.id = h.organisation_id
    ON CONFLICT (account_id, day) DO UPDATE SET
        money = d.money + excluded.money, tokens = d.tokens + excluded.tokens, steps = d.steps + excluded.steps;
END $$;

-- Nothing was spent: give it back. Outcomes: voided (or expired), replayed, unknown, settled (too late: it was charged).
CREATE OR REPLACE FUNCTION budgets_void(
    p_id uuid, p_state text DEFAULT 'voided', p_at timestamptz DEFAULT now(), OUT outcome text
) LANGUAGE plpgsql SET lock_timeout = '250ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    h budgets_hold;
    v_window bigint;
    v_levels integer;
    v_lowered bigint[];
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
    WITH hold AS (
        UPDATE budgets_hold SET state = p_state, closed_at = p_at WHERE id = p_id
    )
    INSERT INTO budgets_journal (at, organisation_id, account_id, kind, hold_id, mission_id, action_id, money, tokens, steps)
    VALUES (
        p_at, h.organisation_id, h.account_id, CASE p_state WHEN 'expired' THEN 'expire' ELSE 'void' END, p_id,
        h.mission_id, h.action_id, -h.money, -h.tokens, -h.steps
    );
    WITH released AS (
        UPDATE budgets_window AS w SET
            held_money = held_money - h.money, held_tokens = held_tokens - h.tokens, held_steps = held_steps - h.steps
        FROM unnest(h.window_ids) AS level (id)
        WHERE w.id = level.id
        RETURNING w.id, w.lowering
    )
    SELECT count(*), array_agg(id) FILTER (WHERE lowering) INTO v_levels, v_lowered FROM released;
    IF v_levels <> cardinality(h.window_ids) THEN
        RAISE EXCEPTION 'a window of hold % is missing', p_id USING ERRCODE = 'no_data_found';
    END IF;
    IF v_lowered IS NOT NULL THEN
        FOREACH v_window IN ARRAY v_lowered LOOP
            PERFORM budgets_follow_limit(v_window);
        END LOOP;
    END IF;
    outcome := p_state;
END $$;
