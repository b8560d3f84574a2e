"""The entries of the audit trail. They are only ever added, and deleted by the retention alone."""

from typing import Any, NoReturn

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models.functions import Now


class Action(models.TextChoices):
    """What was done. An action of a list in the admin has its own name instead, such as `archive`."""

    ADD = "add", "Add"
    CHANGE = "change", "Change"
    DELETE = "delete", "Delete"
    ERASE = "erase", "Erase"
    UNDO_ERASURE = "undo_erasure", "Undo erasure"
    SPEAK = "speak", "Speak"
    CANCEL = "cancel", "Cancel"
    READ_TEXT = "read_text", "Read text"
    PLAY_RECORDING = "play_recording", "Play recording"
    PLAY_PREVIEW = "play_preview", "Play preview of a voice"
    TRY_MODEL = "try_model", "Try a model"
    EXPORT = "export", "Export"
    SYNC = "sync", "Sync"
    RETRY = "retry", "Retry"
    WITHDRAW = "withdraw", "Withdraw"
    USE_CLONE = "use_clone", "Use a voice clone"
    REVOKE = "revoke", "Revoke"
    RENEW_SECRET = "renew_secret", "Renew secret"
    RENEW_TOKEN = "renew_token", "Renew token"
    LOG_IN = "log_in", "Log in"
    LOG_IN_FAILED = "log_in_failed", "Failed login"
    LOG_IN_THROTTLED = "log_in_throttled", "Login refused after too many failures"
    LOG_OUT = "log_out", "Log out"
    TURN_ON_TWO_FACTOR = "turn_on_two_factor", "Turn on two-factor authentication"
    TURN_OFF_TWO_FACTOR = "turn_off_two_factor", "Turn off two-factor authentication"
    RENEW_RECOVERY_CODES = "renew_recovery_codes", "Renew recovery codes"


class Source(models.TextChoices):
    ADMIN = "admin", "Admin"
    CONSOLE = "console", "Console"
    REST = "rest", "REST"
    COMMAND = "command", "Command line"


class AppendOnly(Exception):
    """An entry of the audit trail cannot be changed or deleted."""


class AuditEntryQuerySet(models.QuerySet["AuditEntry"]):
    def update(self, **_: object) -> NoReturn:
        raise AppendOnly

    def delete(self) -> NoReturn:
        raise AppendOnly


class AuditEntry(models.Model):
    """One thing that one person did to one object.

    Users, objects and patients are referred to by their ids without foreign keys, so that an entry outlives them and is
    never updated. `user_id` is null for the command line and for a failed login with an unknown name. An entry has no
    name of a patient and no text.

    `changes` maps the names of the changed fields to [old, new] value, or to null if the value is not stored
    (`changes.py`).
    """

    at = models.DateTimeField("time", db_default=Now(), editable=False)
    user_id = models.BigIntegerField(null=True)
    user_name = models.CharField("person", max_length=150, blank=True)
    source = models.CharField(max_length=10, choices=Source.choices)
    address = models.GenericIPAddressField("IP address", null=True)
    action = models.CharField(max_length=60)
    object_type = models.CharField(max_length=100, blank=True)
    object_id = models.CharField(max_length=64, blank=True)
    patient_id = models.UUIDField("patient", null=True)
    changes = models.JSONField(default=dict, encoder=DjangoJSONEncoder)

    objects = AuditEntryQuerySet.as_manager()

    class Meta:
        default_permissions = ("view",)
        verbose_name = "audit entry"
        verbose_name_plural = "audit trail"
        indexes = [
            models.Index(fields=["at"], name="audit_by_time"),
            models.Index(fields=["user_id", "at"], name="audit_by_user"),
            models.Index(fields=["user_name", "at"], name="audit_by_user_name"),
            models.Index(fields=["patient_id", "at"], name="audit_by_patient"),
            models.Index(fields=["object_id", "at"], name="audit_by_object"),
            models.Index(fields=["action", "at"], name="audit_by_action"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_type} {self.object_id}".strip()

    def save(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Django's signature
        if not self._state.adding:
            raise AppendOnly
        super().save(*args, **{**kwargs, "force_insert": True})

    def delete(self, *_: Any, **__: Any) -> NoReturn:  # noqa: ANN401
        raise AppendOnly

    @property
    def action_in_words(self) -> str:
        return dict(Action.choices).get(self.action) or self.action.replace("_", " ").capitalize()
