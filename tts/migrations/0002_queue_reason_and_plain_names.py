"""Why a speech had to wait (`queue_reason`), plain names of two fields, and new labels and help texts.

During a release old processes run beside new ones on the same database. So `client_speech_id` and `created_at` keep
their columns `client_id` and `made_at`, stored choice values stay as they are, and the new column has a database
default, which an old process needs when it inserts a row. The only statement is the one that adds the column: the
unique constraint is replaced in the state alone, because its column stays.
"""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('patients', '0001_initial'),
        ('tts', '0001_initial'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        # First, because SQLite makes the table again, with the constraints that the state has at that point.
        migrations.AddField(
            model_name='utterance',
            name='queue_reason',
            field=models.CharField(blank=True, choices=[('busy', 'Provider busy'), ('quota', 'Quota exhausted'), ('no_device', 'No device connected')], db_default='', default='', help_text='Why the speech had to wait before it was played. Empty if it did not wait.', max_length=9),
        ),
        migrations.AlterModelOptions(
            name='clip',
            options={'ordering': ('-created_at',), 'verbose_name': 'cached audio', 'verbose_name_plural': 'cached audio'},
        ),
        migrations.AlterModelOptions(
            name='utterance',
            options={'ordering': ('-received_at',), 'verbose_name': 'message'},
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[migrations.RemoveConstraint(model_name='utterance', name='utterance_id_once')]
        ),
        migrations.AlterField(
            model_name='clip',
            name='made_at',
            field=models.DateTimeField(db_column='made_at', default=django.utils.timezone.now),
        ),
        migrations.RenameField(
            model_name='clip',
            old_name='made_at',
            new_name='created_at',
        ),
        migrations.AlterField(
            model_name='utterance',
            name='client_id',
            field=models.CharField(blank=True, db_column='client_id', help_text='The id on the WebSocket.', max_length=64, verbose_name='speech id'),
        ),
        migrations.RenameField(
            model_name='utterance',
            old_name='client_id',
            new_name='client_speech_id',
        ),
        migrations.AlterField(
            model_name='clip',
            name='characters',
            field=models.PositiveIntegerField(help_text='Characters that one more request would bill.'),
        ),
        migrations.AlterField(
            model_name='clip',
            name='patient',
            field=models.ForeignKey(help_text='Set for a greeting, which names the patient.', null=True, on_delete=django.db.models.deletion.CASCADE, related_name='clips', to='patients.patient'),
        ),
        migrations.AlterField(
            model_name='clip',
            name='size',
            field=models.PositiveIntegerField(help_text='Bytes of audio.'),
        ),
        migrations.AlterField(
            model_name='clip',
            name='used_at',
            field=models.DateTimeField(null=True, verbose_name='last used at'),
        ),
        migrations.AlterField(
            model_name='phrase',
            name='kind',
            field=models.CharField(choices=[('greeting', 'Greeting'), ('common', 'Common'), ('holding', 'Hold message')], default='common', max_length=8),
        ),
        migrations.AlterField(
            model_name='utterance',
            name='attempts',
            field=models.PositiveIntegerField(default=0, help_text='How often a connection has claimed it.', verbose_name='claims'),
        ),
        migrations.AlterField(
            model_name='utterance',
            name='author',
            field=models.ForeignKey(help_text='User who requested it.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='utterance',
            name='code',
            field=models.CharField(blank=True, help_text='Error code of a failure.', max_length=32),
        ),
        migrations.AlterField(
            model_name='utterance',
            name='conversation',
            field=models.ForeignKey(help_text='Conversation of the request. For speech that the server starts, the conversation of its playback.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='utterances', to='tts.conversation'),
        ),
        migrations.AlterField(
            model_name='utterance',
            name='expires_at',
            field=models.DateTimeField(help_text='Expiry time. Later it is not spoken.', null=True),
        ),
        migrations.AlterField(
            model_name='utterance',
            name='first_chunk_ms',
            field=models.FloatField(help_text='From receiving the text to sending the first audio.', null=True, verbose_name='time to first audio (ms)'),
        ),
        migrations.AlterField(
            model_name='utterance',
            name='lease_until',
            field=models.DateTimeField(help_text="Renewed while the owner's connection is alive.", null=True, verbose_name='lease expires at'),
        ),
        migrations.AlterField(
            model_name='utterance',
            name='origin',
            field=models.CharField(choices=[('device', 'Device'), ('greeting', 'Greeting'), ('server', 'Server'), ('holding', 'Hold message')], max_length=8),
        ),
        migrations.AlterField(
            model_name='utterance',
            name='owner',
            field=models.CharField(blank=True, help_text='Connection that has claimed the utterance.', max_length=36),
        ),
        migrations.AlterField(
            model_name='utterance',
            name='request_digest',
            field=models.CharField(blank=True, help_text='Digest of the request body that came with the idempotency key.', max_length=64),
        ),
        migrations.AlterField(
            model_name='utterance',
            name='source',
            field=models.CharField(blank=True, choices=[('live', 'Live'), ('cache', 'Phrase cache'), ('backup', 'Backup voice'), ('offline', 'Offline voice')], help_text='Source of the audio.', max_length=7),
        ),
        migrations.AlterField(
            model_name='utterance',
            name='state',
            field=models.CharField(choices=[('waiting', 'Waiting'), ('queued', 'Queued for the quota'), ('speaking', 'Speaking'), ('spoken', 'Spoken'), ('heard', 'Heard'), ('failed', 'Failed'), ('expired', 'Expired'), ('interrupted', 'Interrupted')], max_length=11),
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AddConstraint(
                    model_name='utterance',
                    constraint=models.UniqueConstraint(condition=models.Q(('origin', 'device')), fields=('conversation', 'client_speech_id'), name='utterance_id_once'),
                )
            ]
        ),
    ]
