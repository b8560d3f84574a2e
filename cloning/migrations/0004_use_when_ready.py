"""A clone can wait for the decision of a person before the patient hears it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("cloning", "0003_indexes_for_growing_tables")]

    operations = [
        migrations.AddField(
            model_name="clonejob",
            name="use_when_ready",
            field=models.BooleanField(
                db_default=True,
                default=True,
                editable=False,
                help_text="Whether the new voice becomes the patient's voice at once. If not, a person listens to it "
                "first.",
            ),
        ),
    ]
