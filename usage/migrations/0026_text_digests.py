"""A keyed digest of the text of each request, to count repeated texts. Migration 0027 adds its indexes."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('usage', '0025_webhook_incidents'),
    ]

    operations = [
        migrations.AddField(
            model_name='usageevent',
            name='text_digest',
            field=models.CharField(blank=True, db_default='', default='', editable=False, help_text='Keyed digest of the text, to count repeated texts. Cleared after a month.', max_length=32),
        ),
    ]
