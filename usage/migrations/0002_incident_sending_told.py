from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('usage', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='incident',
            name='sending_told',
            field=models.CharField(blank=True, editable=False, help_text='By which ways the state being told has gone out already.', max_length=16),
        ),
    ]
