"""Help texts only. No statement runs on the database."""

import django.core.validators
import django.db.models.deletion
from decimal import Decimal
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('patients', '0001_initial'),
    ]

    operations = [
        migrations.AlterField(
            model_name='device',
            name='format',
            field=models.CharField(blank=True, editable=False, help_text='Format of the last connection.', max_length=20),
        ),
        migrations.AlterField(
            model_name='device',
            name='last_seen',
            field=models.DateTimeField(blank=True, editable=False, help_text='Time of the last connection.', null=True),
        ),
        migrations.AlterField(
            model_name='device',
            name='online_until',
            field=models.DateTimeField(blank=True, editable=False, help_text='The device counts as disconnected after this time. Its server keeps extending it.', null=True),
        ),
        migrations.AlterField(
            model_name='patient',
            name='language',
            field=models.CharField(default='en', help_text='ISO 639-1 code, for example en or de.', max_length=10),
        ),
        migrations.AlterField(
            model_name='patient',
            name='speech_rate',
            field=models.DecimalField(decimal_places=2, default=Decimal('1.00'), help_text='From 0.70 (slow) to 1.20 (fast). 1.00 is the normal speed.', max_digits=3, validators=[django.core.validators.MinValueValidator(Decimal('0.70')), django.core.validators.MaxValueValidator(Decimal('1.20'))]),
        ),
        migrations.AlterField(
            model_name='patient',
            name='voice',
            field=models.ForeignKey(blank=True, help_text='Empty: the default voice.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='spoken_to', to='patients.voice'),
        ),
        migrations.AlterField(
            model_name='voice',
            name='patient',
            field=models.ForeignKey(blank=True, help_text='The patient that this voice was cloned for. Empty for a stock voice.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='own_voices', to='patients.patient'),
        ),
        migrations.AlterField(
            model_name='voice',
            name='revision',
            field=models.PositiveIntegerField(default=1, help_text='Increases when the voice behind the provider id changes. Audio of older revisions is not played.'),
        ),
    ]
