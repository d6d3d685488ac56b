"""A connection that has erased once holds an empty setting from then on, and SQL promises no order within AND: the guard
then failed on reading '' as an identifier instead of saying that the trail is append-only."""

from django.db import migrations

GUARD = """
CREATE OR REPLACE FUNCTION audit_entry_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    erasure uuid := nullif(current_setting('remit.erasure', true), '')::uuid;
BEGIN
    IF TG_OP = 'UPDATE' AND EXISTS (
        SELECT FROM audit_restatement r WHERE r.entry_id = OLD.id AND r.erasure_id = erasure
    ) AND (OLD.id, OLD.organisation_id, OLD.team_id, OLD.at, OLD.event, OLD.actor_kind, OLD.actor_id, OLD.subject_type,
           OLD.subject_id, OLD.mission_id, OLD.trace_id)
          IS NOT DISTINCT FROM
          (NEW.id, NEW.organisation_id, NEW.team_id, NEW.at, NEW.event, NEW.actor_kind, NEW.actor_id, NEW.subject_type,
           NEW.subject_id, NEW.mission_id, NEW.trace_id)
      AND NEW.salt IS NOT NULL AND NEW.salt IS DISTINCT FROM OLD.salt AND NEW.commitment IS NOT NULL
      AND (OLD.commitment IS NULL OR OLD.commitment = NEW.commitment)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'The audit trail is append-only: % of % is refused.', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
"""


class Migration(migrations.Migration):
    dependencies = (("audit", "0004_proof_and_erasure"),)

    operations = (migrations.RunSQL(GUARD, migrations.RunSQL.noop),)
