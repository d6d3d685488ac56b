-- The end is counted in local time from where the period began by the calendar: where the clocks skip midnight, a day begins
-- at one o'clock and ends at the next midnight all the same, not at one o'clock again.
CREATE OR REPLACE FUNCTION budgets_ends_at(p_kind text, p_zone text, p_starts_at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE p_kind WHEN 'total' THEN timestamptz '9999-12-31 00:00:00+00'
        ELSE (date_trunc(p_kind, p_starts_at AT TIME ZONE p_zone) + ('1 ' || p_kind)::interval) AT TIME ZONE p_zone END
$$;
