"""A commit may bring several audit entries: an action that starts with its decision has two. An action ends in one
call. A decision says which policies the judge lifted."""

import django.contrib.postgres.fields
from django.db import migrations, models

COMMIT = """
CREATE OR REPLACE FUNCTION governance_commit(document jsonb) RETURNS text LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
BEGIN
    IF coalesce(governance_active_bundle((document->'decision'->>'organisation_id')::uuid), '')
       <> (document->'decision'->>'bundle_sha256') THEN
        RETURN 'bundle_changed';
    END IF;
    IF document ? 'action' THEN
        INSERT INTO governance_action
        SELECT * FROM jsonb_populate_record(NULL::governance_action, document->'action')
        ON CONFLICT (proposer_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING;
        IF NOT FOUND THEN
            RETURN 'repeated';
        END IF;
    END IF;
    -- The default is for code older than the column, which may still be running.
    INSERT INTO governance_decision
    SELECT * FROM jsonb_populate_record(NULL::governance_decision, '{"judged_policies": []}' || document->'decision');
    IF document ? 'permit' THEN
        INSERT INTO governance_permit
        SELECT * FROM jsonb_populate_record(NULL::governance_permit, document->'permit');
    END IF;
    IF document ? 'escalation' THEN
        INSERT INTO governance_escalation
        SELECT * FROM jsonb_populate_record(NULL::governance_escalation, document->'escalation');
    END IF;
    INSERT INTO audit_entry
    SELECT * FROM jsonb_populate_recordset(NULL::audit_entry, document->'entries');
    RETURN 'done';
END $$;
"""

END = """
-- What came of an action, with the entry that tells it. The caller has locked the row in the state it leaves.
CREATE FUNCTION governance_end(which uuid, target text, moment timestamptz, labels jsonb, told jsonb, charged numeric,
                               entry jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE governance_action
    SET state = target, ended_at = moment, outcome = told, cost = coalesce(charged, cost),
        effects = ARRAY(SELECT jsonb_array_elements_text(labels))
    WHERE id = which;
    INSERT INTO audit_entry SELECT * FROM jsonb_populate_record(NULL::audit_entry, entry);
    RETURN 'ended';
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0004_commit_and_guards")]

    operations = [
        migrations.AddField(
            model_name="decision",
            name="judged_policies",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=120), db_default=[], default=list, size=None
            ),
        ),
        migrations.RunSQL(COMMIT, migrations.RunSQL.noop),
        migrations.RunSQL(END, "DROP FUNCTION governance_end(uuid, text, timestamptz, jsonb, jsonb, numeric, jsonb)"),
    ]
