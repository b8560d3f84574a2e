"""Indexes for the periodic tasks and for the lists and searches of the admin.

`usage_of_patient` replaces the index on the patient alone, which is removed last. The migration is not atomic. If an
index fails, the earlier ones stay, and the next `migrate` repeats all of them.
"""

from django.db import migrations, models

from voicecare.infrastructure.online_indexes import AddIndexOnline


class Migration(migrations.Migration):

    atomic = False  # for AddIndexOnline

    dependencies = [
        ('usage', '0005_checked_budgets'),
    ]

    operations = [
        AddIndexOnline(
            model_name='budgetmonth',
            index=models.Index(condition=models.Q(('checked', False)), fields=['updated_at'], name='budget_unchecked'),
        ),
        AddIndexOnline(
            model_name='dailyusage',
            index=models.Index(fields=['voice', 'day'], name='daily_usage_of_voice'),
        ),
        AddIndexOnline(
            model_name='incident',
            index=models.Index(fields=['opened_at'], name='incident_opened'),
        ),
        AddIndexOnline(
            model_name='incident',
            index=models.Index(fields=['resolved_at'], name='incident_resolved'),
        ),
        AddIndexOnline(
            model_name='incident',
            index=models.Index(fields=['key', 'opened_at'], name='incident_key'),
        ),
        AddIndexOnline(
            model_name='usageevent',
            index=models.Index(condition=models.Q(('request_id', ''), _negated=True), fields=['request_id'], name='usage_request_id'),
        ),
        AddIndexOnline(
            model_name='usageevent',
            index=models.Index(fields=['patient', 'started_at'], name='usage_of_patient'),
        ),
        AddIndexOnline(
            model_name='usageevent',
            index=models.Index(fields=['voice', 'started_at'], name='usage_of_voice'),
        ),
        migrations.AlterField(
            model_name='usageevent',
            name='patient',
            field=models.UUIDField(null=True),
        ),
    ]
