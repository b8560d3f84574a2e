"""The account over HTTP: models, user, subscription, history."""

from typing import Any

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.account.models import MODELS
from voicecare.providers.elevenlabs.sandbox.account.voices import SETTINGS, STOCK_SINCE
from voicecare.providers.elevenlabs.sandbox.api.middleware import api
from voicecare.providers.elevenlabs.sandbox.api.query import integer
from voicecare.providers.elevenlabs.sandbox.api.usage import character_stats
from voicecare.providers.elevenlabs.sandbox.errors import refusal
from voicecare.providers.elevenlabs.sandbox.records import Sale
from voicecare.providers.elevenlabs.sandbox.state import Sandbox

MAX_PAGE = 1000


async def models(_sandbox: Sandbox, _request: web.Request) -> list[dict[str, Any]]:
    return [model.as_json() for model in MODELS.values()]


async def subscription(sandbox: Sandbox, _request: web.Request) -> dict[str, Any]:
    return sandbox.account.subscription(sandbox.voices.slots_used)


async def user(sandbox: Sandbox, _request: web.Request) -> dict[str, Any]:
    """A `UserResponseModel`."""
    return {
        "user_id": "sandbox",
        "subscription": sandbox.account.subscription(sandbox.voices.slots_used),
        "subscription_extras": {
            "concurrency": sandbox.knobs.concurrency,
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
    """A `GetSpeechHistoryResponseModel`, newest first; zero-retention requests are not in it."""
    size = integer(request.query, "page_size", 100) or 0
    if not 1 <= size <= MAX_PAGE:
        raise refusal("invalid_page_size", f"page_size must be between 1 and {MAX_PAGE}.", param="page_size")
    sales = [sale for sale in reversed(sandbox.account.sales) if sale.kept and _wanted(sale, request)]
    start = _behind(sales, request.query.get("start_after_history_item_id"))
    page = sales[start : start + size]
    return {
        "history": [_item(sale) for sale in page],
        "last_history_item_id": page[-1].history_item_id if page else None,
        "has_more": start + size < len(sales),
    }


def _wanted(sale: Sale, request: web.Request) -> bool:
    query = request.query
    after, before = integer(query, "date_after_unix", None), integer(query, "date_before_unix", None)
    return (
        query.get("voice_id") in (None, sale.voice_id)
        and query.get("model_id") in (None, sale.model_id)
        and query.get("source") in (None, "TTS")
        and query.get("search", "").casefold() in sale.text.casefold()
        and (after is None or sale.unix >= after)
        and (before is None or sale.unix < before)
    )


def _behind(sales: list[Sale], item_id: str | None) -> int:
    if item_id is None:
        return 0
    for place, sale in enumerate(sales, start=1):
        if sale.history_item_id == item_id:
            return place
    raise refusal("history_item_not_found", param="start_after_history_item_id")


def _item(sale: Sale) -> dict[str, Any]:
    """A `SpeechHistoryItemResponseModel`."""
    return {
        "history_item_id": sale.history_item_id,
        "request_id": sale.request_id,
        "voice_id": sale.voice_id,
        "model_id": sale.model_id,
        "voice_name": sale.voice_name,
        "voice_category": sale.voice_category,
        "text": sale.text,
        "date_unix": int(sale.unix),
        "character_count_change_from": sale.before,
        "character_count_change_to": sale.after,
        "content_type": sale.content_type,
        "state": "created",
        "settings": dict(SETTINGS),
        "feedback": None,
        "share_link_id": None,
        "source": "TTS",
        "alignments": None,
        "dialogue": None,
    }


def add_routes(router: web.UrlDispatcher) -> None:
    router.add_get("/v1/models", api(models))
    router.add_get("/v1/user", api(user))
    router.add_get("/v1/user/subscription", api(subscription))
    router.add_get("/v1/usage/character-stats", api(character_stats))
    router.add_get("/v1/history", api(history))
