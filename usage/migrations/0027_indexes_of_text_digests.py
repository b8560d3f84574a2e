"""Indexes to count repeated texts and to clear old digests.

The migration is not atomic. If an index fails, the earlier one stays, and the next `migrate` repeats both of them.
"""

from django.db import migrations, models

from voicecare.infrastructure.online_indexes import AddIndexOnline


class Migration(migrations.Migration):

    atomic = False  # for AddIndexOnline

    dependencies = [
        ('usage', '0026_text_digests'),
    ]

    operations = [
        AddIndexOnline(
            model_name='usageevent',
            index=models.Index(condition=models.Q(('text_digest', ''), _negated=True), fields=['started_at'], name='usage_with_digest'),
        ),
        AddIndexOnline(
            model_name='usageevent',
            index=models.Index(condition=models.Q(('text_digest', ''), _negated=True), fields=['text_digest', 'started_at'], name='usage_of_text'),
        ),
    ]
