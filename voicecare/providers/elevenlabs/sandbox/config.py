"""The settings of the imitated account and service. Tests and users change them through `/sandbox/settings`."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from voicecare.providers.elevenlabs.sandbox.faults.faults import InvalidControlRequest, reject_unknown_fields

PERIOD_S = 30 * 24 * 3600
CHOICES = {
    "quota_form": ("legacy", "new"),
    "newer_models": ("dialogue", "speech", "both"),
    "usage_call": ("credits", "cost", "deprecated"),
    "request_list": ("full", "documented", "off"),
    "currency": ("usd", "eur", "inr", "pln", "gbp"),
}


@dataclass
class SandboxConfig:
    """The settings. `characters_used` and `character_limit` are in credits, as in the provider's subscription.

    `quota_form` chooses the error for a used-up quota: `legacy` is 401 quota_exceeded, `new` is 402
    insufficient_credits. `concurrency` is the limit of each model group. Up to `queue_limit` more requests are accepted
    and delayed, unless `strict_concurrency` is set. With `strict_language`, a language code that the model does not
    list is rejected. Without it, such a code is ignored. The sources about the provider disagree on which of the two is
    right. Nor do they agree on the endpoint for the newer models (v4, v4 Turbo and v3 Conversational): `newer_models`
    is `dialogue`, `speech` or `both`. `api_key` is the only key that is accepted. If it is empty, every key is.
    Accounts that were made after March 2026 have no `premade_voices`. `region` is the header `x-region` of
    every response. Without `history_filters`, the history ignores the filters of a request, as the provider may do.
    Without `zero_retention`, `enable_logging=false` is accepted and ignored, as on plans that do not include it.
    Without `history`, the history is empty. `usage_call` is how the usage can be read: `credits` (usage by product, for
    workspaces billed in credits), `cost` (for those billed in `currency`), or `deprecated` (only the older statistics,
    which every account has). `request_list` is the list of requests: with all columns, with only the `documented` ones,
    or `off`, which stands for a key without the permission.
    """

    first_byte_ms: float = 120.0
    character_limit: int = 100_000
    characters_used: int = 0
    reset_unix: int = 0
    quota_form: str = "legacy"
    concurrency: int = 10
    queue_limit: int = 20
    strict_concurrency: bool = False
    strict_language: bool = False
    newer_models: str = "dialogue"
    voice_limit: int = 30
    voice_add_edits_limit: int = 200
    can_clone: bool = True
    api_key: str = ""
    premade_voices: bool = True
    region: str = "us-central1"
    history_filters: bool = True
    zero_retention: bool = True
    history: bool = True
    usage_call: str = "credits"
    request_list: str = "full"
    currency: str = "usd"

    def __post_init__(self) -> None:
        self.reset_unix = self.reset_unix or int(time.time()) + PERIOD_S

    def update(self, changes: object) -> None:
        """Sets the fields in `changes`, a mapping from names to values.

        Raises InvalidControlRequest, and sets nothing, if a name or a value is invalid. The error lists the known
        names.
        """
        if not isinstance(changes, Mapping):
            raise InvalidControlRequest("Settings must be an object.")
        reject_unknown_fields(changes, tuple(asdict(self)), "settings")
        for name, value in changes.items():
            current = getattr(self, name)
            if name in CHOICES:
                fits = value in CHOICES[name]
            elif isinstance(current, str):
                fits = isinstance(value, str)
            elif isinstance(current, bool):
                fits = isinstance(value, bool)
            elif name == "first_byte_ms":
                fits = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
            else:
                fits = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            if not fits:
                raise InvalidControlRequest(
                    f"`{name}` cannot be {value!r}. An example of a valid value is {current!r}."
                )
        for name, value in changes.items():
            setattr(self, name, value)
