from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0002_plain_names")]

    operations = [
        migrations.AddField(
            model_name="providerstate",
            name="plan_concurrency_limit",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="The concurrency limit of the plan when the subscription was last read.",
                null=True,
            ),
        ),
    ]
