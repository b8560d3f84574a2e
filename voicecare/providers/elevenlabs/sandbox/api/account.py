"""The provider's endpoints for models, user, subscription, usage and history."""

from typing import Any

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.account.models import MODELS
from voicecare.providers.elevenlabs.sandbox.account.voices import SETTINGS, STOCK_SINCE
from voicecare.providers.elevenlabs.sandbox.api.middleware import json_endpoint
from voicecare.providers.elevenlabs.sandbox.api.query import integer
from voicecare.providers.elevenlabs.sandbox.api.usage import character_stats
from voicecare.providers.elevenlabs.sandbox.errors import preset_error
from voicecare.providers.elevenlabs.sandbox.records import BilledRequest
from voicecare.providers.elevenlabs.sandbox.state import Sandbox

MAX_PAGE = 1000


async def models(_sandbox: Sandbox, _request: web.Request) -> list[dict[str, Any]]:
    return [model.to_json() for model in MODELS.values()]


async def subscription(sandbox: Sandbox, _request: web.Request) -> dict[str, Any]:
    return sandbox.account.subscription(sandbox.voices.slots_used)


async def user(sandbox: Sandbox, _request: web.Request) -> dict[str, Any]:
    """Returns the JSON that the provider's schema calls `UserResponseModel`."""
    return {
        "user_id": "sandbox",
        "subscription": sandbox.account.subscription(sandbox.voices.slots_used),
        "subscription_extras": {
            "concurrency": sandbox.config.concurrency,
            "convai_concurrency": 0,
            "force_logging_disabled": False,
            "can_request_manual_pro_voice_verification": False,
            "can_bypass_voice_captcha": True,
            "moderation": {
                "is_in_probation": False,
                "enterprise_check_nogo_voice": False,
                "enterprise_check_block_nogo_voice": False,
                "never_live_moderate": False,
                "nogo_voice_similar_voice_upload_count": 0,
                "enterprise_background_moderation_enabled": False,
                "on_watchlist": False,
            },
        },
        "is_new_user": False,
        "can_use_delayed_payment_methods": False,
        "is_onboarding_completed": True,
        "is_onboarding_checklist_completed": True,
        "first_name": "Sandbox",
        "is_api_key_hashed": True,
        "created_at": STOCK_SINCE,
    }


async def history(sandbox: Sandbox, request: web.Request) -> dict[str, Any]:
    """Returns the JSON that the provider's schema calls `GetSpeechHistoryResponseModel`: billed requests, newest first.

    Zero-retention requests are not included.
    """
    size = integer(request.query, "page_size", 100) or 0
    if not 1 <= size <= MAX_PAGE:
        raise preset_error("invalid_page_size", f"page_size must be between 1 and {MAX_PAGE}.", param="page_size")
    query = request.query if sandbox.config.history_filters else {}
    after, before = integer(query, "date_after_unix", None), integer(query, "date_before_unix", None)
    items = [
        billed
        for billed in reversed(sandbox.account.billed_requests)
        if billed.kept
        and sandbox.config.history
        and query.get("voice_id") in (None, billed.voice_id)
        and query.get("model_id") in (None, billed.model_id)
        and query.get("source") in (None, "TTS")
        and query.get("search", "").casefold() in billed.text.casefold()
        and (after is None or billed.unix >= after)
        and (before is None or billed.unix < before)
    ]
    start = 0
    last_id = request.query.get("start_after_history_item_id")
    if last_id is not None:
        ids = [billed.history_item_id for billed in items]
        if last_id not in ids:
            raise preset_error("history_item_not_found", param="start_after_history_item_id")
        start = ids.index(last_id) + 1
    page = items[start : start + size]
    return {
        "history": [_history_item(billed) for billed in page],
        "last_history_item_id": page[-1].history_item_id if page else None,
        "has_more": start + size < len(items),
    }


async def delete_history_item(sandbox: Sandbox, request: web.Request) -> dict[str, Any]:
    """Deletes one item. The request stays in the statistics, because it was billed."""
    if not sandbox.account.delete_from_history(request.match_info["item_id"]):
        raise preset_error("history_item_not_found", param="history_item_id")
    return {"status": "ok"}


def _history_item(billed: BilledRequest) -> dict[str, Any]:
    """Returns the JSON that the provider's schema calls `SpeechHistoryItemResponseModel`."""
    return {
        "history_item_id": billed.history_item_id,
        "request_id": billed.request_id,
        "voice_id": billed.voice_id,
        "model_id": billed.model_id,
        "voice_name": billed.voice_name,
        "voice_category": billed.voice_category,
        "text": billed.text,
        "date_unix": int(billed.unix),
        "character_count_change_from": billed.before,
        "character_count_change_to": billed.after,
        "content_type": billed.content_type,
        "state": "created",
        "settings": dict(SETTINGS),
        "feedback": None,
        "share_link_id": None,
        "source": "TTS",
        "alignments": None,
        "dialogue": None,
    }


def add_routes(router: web.UrlDispatcher) -> None:
    router.add_get("/v1/models", json_endpoint(models))
    router.add_get("/v1/user", json_endpoint(user))
    router.add_get("/v1/user/subscription", json_endpoint(subscription))
    router.add_get("/v1/usage/character-stats", json_endpoint(character_stats))
    router.add_get("/v1/history", json_endpoint(history))
    router.add_delete("/v1/history/{item_id}", json_endpoint(delete_history_item))
