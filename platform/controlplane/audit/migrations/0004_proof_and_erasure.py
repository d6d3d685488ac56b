"""Salts under names and payloads, signed checkpoints, jobs, and the one way in which an erasure may touch an entry.

Additive: the new columns of entries are empty where old code writes, and such entries keep the first form of link.
"""

import controlplane.common.ids
import django.db.models.deletion
from django.db import migrations, models

GUARDS = """
-- An entry may be restated once its erasure's restatement of it is written, and then only what names people changes.
CREATE FUNCTION audit_entry_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND coalesce(current_setting('remit.erasure', true), '') <> '' AND EXISTS (
        SELECT FROM audit_restatement r
        WHERE r.entry_id = OLD.id AND r.erasure_id = current_setting('remit.erasure')::uuid
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
DROP TRIGGER audit_entry_append_only ON audit_entry;
CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE ON audit_entry
    FOR EACH ROW EXECUTE FUNCTION audit_entry_guard();

-- Runs as the tables' owner, so that the application's role needs no UPDATE on entries. `rows` are entries of one
-- organisation with their new names, payload, salt and commitment, and the hash of what they are then.
CREATE FUNCTION audit_restate(organisation uuid, erasure uuid, rows jsonb) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    changed integer;
BEGIN
    INSERT INTO audit_restatement (organisation_id, erasure_id, entry_id, sequence, restated_sha256)
    SELECT organisation, erasure, r.id, s.sequence, r.restated_sha256
    FROM jsonb_to_recordset(rows) AS r (id uuid, restated_sha256 text)
    JOIN audit_seal s ON s.entry_id = r.id AND s.organisation_id = organisation;
    PERFORM set_config('remit.erasure', erasure::text, true);
    UPDATE audit_entry e
    SET actor_name = r.actor_name, subject_name = r.subject_name, payload = r.payload,
        payload_sha256 = r.payload_sha256, salt = r.salt, commitment = r.commitment
    FROM jsonb_to_recordset(rows) AS r (id uuid, actor_name text, subject_name text, payload jsonb,
                                        payload_sha256 text, salt uuid, commitment text)
    WHERE e.id = r.id AND e.organisation_id = organisation;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM set_config('remit.erasure', '', true);
    RETURN changed;
END
$$;

CREATE TRIGGER audit_checkpoint_append_only BEFORE UPDATE OR DELETE ON audit_checkpoint
    FOR EACH ROW EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_checkpoint_no_truncate BEFORE TRUNCATE ON audit_checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_restatement_append_only BEFORE UPDATE OR DELETE ON audit_restatement
    FOR EACH ROW EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_restatement_no_truncate BEFORE TRUNCATE ON audit_restatement
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
"""
REVERSE = """
DROP TRIGGER audit_restatement_no_truncate ON audit_restatement;
DROP TRIGGER audit_restatement_append_only ON audit_restatement;
DROP TRIGGER audit_checkpoint_no_truncate ON audit_checkpoint;
DROP TRIGGER audit_checkpoint_append_only ON audit_checkpoint;
DROP FUNCTION audit_restate(uuid, uuid, jsonb);
DROP TRIGGER audit_entry_append_only ON audit_entry;
CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE ON audit_entry
    FOR EACH ROW EXECUTE FUNCTION audit_refuse();
DROP FUNCTION audit_entry_guard();
"""


class Migration(migrations.Migration):
    dependencies = [("audit", "0003_append_only"), ("tenancy", "0001_initial")]

    operations = [
        migrations.AddField("entry", "salt", models.UUIDField(null=True)),
        migrations.AddField("entry", "commitment", models.CharField(max_length=71, null=True)),
        migrations.CreateModel(
            name="SigningKey",
            fields=[
                ("id", models.CharField(max_length=16, primary_key=True, serialize=False)),
                ("public_key", models.CharField(max_length=64)),
                ("created_at", models.DateTimeField()),
                ("endorsed_by", models.CharField(blank=True, max_length=16)),
                ("endorsement", models.CharField(blank=True, max_length=128)),
                ("acceptance", models.CharField(max_length=128)),
            ],
        ),
        migrations.CreateModel(
            name="Checkpoint",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("number", models.BigIntegerField()),
                ("sequence", models.BigIntegerField()),
                ("chain_sha256", models.CharField(max_length=71)),
                ("at", models.DateTimeField()),
                ("previous_sha256", models.CharField(max_length=71)),
                ("key_id", models.CharField(max_length=16)),
                ("signature", models.CharField(max_length=128)),
                (
                    "organisation",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenancy.organisation"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=["organisation", "number"], name="checkpoint_number_once")
                ]
            },
        ),
        migrations.CreateModel(
            name="Restatement",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("erasure_id", models.UUIDField()),
                ("entry_id", models.UUIDField(db_index=True)),
                ("sequence", models.BigIntegerField()),
                ("restated_sha256", models.CharField(max_length=71)),
                (
                    "organisation",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenancy.organisation"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=["erasure_id", "entry_id"], name="restated_once_by_an_erasure")
                ]
            },
        ),
        migrations.CreateModel(
            name="Job",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=controlplane.common.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "kind",
                    models.CharField(choices=[("verify", "Verification"), ("export", "Export")], max_length=8),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("running", "Running"),
                            ("ready", "Ready"),
                            ("failed", "Failed"),
                            ("expired", "Expired"),
                        ],
                        default="running",
                        max_length=8,
                    ),
                ),
                ("asked_by_id", models.UUIDField()),
                ("first", models.BigIntegerField(default=1)),
                ("last", models.BigIntegerField()),
                ("position", models.BigIntegerField(default=0)),
                ("progress", models.JSONField(default=dict)),
                ("created_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(null=True)),
                ("expires_at", models.DateTimeField(null=True)),
                ("lease_until", models.DateTimeField(null=True)),
                ("error", models.CharField(blank=True, max_length=300)),
                (
                    "organisation",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="tenancy.organisation"
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["organisation", "-id"], name="audit_jobs_of_organisation"),
                    models.Index(
                        condition=models.Q(("state", "running")), fields=["lease_until"], name="audit_jobs_running"
                    ),
                ]
            },
        ),
        migrations.RunSQL(GUARDS, REVERSE),
    ]
