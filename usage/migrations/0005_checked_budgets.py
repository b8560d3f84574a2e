"""`BudgetMonth.checked`, with a database default, which an old process needs when it inserts a row during a deploy."""

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('usage', '0004_task_failure'),
    ]

    operations = [
        migrations.AddField(
            model_name='budgetmonth',
            name='checked',
            field=models.BooleanField(db_default=False, default=False, help_text='Whether `used` was compared with the ledger since `updated_at`.'),
        ),
        migrations.AlterField(
            model_name='budgetmonth',
            name='updated_at',
            field=models.DateTimeField(db_column='touched_at', default=django.utils.timezone.now, help_text='When a reservation was last made or released, or usage was recorded.'),
        ),
    ]
