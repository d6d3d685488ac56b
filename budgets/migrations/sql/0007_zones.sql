-- An organisation's time zone may change: windows under way go on with what is held and spent in them, and days that are
-- over stay as they were counted.

-- The windows an account's reserves pass now, remembered until the first of them ends. The zone is read behind the lock
-- that a change of it takes: whoever waited there would make windows of the former one.
CREATE OR REPLACE FUNCTION budgets_make_chain(p_account uuid, p_path uuid[], p_zone text, p_at timestamptz) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    v_zone text;
    v_windows bigint[];
BEGIN
    PERFORM FROM budgets_account WHERE id = ANY(p_path) ORDER BY depth DESC FOR SHARE;
    SELECT o.time_zone INTO STRICT v_zone
    FROM budgets_account AS a JOIN tenancy_organisation AS o ON o.id = a.organisation_id WHERE a.id = p_account;
    PERFORM budgets_make_windows(p_path, v_zone, p_at);
    INSERT INTO budgets_chain AS c (account_id, window_ids, valid_from, valid_until)
    SELECT p_account, array_agg(w.id ORDER BY w.depth DESC, w.account_id, w.kind), max(w.starts_at), min(w.ends_at)
    FROM budgets_accountlimit AS l
    JOIN budgets_window AS w ON w.account_id = l.account_id AND w.kind = l.kind
        AND w.starts_at = budgets_starts_at(l.kind, v_zone, p_at)
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

-- In the transaction that has changed the zone. What is charged while it commits still sees the former one, so that one
-- counts for some seconds more.
CREATE FUNCTION budgets_follow_zone(p_organisation uuid, p_before text, p_at timestamptz DEFAULT now())
RETURNS void LANGUAGE plpgsql SET lock_timeout = '5s' AS $$
DECLARE
    v_zone text;
BEGIN
    SELECT time_zone INTO STRICT v_zone FROM tenancy_organisation WHERE id = p_organisation;
    INSERT INTO budgets_formerzone (organisation_id, zone, until)
    VALUES (p_organisation, p_before, clock_timestamp() + interval '10 seconds');
    -- Against the share lock of whoever makes a window or a chain now.
    PERFORM FROM budgets_account
    WHERE organisation_id = p_organisation AND id IN (SELECT account_id FROM budgets_accountlimit WHERE kind <> 'total')
    ORDER BY depth DESC, id FOR NO KEY UPDATE;
    DELETE FROM budgets_chain WHERE account_id IN (SELECT id FROM budgets_account WHERE organisation_id = p_organisation);
    PERFORM FROM budgets_window AS w JOIN budgets_account AS a ON a.id = w.account_id
    WHERE a.organisation_id = p_organisation AND w.kind <> 'total' AND w.starts_at <= p_at AND w.ends_at > p_at
    ORDER BY w.depth DESC, w.account_id, w.kind, w.starts_at FOR UPDATE OF w;
    -- One window of a kind is under way; where an earlier version left two, the one in use.
    UPDATE budgets_window AS w SET starts_at = n.starts_at, ends_at = budgets_ends_at(n.kind, v_zone, n.starts_at)
    FROM (
        SELECT DISTINCT ON (u.account_id, u.kind) u.id, u.account_id, u.kind,
            budgets_starts_at(u.kind, v_zone, p_at) AS starts_at
        FROM budgets_window AS u JOIN budgets_account AS a ON a.id = u.account_id
        WHERE a.organisation_id = p_organisation AND u.kind <> 'total' AND u.starts_at <= p_at AND u.ends_at > p_at
        ORDER BY u.account_id, u.kind, u.starts_at = budgets_starts_at(u.kind, p_before, p_at) DESC, u.id DESC
    ) AS n
    WHERE w.id = n.id AND w.starts_at <> n.starts_at AND NOT EXISTS (
        SELECT FROM budgets_window AS o WHERE o.account_id = n.account_id AND o.kind = n.kind AND o.starts_at = n.starts_at
    );
END $$;

-- Charge once, as in migration 0003, on the day as it was counted then; see migration 0002 for what a late or larger report does. Outcomes: settled, corrected, replayed, unknown, voided.
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

    -- The day as `budgets.zones.DAY_OF_HOLD` says it.
    INSERT INTO budgets_dailyspend AS d (account_id, day, money, tokens, steps)
    SELECT h.account_id, (h.created_at AT TIME ZONE coalesce((
            SELECT f.zone FROM budgets_formerzone AS f
            WHERE f.organisation_id = o.id AND f.until > h.created_at ORDER BY f.until LIMIT 1
        ), o.time_zone))::date,
        charged_money - was_m, charged_tokens - was_t, charged_steps - was_s
    FROM tenancy_organisation AS o WHERE o.id = h.organisation_id
    ON CONFLICT (account_id, day) DO UPDATE SET
        money = d.money + excluded.money, tokens = d.tokens + excluded.tokens, steps = d.steps + excluded.steps;
END $$;
