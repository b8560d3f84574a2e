"""Entries of the console have a source of their own. Earlier ones stay with the source "Admin"."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("audit", "0004_entries_of_the_admin_log")]

    operations = [
        migrations.AlterField(
            model_name="auditentry",
            name="source",
            field=models.CharField(
                choices=[("admin", "Admin"), ("console", "Console"), ("rest", "REST"), ("command", "Command line")],
                max_length=10,
            ),
        )
    ]
