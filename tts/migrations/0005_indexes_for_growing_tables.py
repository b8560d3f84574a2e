"""Indexes for the lists of the admin and for the retention of texts."""

from django.conf import settings
from django.db import migrations, models

from voicecare.infrastructure.online_indexes import AddIndexOnline


class Migration(migrations.Migration):

    atomic = False  # for AddIndexOnline

    dependencies = [
        ('patients', '0002_plain_help_texts'),
        ('tts', '0004_utterance_played_by'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        AddIndexOnline(
            model_name='conversation',
            index=models.Index(fields=['started_at'], name='conversation_started'),
        ),
        AddIndexOnline(
            model_name='utterance',
            index=models.Index(fields=['received_at'], name='utterance_received'),
        ),
        AddIndexOnline(
            model_name='utterance',
            index=models.Index(condition=models.Q(('text', ''), _negated=True), fields=['received_at'], name='utterance_with_text'),
        ),
    ]
