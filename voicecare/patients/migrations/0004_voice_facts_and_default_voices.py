"""What the provider says of a voice, and the default voice as a row instead of a constant."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


FORMER_DEFAULT = "21m00Tcm4TlvDq8ikWAM"


def keep_former_default(apps, schema_editor):
    """Until now this voice was the default voice if DEFAULT_VOICE_ID was not set. Patients continue to hear it."""
    voice = apps.get_model("patients", "Voice").objects.filter(provider_id=FORMER_DEFAULT, source="stock").first()
    if voice is not None:
        apps.get_model("patients", "DefaultVoice").objects.create(language="", voice=voice, chosen_by="server")


class Migration(migrations.Migration):

    dependencies = [
        ('patients', '0003_language_codes'),
    ]

    operations = [
        migrations.AddField(
            model_name='voice',
            name='accent',
            field=models.CharField(blank=True, db_default='', default='', max_length=50),
        ),
        migrations.AddField(
            model_name='voice',
            name='age',
            field=models.CharField(blank=True, db_default='', default='', max_length=20),
        ),
        migrations.AddField(
            model_name='voice',
            name='category',
            field=models.CharField(blank=True, db_default='', default='', max_length=20),
        ),
        migrations.AddField(
            model_name='voice',
            name='description',
            field=models.CharField(blank=True, db_default='', default='', max_length=500),
        ),
        migrations.AddField(
            model_name='voice',
            name='end_source',
            field=models.CharField(blank=True, choices=[('announced', 'Announced by its owner'), ('notice', 'Its owner stopped sharing it; it stays for the notice period'), ('safety', 'Banned by the provider'), ('premade', 'The provider ends all its default voices')], db_default='', default='', max_length=10),
        ),
        migrations.AddField(
            model_name='voice',
            name='ends_at',
            field=models.DateTimeField(blank=True, help_text='When the provider ends this voice, if known.', null=True),
        ),
        migrations.AddField(
            model_name='voice',
            name='gender',
            field=models.CharField(blank=True, db_default='', default='', max_length=20),
        ),
        migrations.AddField(
            model_name='voice',
            name='languages',
            field=models.CharField(blank=True, db_default='', default='', help_text='Language codes, separated by spaces.', max_length=200),
        ),
        migrations.AddField(
            model_name='voice',
            name='notice_period_days',
            field=models.PositiveIntegerField(blank=True, help_text='How long its owner has to leave it to others after ending its sharing.', null=True),
        ),
        migrations.AddField(
            model_name='voice',
            name='preview_url',
            field=models.CharField(blank=True, db_default='', default='', max_length=500),
        ),
        migrations.AddField(
            model_name='voice',
            name='price_rate',
            field=models.FloatField(blank=True, help_text='Price factor. Empty: the normal price.', null=True),
        ),
        migrations.AddField(
            model_name='voice',
            name='read_at',
            field=models.DateTimeField(blank=True, help_text='When the provider was last asked for its details.', null=True),
        ),
        migrations.AddField(
            model_name='voice',
            name='refusal',
            field=models.CharField(blank=True, choices=[('refused', 'The provider refuses to speak in it'), ('missing', 'Not in this workspace')], db_default='', default='', help_text='Why it is not used as the default or backup voice. The provider may still have it.', max_length=8),
        ),
        migrations.AddField(
            model_name='voice',
            name='successor',
            field=models.ForeignKey(blank=True, help_text='The voice that replaces this one when it ends. Empty: the default voice.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='predecessors', to='patients.voice'),
        ),
        migrations.CreateModel(
            name='DefaultVoice',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('language', models.CharField(blank=True, default='', help_text='Empty: every language without a choice.', max_length=10)),
                ('chosen_by', models.CharField(choices=[('server', 'Server'), ('administrator', 'Administrator')], default='administrator', editable=False, max_length=13)),
                ('chosen_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('voice', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='default_for', to='patients.voice')),
            ],
            options={
                'ordering': ('language', 'chosen_by'),
                'constraints': [models.UniqueConstraint(fields=('language', 'chosen_by'), name='default_voice_once'), models.CheckConstraint(condition=models.Q(('chosen_by__in', ['server', 'administrator'])), name='default_voice_chosen_by'), models.CheckConstraint(condition=models.Q(('chosen_by', 'administrator'), ('language', ''), _connector='OR'), name='default_voice_server_has_one')],
            },
        ),
        migrations.RunPython(keep_former_default, migrations.RunPython.noop),
    ]
