"""Plain names and texts. No statement changes the database, because old and new processes run at the same time during a
deploy: renamed fields keep their columns (`db_column`), and the index is renamed in the state alone.
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
        # Help texts, labels of choices and verbose names.
        migrations.AlterField(
            model_name='budgetmonth',
            name='budget_when_refused',
            field=models.PositiveBigIntegerField(db_column='refused_under', help_text='The budget when a request last exceeded it.', null=True),
        ),
        migrations.AlterField(
            model_name='budgetmonth',
            name='month',
            field=models.DateField(help_text='The first day of the month.'),
        ),
        migrations.AlterField(
            model_name='budgetmonth',
            name='updated_at',
            field=models.DateTimeField(db_column='touched_at', default=django.utils.timezone.now, help_text='When a reservation was last made or released.'),
        ),
        migrations.AlterField(
            model_name='dailyusage',
            name='kind',
            field=models.CharField(choices=[('live', 'Live'), ('retry', 'Retry'), ('backup', 'Backup voice'), ('cache', 'Phrase cache'), ('offline', 'Offline voice'), ('probe', 'Health probe'), ('warm', 'Pre-generated'), ('preview', 'Preview by a clinician')], max_length=8),
        ),
        migrations.AlterField(
            model_name='incident',
            name='key',
            field=models.CharField(blank=True, help_text='Distinguishes open incidents of one kind, for example by voice or patient.', max_length=64),
        ),
        migrations.AlterField(
            model_name='incident',
            name='kind',
            field=models.CharField(choices=[('provider_down', 'the speech provider is down'), ('access', 'the speech provider rejects our key, plan or permissions'), ('request', 'the speech provider rejects our requests (software defect)'), ('voice', 'a voice is unavailable'), ('no_voice', 'a patient heard nothing'), ('quota', 'credits exhausted'), ('voice_slots', 'voice slots nearly full'), ('quota_low', 'credits running low'), ('forecast', 'credits forecast to run out'), ('slow', 'high latency'), ('budget', "a patient's monthly budget is used up"), ('drift', "the ledger and the provider's figures differ"), ('silent', 'worker or beat not running'), ('alerts', 'alerts cannot be sent')], max_length=16),
        ),
        migrations.AlterField(
            model_name='incident',
            name='notified_channels',
            field=models.CharField(blank=True, db_column='sending_told', editable=False, help_text='Channels that have already received this notification.', max_length=16),
        ),
        migrations.AlterField(
            model_name='incident',
            name='opening_sent_at',
            field=models.DateTimeField(blank=True, help_text='When the alert about the opening was sent.', null=True),
        ),
        migrations.AlterField(
            model_name='incident',
            name='resolution_sent_at',
            field=models.DateTimeField(blank=True, help_text='When the alert about the resolution was sent.', null=True),
        ),
        migrations.AlterField(
            model_name='incident',
            name='sending_until',
            field=models.DateTimeField(editable=False, help_text='Lease expiry, and after a failure the time of the next attempt.', null=True),
        ),
        migrations.AlterField(
            model_name='providerstate',
            name='circuit',
            field=models.CharField(choices=[('closed', 'Reachable'), ('open', 'Unreachable')], default='closed', max_length=6, verbose_name='provider'),
        ),
        migrations.AlterField(
            model_name='providerstate',
            name='concurrency_limit',
            field=models.PositiveIntegerField(blank=True, help_text="The provider's concurrency limit.", null=True),
        ),
        migrations.AlterField(
            model_name='providerstate',
            name='probes',
            field=models.PositiveIntegerField(default=0, help_text='Failed health probes since the circuit opened.'),
        ),
        migrations.AlterField(
            model_name='providerstate',
            name='quota',
            field=models.CharField(choices=[('available', 'Available'), ('spent', 'Exhausted')], default='available', max_length=9),
        ),
        migrations.AlterField(
            model_name='providerstate',
            name='quota_changed_at',
            field=models.DateTimeField(blank=True, help_text='When the quota was last exhausted or restored.', null=True),
        ),
        migrations.AlterField(
            model_name='providerstate',
            name='quota_limit',
            field=models.PositiveBigIntegerField(blank=True, help_text='Credits of this billing period.', null=True),
        ),
        migrations.AlterField(
            model_name='providerstate',
            name='quota_needed',
            field=models.PositiveBigIntegerField(default=0, help_text='Characters of the request that exceeded the quota.'),
        ),
        migrations.AlterField(
            model_name='providerstate',
            name='quota_refusals',
            field=models.PositiveIntegerField(default=0, help_text='Consecutive refusals although the subscription showed enough credits.'),
        ),
        migrations.AlterField(
            model_name='providerstate',
            name='quota_used',
            field=models.PositiveBigIntegerField(blank=True, help_text='Credits used in this billing period.', null=True),
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='billed_attempts',
            field=models.PositiveIntegerField(db_column='settled', default=0, help_text="Unknown attempts that the provider's history shows as billed."),
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='characters',
            field=models.BigIntegerField(default=0, help_text='Characters of the day in the ledger.'),
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='checked_at',
            field=models.DateTimeField(db_column='at', help_text='When the day was last checked.', null=True),
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='compared_at',
            field=models.DateTimeField(help_text='When the day was last compared after its end.', null=True),
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='counter',
            field=models.BigIntegerField(help_text="Credits used in the provider's billing period at `counter_at`.", null=True),
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='external_characters',
            field=models.BigIntegerField(db_column='others', default=0, help_text="Characters in the provider's history that this server did not request."),
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='lease_until',
            field=models.DateTimeField(db_column='busy_until', editable=False, help_text='Lease expiry. One process at a time checks a day.', null=True),
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='provider_characters',
            field=models.BigIntegerField(help_text="Characters of the day in the provider's figures.", null=True),
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='unbilled_attempts',
            field=models.PositiveIntegerField(db_column='absent', default=0, help_text="Unknown attempts that are not in the provider's history and were not billed."),
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='unexplained_characters',
            field=models.BigIntegerField(db_column='unexplained', help_text='Characters of the difference without an explanation.', null=True),
        ),
        migrations.AlterField(
            model_name='reconciliation',
            name='unknown_attempts',
            field=models.PositiveIntegerField(db_column='unknown', default=0, help_text='Attempts that are still unknown.'),
        ),
        migrations.AlterField(
            model_name='usageevent',
            name='characters',
            field=models.PositiveIntegerField(default=0, help_text='Characters sent, counted once the 2xx headers have arrived.'),
        ),
        migrations.AlterField(
            model_name='usageevent',
            name='code',
            field=models.CharField(blank=True, help_text='The error code of the provider.', max_length=64),
        ),
        migrations.AlterField(
            model_name='usageevent',
            name='credits',
            field=models.PositiveIntegerField(default=0, help_text='Credits billed by the provider.'),
        ),
        migrations.AlterField(
            model_name='usageevent',
            name='first_byte_ms',
            field=models.FloatField(help_text='Milliseconds from the request to its first audio.', null=True),
        ),
        migrations.AlterField(
            model_name='usageevent',
            name='first_chunk_ms',
            field=models.FloatField(help_text='Time to first audio, in milliseconds, if a speech began with this attempt.', null=True),
        ),
        migrations.AlterField(
            model_name='usageevent',
            name='kind',
            field=models.CharField(choices=[('live', 'Live'), ('retry', 'Retry'), ('backup', 'Backup voice'), ('cache', 'Phrase cache'), ('offline', 'Offline voice'), ('probe', 'Health probe'), ('warm', 'Pre-generated'), ('preview', 'Preview by a clinician')], max_length=8),
        ),
        migrations.AlterField(
            model_name='usageevent',
            name='outcome',
            field=models.CharField(choices=[('unknown', 'Unconfirmed'), ('completed', 'Completed'), ('failed', 'Failed'), ('cancelled', 'Cancelled')], max_length=10),
        ),
        migrations.AlterField(
            model_name='usageevent',
            name='saved_characters',
            field=models.PositiveIntegerField(db_column='saved', default=0, help_text='Characters spoken from the cache or in the offline voice.'),
        ),
        migrations.AlterField(
            model_name='usageevent',
            name='source',
            field=models.UUIDField(help_text='Id of the utterance, or of the cache fill or probe.'),
        ),
    ]
