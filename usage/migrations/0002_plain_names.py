"""Field names in Python; the database does not change, because an old process may run beside a new one.

The columns keep their names (`db_column`), and the index is renamed in the state alone.
"""

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('usage', '0001_initial'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='usageevent',
            options={'ordering': ('-started_at',)},
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RemoveIndex(
                    model_name='usageevent',
                    name='usage_unknown',
                ),
            ],
        ),
        migrations.AlterField(
            model_name='budgetmonth',
            name='refused_under',
            field=models.PositiveBigIntegerField(db_column='refused_under', help_text='The budget when something last did not fit.', null=True),
        ),
        migrations.RenameField(
            model_name='budgetmonth',
            old_name='refused_under',
            new_name='budget_when_refused',
        ),
        migrations.AlterField(
            model_name='budgetmonth',
            name='touched_at',
            field=models.DateTimeField(db_column='touched_at', default=django.utils.timezone.now, help_text='When a reservation was made or given back.'),
        ),
        migrations.RenameField(
            model_name='budgetmonth',
            old_name='touched_at',
            new_name='updated_at',
        ),
        migrations.AlterField(
            model_name='dailyusage',
            name='saved',
            field=models.BigIntegerField(db_column='saved', default=0),
        ),
        migrations.RenameField(
            model_name='dailyusage',
            old_name='saved',
            new_name='saved_characters',
        ),
        migrations.AlterField(
            model_name='incident',
            name='sending_told',
            field=models.CharField(blank=True, db_column='sending_told', editable=False, help_text='By which ways the state being told has gone out already.', max_length=16),
        ),
        migrations.RenameField(
            model_name='incident',
            old_name='sending_told',
            new_name='notified_channels',
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='settled',
            field=models.PositiveIntegerField(db_column='settled', default=0, help_text="Unknown attempts found in the provider's history."),
        ),
        migrations.RenameField(
            model_name='reconciliation',
            old_name='settled',
            new_name='billed_attempts',
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='at',
            field=models.DateTimeField(db_column='at', help_text='When it was last looked at.', null=True),
        ),
        migrations.RenameField(
            model_name='reconciliation',
            old_name='at',
            new_name='checked_at',
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='others',
            field=models.BigIntegerField(db_column='others', default=0, help_text='Characters in the history that this server did not ask for.'),
        ),
        migrations.RenameField(
            model_name='reconciliation',
            old_name='others',
            new_name='external_characters',
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='busy_until',
            field=models.DateTimeField(db_column='busy_until', editable=False, help_text='A lease: one process does a day.', null=True),
        ),
        migrations.RenameField(
            model_name='reconciliation',
            old_name='busy_until',
            new_name='lease_until',
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='absent',
            field=models.PositiveIntegerField(db_column='absent', default=0, help_text='Unknown attempts that are not in it: not billed.'),
        ),
        migrations.RenameField(
            model_name='reconciliation',
            old_name='absent',
            new_name='unbilled_attempts',
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='unexplained',
            field=models.BigIntegerField(db_column='unexplained', help_text='Characters of the difference that nothing explains.', null=True),
        ),
        migrations.RenameField(
            model_name='reconciliation',
            old_name='unexplained',
            new_name='unexplained_characters',
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='unknown',
            field=models.PositiveIntegerField(db_column='unknown', default=0, help_text='Unknown attempts that stay so.'),
        ),
        migrations.RenameField(
            model_name='reconciliation',
            old_name='unknown',
            new_name='unknown_attempts',
        ),
        migrations.AlterField(
            model_name='usageevent',
            name='asked',
            field=models.PositiveIntegerField(db_column='asked', help_text='Characters in the request.'),
        ),
        migrations.RenameField(
            model_name='usageevent',
            old_name='asked',
            new_name='requested_characters',
        ),
        migrations.AlterField(
            model_name='usageevent',
            name='saved',
            field=models.PositiveIntegerField(db_column='saved', default=0, help_text='Characters spoken without asking the provider.'),
        ),
        migrations.RenameField(
            model_name='usageevent',
            old_name='saved',
            new_name='saved_characters',
        ),
        migrations.AlterField(
            model_name='usageevent',
            name='at',
            field=models.DateTimeField(db_column='at', db_index=True, default=django.utils.timezone.now),
        ),
        migrations.RenameField(
            model_name='usageevent',
            old_name='at',
            new_name='started_at',
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AddIndex(
                    model_name='usageevent',
                    index=models.Index(condition=models.Q(('outcome', 'unknown')), fields=['started_at'], name='usage_unknown'),
                ),
            ],
        ),
    ]
