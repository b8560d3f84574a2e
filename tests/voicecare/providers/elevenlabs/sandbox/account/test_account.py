"""Reservations of the sandbox's account."""

import pytest

from voicecare.providers.elevenlabs.sandbox.account.account import Account
from voicecare.providers.elevenlabs.sandbox.config import SandboxConfig
from voicecare.providers.elevenlabs.sandbox.errors import ApiError


def test_reserved_credits_are_not_available_to_other_requests() -> None:
    account = Account(SandboxConfig(character_limit=100))
    with account.reserve(60) as first:
        with pytest.raises(ApiError), account.reserve(60):
            pass
        first.bill()
        with account.reserve(40):
            pass
    assert (account.config.characters_used, account.reserved_credits) == (60, 0)
