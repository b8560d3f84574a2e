"""The imitated account: its quota and its billed requests."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from voicecare.providers.elevenlabs.sandbox.config import PERIOD_S, SandboxConfig
from voicecare.providers.elevenlabs.sandbox.errors import preset_error
from voicecare.providers.elevenlabs.sandbox.records import BilledRequest


@dataclass
class Reservation:
    """Credits reserved for one request.

    The reservation ends with `bill`, when the headers are sent, or without a charge when the request ends before that.
    """

    account: "Account"
    credits: int
    billed: bool = False

    def bill(self) -> tuple[int, int]:
        """Charges the credits to the account. Call this once. Returns the account's used credits before and after."""
        config = self.account.config
        before = config.characters_used
        config.characters_used += self.credits
        self.account.reserved_credits -= self.credits
        self.billed = True
        return before, config.characters_used


class Account:
    """The used credits and voice edits of one billing period, and all requests billed since the sandbox was reset."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.reserved_credits = 0
        self.voice_edits = 0
        self.billed_requests: list[BilledRequest] = []

    @contextmanager
    def reserve(self, credits: int) -> Iterator[Reservation]:
        """Reserves the credits of a request inside the `with` block. Raises ApiError if the quota is not sufficient."""
        self._start_period_if_due()
        remaining = self.config.character_limit - self.config.characters_used - self.reserved_credits
        if credits > remaining:
            preset = "insufficient_credits" if self.config.quota_form == "new" else "quota_exceeded"
            raise preset_error(
                preset,
                f"This request exceeds your quota of {self.config.character_limit}. You have {max(remaining, 0)} "
                f"credits remaining, while {credits} credits are required for this request.",
            )
        reservation = Reservation(self, credits)
        self.reserved_credits += credits
        try:
            yield reservation
        finally:
            if not reservation.billed:
                self.reserved_credits -= credits

    def _start_period_if_due(self) -> None:
        if time.time() >= self.config.reset_unix:
            self.config.characters_used = 0
            self.config.reset_unix = int(time.time()) + PERIOD_S

    def count_voice_edit(self) -> None:
        """Counts an added or edited voice. Raises ApiError if the limit of the billing period is reached."""
        if self.voice_edits >= self.config.voice_add_edits_limit:
            raise preset_error("voice_add_edit_limit_reached")
        self.voice_edits += 1

    def delete_from_history(self, item_id: str) -> bool:
        """Returns False if the history has no such item."""
        for index, billed in enumerate(self.billed_requests):
            if billed.history_item_id == item_id and billed.kept:
                self.billed_requests[index] = replace(billed, kept=False)
                return True
        return False

    def subscription(self, voice_slots_used: int) -> dict[str, Any]:
        """Returns the JSON that the provider's schema calls `ExtendedSubscriptionResponseModel`, with its newer fields.

        `voice_slots_used` is the number of cloned voices.
        """
        self._start_period_if_due()
        return {
            "tier": "creator",
            "character_count": self.config.characters_used,
            "character_limit": self.config.character_limit,
            "max_character_limit_extension": 0,
            "max_credit_limit_extension": 0,
            "can_extend_character_limit": False,
            "allowed_to_extend_character_limit": False,
            "next_character_count_reset_unix": self.config.reset_unix,
            "voice_slots_used": voice_slots_used,
            "professional_voice_slots_used": 0,
            "voice_limit": self.config.voice_limit,
            "max_voice_add_edits": self.config.voice_add_edits_limit,
            "voice_add_edit_counter": self.voice_edits,
            "professional_voice_limit": 1,
            "can_extend_voice_limit": False,
            "can_use_instant_voice_cloning": self.config.can_clone,
            "can_use_professional_voice_cloning": False,
            "currency": "usd",
            "current_overage": {"amount": "0", "currency": "usd"},
            "status": "active",
            "billing_period": "monthly_period",
            "character_refresh_period": "monthly_period",
            "next_invoice": None,
            "open_invoices": [],
            "has_open_invoices": False,
            "cancels_immediately": False,
            "pending_change": None,
        }
