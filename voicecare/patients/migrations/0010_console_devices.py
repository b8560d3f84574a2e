"""Adds the browsers of the device console to the devices. The devices that exist are those of patients."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("patients", "0009_roles_see_clinics")]

    operations = [
        migrations.AddField(
            model_name="device",
            name="console_until",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name="device",
            name="takes_messages",
            field=models.BooleanField(
                db_default=True,
                default=True,
                editable=False,
                help_text="Whether messages to the patient may be delivered to this device.",
            ),
        ),
    ]
