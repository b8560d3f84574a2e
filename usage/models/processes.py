"""The state of background processes and of their periodic tasks."""

from django.db import models


class Heartbeat(models.Model):
    """The last heartbeat of a background process: `worker` or `beat`.

    Of beat, which must run once, the row also knows which process wrote it, and which one before. Two that take turns
    run at the same time.
    """

    name = models.CharField(max_length=8, primary_key=True)
    at = models.DateTimeField()
    instance = models.CharField(max_length=64, blank=True, default="", db_default="")
    former_instance = models.CharField(max_length=64, blank=True, default="", db_default="")
    overlapped_at = models.DateTimeField(null=True, help_text="When two instances last took turns.")

    def __str__(self) -> str:
        return self.name


class TaskFailure(models.Model):
    """A periodic task whose last run failed, and the number of its failed runs since its last success."""

    name = models.CharField(max_length=64, primary_key=True)
    failures = models.PositiveIntegerField(default=0)
    failed_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.name
