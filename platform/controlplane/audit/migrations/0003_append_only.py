"""Makes entries and seals append-only, and gives the sealer its work list.

Triggers hold against everyone who may write the tables, the owner included. Where web and worker connect with a role of their
own that does not own the tables (docs/audit.md), the REVOKE statements there take the privileges away as well.
"""

from django.db import migrations, models

APPEND_ONLY = """
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The audit trail is append-only: % of % is refused.', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE ON audit_entry
    FOR EACH ROW EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_entry_no_truncate BEFORE TRUNCATE ON audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_seal_append_only BEFORE UPDATE OR DELETE ON audit_seal
    FOR EACH ROW EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_seal_no_truncate BEFORE TRUNCATE ON audit_seal
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();

-- The work list row is written by the entry's own INSERT, in the same transaction: it becomes visible exactly when the
-- entry does, however late that commits, and no caller can forget it. One statement for any number of rows.
CREATE FUNCTION audit_note_unsealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_unsealed (organisation_id, entry_id) SELECT organisation_id, id FROM added;
    RETURN NULL;
END
$$;
INSERT INTO audit_unsealed (organisation_id, entry_id)
    SELECT organisation_id, id FROM audit_entry e
    WHERE NOT EXISTS (SELECT FROM audit_seal s WHERE s.entry_id = e.id);
CREATE TRIGGER audit_entry_unsealed AFTER INSERT ON audit_entry
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION audit_note_unsealed();

-- A queue: rows live for less than a second. Vacuum early, before dead rows slow the sealer down.
ALTER TABLE audit_unsealed SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
"""
REVERSE = """
DROP TRIGGER audit_entry_unsealed ON audit_entry;
DROP TRIGGER audit_seal_no_truncate ON audit_seal;
DROP TRIGGER audit_seal_append_only ON audit_seal;
DROP TRIGGER audit_entry_no_truncate ON audit_entry;
DROP TRIGGER audit_entry_append_only ON audit_entry;
DROP FUNCTION audit_note_unsealed();
DROP FUNCTION audit_refuse();
"""


class Migration(migrations.Migration):

    dependencies = [("audit", "0002_initial")]

    operations = [
        migrations.AlterField("entry", "event", models.CharField(max_length=40)),
        migrations.CreateModel(
            name="Unsealed",
            fields=[
                ("pk", models.CompositePrimaryKey("organisation_id", "entry_id", blank=True, editable=False, primary_key=True, serialize=False)),
                ("organisation_id", models.UUIDField()),
                ("entry_id", models.UUIDField()),
            ],
        ),
        migrations.RunSQL(APPEND_ONLY, REVERSE),
    ]
