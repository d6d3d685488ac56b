-- The smallest UUIDv7 of a moment, as controlplane.common.ids.first_id.
CREATE FUNCTION first_id_of(p_at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM p_at) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$;

-- Makes the tables of a month and the months after it for a table partitioned by a time or, with `p_by_id`, by ids that
-- begin with one. Safe to race and to repeat. What may not be done to the whole may not be done to one of its months:
-- row triggers come with the parent, TRUNCATE needs one of its own, and nobody but the owner reaches a month directly.
CREATE FUNCTION make_months(p_table text, p_by_id boolean, p_refuse text, p_months integer, p_at timestamptz)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_month timestamp;
    v_name text;
    v_from text;
    v_to text;
    v_strays boolean := false;
    v_made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('make_months ' || p_table, 0));
    FOR v_month IN
        SELECT generate_series(first, first + make_interval(months => p_months), interval '1 month')
        FROM (SELECT date_trunc('month', p_at AT TIME ZONE 'UTC') AS first) AS series
    LOOP
        v_name := p_table || to_char(v_month, '_YYYY_MM');
        CONTINUE WHEN to_regclass(v_name) IS NOT NULL;
        v_from := (v_month AT TIME ZONE 'UTC')::text;
        v_to := ((v_month + interval '1 month') AT TIME ZONE 'UTC')::text;
        IF p_by_id THEN
            v_from := first_id_of(v_from::timestamptz)::text;
            v_to := first_id_of(v_to::timestamptz)::text;
            -- Rows written before their month had a table stay where they are: nothing may be moved.
            EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE id >= %L AND id < %L)', p_table || '_default', v_from, v_to)
            INTO v_strays;
            CONTINUE WHEN v_strays;
        END IF;
        EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', v_name, p_table, v_from, v_to);
        PERFORM guard_month(v_name, p_refuse);
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END $$;

CREATE FUNCTION guard_month(p_name text, p_refuse text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_grantee text;
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION %I()',
        p_name || '_no_truncate', p_name, p_refuse);
    FOR v_grantee IN
        SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
        WHERE c.oid = p_name::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON %I FROM %s', p_name, v_grantee);
    END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION make_months(text, boolean, text, integer, timestamptz), guard_month(text, text) FROM PUBLIC;

-- As the tables' owner, so that a worker whose role owns nothing can keep them ahead.
CREATE FUNCTION audit_make_partitions(p_months integer, p_at timestamptz DEFAULT now()) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '5s' AS $$
    SELECT make_months('audit_entry', true, 'audit_refuse', p_months, p_at)
$$;

-- The table there is becomes the part of everything up to the end of this month, without copying a row. Reads and writes
-- wait meanwhile: about two seconds per million entries, to see that none is from later and that each seal has its entry.
DO $$
DECLARE
    v_last timestamptz;
    v_end timestamptz;
    v_old text;
    v_indexes text[];
    v_keys text[];
    v_refers text[];
    v_grants text[];
    v_line record;
BEGIN
    LOCK TABLE audit_entry IN ACCESS EXCLUSIVE MODE;
    SELECT to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0) INTO v_last
    FROM audit_entry ORDER BY id DESC LIMIT 1;
    v_last := date_trunc('month', greatest(now(), v_last), 'UTC');
    v_end := ((v_last AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC';
    v_old := 'audit_entry' || to_char(v_last AT TIME ZONE 'UTC', '_YYYY_MM');

    SELECT array_agg(pg_get_indexdef(indexrelid)) INTO v_indexes
    FROM pg_index WHERE indrelid = 'audit_entry'::regclass AND NOT indisprimary;
    SELECT array_agg(format('ALTER TABLE audit_entry ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) ORDER BY contype DESC)
    INTO v_keys FROM pg_constraint WHERE conrelid = 'audit_entry'::regclass AND contype IN ('p', 'f');
    SELECT array_agg(format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)))
    INTO v_refers FROM pg_constraint WHERE confrelid = 'audit_entry'::regclass AND contype = 'f';
    SELECT array_agg(format('GRANT %s ON audit_entry TO %s', a.privilege_type,
        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END))
    INTO v_grants FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
    WHERE c.oid = 'audit_entry'::regclass AND a.grantee <> c.relowner;

    FOR v_line IN SELECT conrelid::regclass AS referring, conname FROM pg_constraint
        WHERE confrelid = 'audit_entry'::regclass AND contype = 'f'
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', v_line.referring, v_line.conname);
    END LOOP;
    DROP TRIGGER audit_entry_append_only ON audit_entry;
    DROP TRIGGER audit_entry_no_truncate ON audit_entry;
    DROP TRIGGER audit_entry_unsealed ON audit_entry;
    FOR v_line IN SELECT indexrelid::regclass AS name FROM pg_index WHERE indrelid = 'audit_entry'::regclass LOOP
        EXECUTE format('ALTER INDEX %s RENAME TO %I', v_line.name,
            left(v_line.name::text, 55) || to_char(v_last AT TIME ZONE 'UTC', '_YYYY_MM'));
    END LOOP;
    EXECUTE format('ALTER TABLE audit_entry RENAME TO %I', v_old);

    EXECUTE format('CREATE TABLE audit_entry (LIKE %I INCLUDING DEFAULTS) PARTITION BY RANGE (id)', v_old);
    FOR v_line IN SELECT unnest(v_keys || v_indexes || v_grants) AS statement LOOP
        EXECUTE v_line.statement;
    END LOOP;
    EXECUTE format('ALTER TABLE audit_entry ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)', v_old, first_id_of(v_end));
    CREATE TABLE audit_entry_default PARTITION OF audit_entry DEFAULT;
    FOR v_line IN SELECT unnest(v_refers) AS statement LOOP
        EXECUTE v_line.statement;
    END LOOP;
    PERFORM guard_month(name, 'audit_refuse') FROM unnest(ARRAY[v_old, 'audit_entry_default']) AS name;
END $$;

CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE ON audit_entry
    FOR EACH ROW EXECUTE FUNCTION audit_entry_guard();
CREATE TRIGGER audit_entry_no_truncate BEFORE TRUNCATE ON audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_entry_unsealed AFTER INSERT ON audit_entry
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION audit_note_unsealed();

SELECT audit_make_partitions(12);
