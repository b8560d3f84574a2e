"""Parsing of complete, minimal and invalid responses."""

from typing import Any

import pytest

from voicecare.providers.elevenlabs.responses import (
    AddedVoice,
    CharacterStats,
    HistoryPage,
    Model,
    Subscription,
    Voice,
    VoicePage,
    models_from_json,
    parse_json,
)
from voicecare.providers.errors import ServerError

SUBSCRIPTION: dict[str, Any] = {
    "tier": "pro",
    "character_count": 1200,
    "character_limit": 600000,
    "max_credit_limit_extension": 0,
    "next_character_count_reset_unix": 1767225600,
    "voice_slots_used": 4,
    "voice_limit": 160,
    "can_use_instant_voice_cloning": True,
    "status": "active",
    "open_invoices": [],
}
HISTORY_ITEM: dict[str, Any] = {
    "history_item_id": "h1",
    "request_id": "r1",
    "voice_id": "v1",
    "model_id": "eleven_flash_v2_5",
    "text": "Hëllo 😀",
    "date_unix": 1767225600,
    "character_count_change_from": 100,
    "character_count_change_to": 104,
}


def reject(reader: Any, reply: object) -> str:
    with pytest.raises(ServerError) as caught:
        reader(reply)
    assert (caught.value.code, caught.value.status) == ("bad_reply", 200)
    return caught.value.message


def test_a_subscription() -> None:
    found = Subscription.from_json(SUBSCRIPTION)
    assert (found.used, found.limit, found.extension, found.remaining) == (1200, 600000, 0, 598800)
    assert (found.tier, found.status, found.resets_at_unix) == ("pro", "active", 1767225600)
    assert (found.voice_slots_used, found.voice_limit, found.can_clone) == (4, 160, True)


@pytest.mark.parametrize(
    ("count", "extension", "remaining"),
    [(1000, 0, 0), (1100, 0, 0), (1100, 500, 400), (900, None, 100), (9999, "unlimited", None)],
)
def test_remaining_credits_include_the_extension(count: int, extension: object, remaining: int | None) -> None:
    reply = {"character_count": count, "character_limit": 1000, "max_credit_limit_extension": extension}
    assert Subscription.from_json(reply).remaining == remaining


@pytest.mark.parametrize("field", ["character_count", "character_limit"])
@pytest.mark.parametrize("value", [None, "abc", "12", -1, 1.5, float("nan"), True, [], {}, 2**63])
def test_an_invalid_quota_number_is_an_error(field: str, value: object) -> None:
    assert field in reject(Subscription.from_json, {**SUBSCRIPTION, field: value})


@pytest.mark.parametrize("field", ["next_character_count_reset_unix", "voice_limit", "max_credit_limit_extension"])
def test_other_numbers_may_be_missing_but_not_invalid(field: str) -> None:
    Subscription.from_json({k: v for k, v in SUBSCRIPTION.items() if k != field})
    assert field in reject(Subscription.from_json, {**SUBSCRIPTION, field: "soon"})


@pytest.mark.parametrize(
    ("check", "needed"),
    [
        (None, False),
        ("odd", False),
        ({"requires_verification": True, "is_verified": False}, True),
        ({"requires_verification": True, "is_verified": True}, False),
        ({"requires_verification": False}, False),
    ],
)
def test_a_voice(check: object, needed: bool) -> None:
    reply = {"voice_id": "v", "name": "vc-1", "category": "cloned", "created_at_unix": 7, "voice_verification": check}
    assert Voice.from_json(reply) == Voice("v", "vc-1", "cloned", needed, 7)


def test_a_voice_with_only_an_id() -> None:
    assert Voice.from_json({"voice_id": "v"}) == Voice("v", "", "", False, None)


@pytest.mark.parametrize("reply", [{}, {"voice_id": ""}, {"voice_id": 3}, None, [], "v"])
def test_a_voice_without_an_id_is_an_error(reply: object) -> None:
    reject(Voice.from_json, reply)
    reject(AddedVoice.from_json, reply)


def test_an_added_voice() -> None:
    assert AddedVoice.from_json({"voice_id": "v", "requires_verification": True}) == AddedVoice("v", True)
    assert AddedVoice.from_json({"voice_id": "v", "requires_verification": None}) == AddedVoice("v", False)


def test_only_has_more_decides_about_the_next_page() -> None:
    voices = [{"voice_id": "v"}]
    assert VoicePage.from_json({"voices": voices, "has_more": True, "next_page_token": "t"}).next_token == "t"
    last = VoicePage.from_json({"voices": voices, "has_more": False, "next_page_token": "t", "total_count": 99})
    assert last.next_token is None
    assert [voice.voice_id for voice in last.voices] == ["v"]


@pytest.mark.parametrize(
    "reply",
    [None, {}, {"voices": None}, {"voices": [7]}, {"voices": [], "has_more": True}, {"voices": {}, "has_more": False}],
)
def test_an_invalid_page_of_voices_is_an_error(reply: object) -> None:
    reject(VoicePage.from_json, reply)


def test_models() -> None:
    reply = {
        "model_id": "eleven_flash_v2_5",
        "can_do_text_to_speech": True,
        "maximum_text_length_per_request": 40000,
        "model_rates": {"character_cost_multiplier": 0.5},
        "concurrency_group": "turbo",
    }
    assert models_from_json([reply, {"model_id": "x"}]) == [
        Model("eleven_flash_v2_5", True, 40000, 0.5, "turbo"),
        Model("x", False, None, None, ""),
    ]


@pytest.mark.parametrize("rate", ["half", -0.5, float("nan"), float("inf"), True])
def test_an_invalid_price_is_an_error(rate: object) -> None:
    reject(models_from_json, [{"model_id": "x", "model_rates": {"character_cost_multiplier": rate}}])


def test_statistics() -> None:
    found = CharacterStats.from_json({"time": [1, 2], "usage": {"All": [10, 0.5], "v": [None, 1]}})
    assert (found.times_ms, found.usage) == ((1, 2), {"All": (10.0, 0.5), "v": (0.0, 1.0)})


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"time": [1], "usage": []},
        {"time": [1], "usage": {"All": []}},
        {"time": ["x"], "usage": {}},
        {"time": [], "usage": {"All": "x"}},
        {"time": [1], "usage": {"All": ["x"]}},
    ],
)
def test_inconsistent_statistics_are_an_error(reply: object) -> None:
    reject(CharacterStats.from_json, reply)


def test_history_items_have_the_length_of_the_text_only() -> None:
    page = HistoryPage.from_json({"history": [HISTORY_ITEM], "has_more": True, "last_history_item_id": "h1"})
    (item,) = page.items
    assert (page.next_after, item.item_id, item.request_id, item.voice_id) == ("h1", "h1", "r1", "v1")
    assert (item.created_at_unix, item.characters, item.credits) == (1767225600, 7, 4)
    assert "llo" not in repr(page)


@pytest.mark.parametrize(("before", "after", "credit"), [(100, 100, 0), (990, 5, None), (None, 5, None)])
def test_credits_are_unknown_across_a_reset_of_the_counter(before: object, after: object, credit: int | None) -> None:
    item = {**HISTORY_ITEM, "character_count_change_from": before, "character_count_change_to": after}
    assert HistoryPage.from_json({"history": [item]}).items[0].credits == credit


@pytest.mark.parametrize("reply", [{}, {"history": [{}]}, {"history": [], "has_more": True}])
def test_an_invalid_page_of_history_is_an_error(reply: object) -> None:
    reject(HistoryPage.from_json, reply)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"\xff", b"[" * 100_000])
def test_invalid_json_is_an_error(body: bytes) -> None:
    reject(parse_json, body)
