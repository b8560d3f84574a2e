"""Makes the audit trail append-only on PostgreSQL, also for statements that do not come from its model.

Only a transaction that sets `voicecare.audit_retention` may delete entries: the retention (`retention.py`). No
statement may update one. On SQLite, which is for development, only the model refuses.
"""

from django.db import migrations

CREATE = """
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('voicecare.audit_retention', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'The audit trail is append-only.' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON audit_auditentry
    FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
"""
DROP = """
DROP TRIGGER audit_is_append_only ON audit_auditentry;
DROP FUNCTION audit_is_append_only();
"""


def create_trigger(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(CREATE)


def drop_trigger(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(DROP)


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0001_audit_trail"),
    ]

    operations = [
        migrations.RunPython(create_trigger, drop_trigger),
    ]
