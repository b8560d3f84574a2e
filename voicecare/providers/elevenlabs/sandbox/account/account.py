"""The imitated account: what it may spend, what it has spent, and on what."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from voicecare.providers.elevenlabs.sandbox.config import PERIOD_S, Knobs
from voicecare.providers.elevenlabs.sandbox.errors import ApiError, refusal
from voicecare.providers.elevenlabs.sandbox.records import Sale


@dataclass
class Reservation:
    """Credits held for one request until its headers are out (`spend`) or it ends without them."""

    account: "Account"
    credits: int
    spent: bool = False

    def spend(self) -> tuple[int, int]:
        """Bills once; returns the account's counter before and after."""
        knobs = self.account.knobs
        before = knobs.characters_used
        knobs.characters_used += self.credits
        self.account.pending -= self.credits
        self.spent = True
        return before, knobs.characters_used


class Account:
    """Credits and voice edits of one billing period, and every sale since the start."""

    def __init__(self, knobs: Knobs) -> None:
        self.knobs = knobs
        self.pending = 0
        self.voice_edits = 0
        self.sales: list[Sale] = []

    @contextmanager
    def reserved(self, credits: int) -> Iterator[Reservation]:
        """Holds the credits of a request; raises the quota's refusal if they are not there."""
        self._turn_period()
        remaining = self.knobs.character_limit - self.knobs.characters_used - self.pending
        if credits > remaining:
            raise self._exceeded(max(remaining, 0), credits)
        reservation = Reservation(self, credits)
        self.pending += credits
        try:
            yield reservation
        finally:
            if not reservation.spent:
                self.pending -= credits

    def _exceeded(self, remaining: int, needed: int) -> ApiError:
        message = (
            f"This request exceeds your quota of {self.knobs.character_limit}. You have {remaining} credits remaining, "
            f"while {needed} credits are required for this request."
        )
        if self.knobs.quota_form == "new":
            return refusal("insufficient_credits", message)
        return refusal("quota_exceeded", message)

    def _turn_period(self) -> None:
        if time.time() >= self.knobs.reset_unix:
            self.knobs.characters_used = 0
            self.knobs.reset_unix = int(time.time()) + PERIOD_S

    def edit_voice(self) -> None:
        """Counts an added or edited voice; raises when the period's allowance is used up."""
        if self.voice_edits >= self.knobs.voice_add_edits_limit:
            raise refusal("voice_add_edit_limit_reached")
        self.voice_edits += 1

    def subscription(self, voice_slots_used: int) -> dict[str, Any]:
        """An `ExtendedSubscriptionResponseModel` with the newer fields."""
        self._turn_period()
        return {
            "tier": "creator",
            "character_count": self.knobs.characters_used,
            "character_limit": self.knobs.character_limit,
            "max_character_limit_extension": 0,
            "max_credit_limit_extension": 0,
            "can_extend_character_limit": False,
            "allowed_to_extend_character_limit": False,
            "next_character_count_reset_unix": self.knobs.reset_unix,
            "voice_slots_used": voice_slots_used,
            "professional_voice_slots_used": 0,
            "voice_limit": self.knobs.voice_limit,
            "max_voice_add_edits": self.knobs.voice_add_edits_limit,
            "voice_add_edit_counter": self.voice_edits,
            "professional_voice_limit": 1,
            "can_extend_voice_limit": False,
            "can_use_instant_voice_cloning": self.knobs.can_clone,
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
