"""The settings of the imitated account and service. Tests and users change them through `/sandbox/settings`."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from voicecare.providers.elevenlabs.sandbox.faults.faults import InvalidControlRequest, reject_unknown_fields

PERIOD_S = 30 * 24 * 3600
QUOTA_FORMS = ("legacy", "new")


@dataclass
class SandboxConfig:
    """`characters_used` and `character_limit` are in credits, as in the provider's subscription.

    `quota_form` is the error for a used-up quota: `legacy` is 401 quota_exceeded, `new` is 402 insufficient_credits.
    `concurrency` is the limit of each model group. Up to `queue_limit` more requests are accepted and delayed, unless
    `strict_concurrency` is set.
    """

    first_byte_ms: float = 120.0
    character_limit: int = 100_000
    characters_used: int = 0
    reset_unix: int = 0
    quota_form: str = "legacy"
    concurrency: int = 10
    queue_limit: int = 20
    strict_concurrency: bool = False
    voice_limit: int = 30
    voice_add_edits_limit: int = 200
    can_clone: bool = True

    def __post_init__(self) -> None:
        self.reset_unix = self.reset_unix or int(time.time()) + PERIOD_S

    def update(self, changes: object) -> None:
        """Set the named fields, all or none. Raises InvalidControlRequest, with the known names, for an invalid one."""
        if not isinstance(changes, Mapping):
            raise InvalidControlRequest("Settings must be an object.")
        reject_unknown_fields(changes, tuple(asdict(self)), "settings")
        for field in fields(self):
            if field.name in changes:
                self._check(field.name, changes[field.name])
        for name, value in changes.items():
            setattr(self, name, value)

    def _check(self, name: str, value: object) -> None:
        if name == "quota_form":
            fits = value in QUOTA_FORMS
        elif isinstance(getattr(self, name), bool):
            fits = isinstance(value, bool)
        elif name == "first_byte_ms":
            fits = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        else:
            fits = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if not fits:
            raise InvalidControlRequest(
                f"`{name}` cannot be {value!r}. An example of a valid value is {getattr(self, name)!r}."
            )
