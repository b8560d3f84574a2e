"""Indexes for the periodic tasks and for the list of the admin."""

from django.conf import settings
from django.db import migrations, models

from voicecare.infrastructure.online_indexes import AddIndexOnline


class Migration(migrations.Migration):

    atomic = False  # for AddIndexOnline

    dependencies = [
        ('cloning', '0002_plain_names'),
        ('patients', '0002_plain_help_texts'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        AddIndexOnline(
            model_name='clonejob',
            index=models.Index(fields=['created_at'], name='clone_created'),
        ),
        AddIndexOnline(
            model_name='clonejob',
            index=models.Index(condition=models.Q(('status__in', ['pending', 'uploading', 'withdrawing'])), fields=['created_at'], name='clone_due'),
        ),
        AddIndexOnline(
            model_name='clonejob',
            index=models.Index(condition=models.Q(('sample', ''), _negated=True), fields=['ended_at'], name='clone_with_sample'),
        ),
        AddIndexOnline(
            model_name='clonejob',
            index=models.Index(condition=models.Q(('requires_verification', True)), fields=['created_at'], name='clone_requires_verification'),
        ),
    ]
