import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('cloning', '0001_initial'),
        ('patients', '0001_initial'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='clonejob',
            options={'ordering': ('-created_at',), 'verbose_name': 'voice clone'},
        ),
        # The column keeps its name: these three operations change nothing in the database.
        migrations.AlterField(
            model_name='clonejob',
            name='former_voice',
            field=models.ForeignKey(db_column='former_voice_id', editable=False, help_text='Which voice the patient heard before this one; empty: the default.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='patients.voice'),
        ),
        migrations.RenameField(
            model_name='clonejob',
            old_name='former_voice',
            new_name='previous_voice',
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='previous_voice',
            field=models.ForeignKey(db_column='former_voice_id', editable=False, help_text="The patient's voice before this one. Empty: the default voice.", null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='patients.voice'),
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='attempts',
            field=models.PositiveIntegerField(default=0, editable=False, help_text='How many attempts have started.'),
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='consent_by',
            field=models.CharField(help_text='The person who speaks in the recording and has consented.', max_length=200),
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='consent_wording',
            field=models.CharField(editable=False, help_text='The version of the consent wording.', max_length=20),
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='ended_at',
            field=models.DateTimeField(editable=False, help_text='When the job was ready or had failed.', null=True),
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='last_attempt',
            field=models.PositiveIntegerField(default=4, editable=False, help_text='After this attempt the job fails.'),
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='lease_until',
            field=models.DateTimeField(editable=False, help_text='A worker owns this job until then.', null=True),
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='name',
            field=models.CharField(help_text='The name of the voice in this product. The provider never gets it.', max_length=100),
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='report',
            field=models.JSONField(default=dict, editable=False, help_text='The result of the inspection of the recording.'),
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='requires_verification',
            field=models.BooleanField(default=False, editable=False, help_text='The provider must verify the owner of the voice before it can be used.'),
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='sample',
            field=models.CharField(blank=True, editable=False, help_text='The name of the recording in its storage.', max_length=100),
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='voice',
            field=models.OneToOneField(editable=False, help_text='The voice that was created.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='clone_job', to='patients.voice'),
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='withdrawn_at',
            field=models.DateTimeField(editable=False, help_text='When all data was removed.', null=True),
        ),
        migrations.AlterField(
            model_name='clonejob',
            name='witness',
            field=models.ForeignKey(editable=False, help_text='The user who uploaded the recording and witnessed the consent. Empty: uploaded at the command line.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
    ]
