"""Checks of the provider: the API key, each of its permissions, the default voice, and speech."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from django.conf import settings

from cloning.gateway import provider_voices
from tts.cache.warmer import DatabaseLedger
from tts.conversations.model_check import find_model_problems
from tts.conversations.voice import SpeechSettings, VoiceRef
from tts.resilience.speech_gateway import SpeechGateway
from usage.ledger.events import Attempt, Kind
from voicecare.audio.formats import DEVICE_FORMATS
from voicecare.core.database import own_db_thread
from voicecare.health import parts
from voicecare.health.database import compare_clocks
from voicecare.health.parts import Part
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs import credentials
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.client import SpeechClient
from voicecare.providers.elevenlabs.models import ModelCatalogue
from voicecare.providers.errors import (
    AuthorizationError,
    BadRequest,
    Cause,
    ProviderError,
    QuotaExceeded,
    Unreachable,
    VoiceUnavailable,
)

LANGUAGE = "en"
TEXT = "Hello."  # short, because it is billed
SPEECH_TIMEOUT_S = 15.0
UNKNOWN_VOICE = UNKNOWN_ITEM = "voicecareDoctor00000"  # ids of the provider have 20 characters


@dataclass(frozen=True, slots=True)
class Permission:
    """A permission of the key. `call` needs it and is free. Without it, what `loss` says happens.

    With `is_needed`, patients notice that it is missing.
    """

    name: str
    purpose: str
    loss: str
    is_needed: bool
    call: Callable[[AccountClient], object]


def _read_usage(client: AccountClient) -> None:
    """Read the usage with the first call that the account has. Raises the first error if it has none."""
    end = _now_ms()
    start = end - 3_600_000
    errors: list[ProviderError] = []
    for call in (
        lambda: client.usage_by_product(start, end, time_zone="UTC"),
        lambda: client.cost(start, end),
        lambda: client.character_stats(start, end, metric="credits"),
    ):
        try:
            call()
        except (AuthorizationError, BadRequest) as error:
            errors.append(error)
        else:
            return
    raise errors[0]


PERMISSIONS = (
    Permission(
        "permission_voices_read",
        "read voices",
        "the server knows no voices, and does not notice lost ones",
        True,
        lambda client: next(client.voices(), None),
    ),
    Permission(
        "permission_user_read",
        "read the subscription",
        "the credits are unknown",
        False,
        lambda client: client.subscription(),
    ),
    Permission(
        "permission_usage",
        "read usage",
        "usage is not compared with the provider's figures",
        False,
        _read_usage,
    ),
    Permission(
        "permission_requests",
        "read the list of requests",
        "it stays unknown whether interrupted requests were billed if the provider keeps no history",
        False,
        lambda client: client.request_list(_now_ms() - 60_000, _now_ms(), limit=1),
    ),
    Permission(
        "permission_history",
        "read the history",
        "it stays unknown whether interrupted requests were billed, and requests of erased patients stay there",
        False,
        lambda client: next(client.history(_now_ms() // 1000 - 60, _now_ms() // 1000), None),
    ),
    Permission(
        "permission_history_write",
        "delete from the history",
        "requests of erased patients and in withdrawn voices stay in the provider's history",
        False,
        lambda client: client.delete_history_item(UNKNOWN_ITEM),
    ),
    Permission(
        "permission_voices_write",
        "add and delete voices",
        "voices cannot be cloned or removed",
        False,
        lambda client: client.delete_voice(UNKNOWN_VOICE),
    ),
)


def check_account() -> Iterator[Part]:
    """Yields parts about the key, its permissions and the provider's clock, from free calls."""
    if settings.ELEVENLABS_API_KEY_FILE and not credentials.api_key():
        state = f"{settings.ELEVENLABS_API_KEY_FILE} (ELEVENLABS_API_KEY_FILE) cannot be read or has no key"
        yield _key(works=False, state=state)
        return
    with provider_voices.account_client() as client:
        before = datetime.now(UTC)
        catalogue = ModelCatalogue()
        try:
            catalogue.update(client.models())
        except AuthorizationError as error:
            if error.cause is Cause.KEY:
                yield _key(works=False, state=f"refused ({error.code})")
                return
            yield _key(works=True, state="accepted")
        except ProviderError as error:
            yield _key(works=False, state=_explain(error))
            return
        else:
            yield _key(works=True, state="the built-in sandbox answers" if settings.USE_SANDBOX else "accepted")
        if client.responded_at is not None:
            yield compare_clocks("provider", client.responded_at, before, datetime.now(UTC), resolution_s=1.0)
        yield parts.model(find_model_problems(catalogue))
        for permission in PERMISSIONS:
            yield _check_permission(client, permission)
        yield _check_default_voice(client)


def check_speech() -> Part:
    """Has a word spoken in the default voice, which is billed. Proves the permission text_to_speech."""
    title, advice = "Speech", "Patients hear the offline voice. Check the permission text_to_speech and the plan."
    voice = Voice.objects.default(LANGUAGE)
    if voice is None:
        return Part("speech", title, False, "not tried, because there is no default voice", "See the default voice.")
    began = time.monotonic()
    try:
        spoken = asyncio.run(speak(voice))
    except QuotaExceeded as error:
        return Part("speech", title, True, f"permitted, but {error.code}", "Buy credits.", warns=True)
    except TimeoutError:
        return Part(
            "speech", title, False, f"no end after {SPEECH_TIMEOUT_S:.0f} s", "Check the provider's status page."
        )
    except ProviderError as error:
        return Part("speech", title, False, _explain(error), advice)
    took_s = time.monotonic() - began
    state = f"{len(TEXT)} characters were spoken by {voice.name} in {took_s:.1f} s ({spoken.size:,} bytes)"
    return Part("speech", title, True, state)


class Spoken(NamedTuple):
    """A word that the provider has spoken: the attempt in the ledger, and the number of bytes of its audio."""

    attempt: Attempt
    size: int


async def speak(voice: Voice) -> Spoken:
    """Has TEXT spoken. Raises ProviderError, and TimeoutError after SPEECH_TIMEOUT_S."""
    speech_settings = SpeechSettings(
        VoiceRef.from_voice(voice), settings.ELEVENLABS_MODEL_ID, LANGUAGE, 1.0, DEVICE_FORMATS[0]
    )
    attempt = Attempt(
        source_id=uuid.uuid4(),
        segment=0,
        attempt=1,
        kind=Kind.PROBE.value,
        requested_characters=len(TEXT),
        voice_id=voice.pk,
        model=speech_settings.model,
    )
    request = speech_settings.build_request(TEXT, None, None, zero_retention=settings.ELEVENLABS_ZERO_RETENTION)
    client = SpeechClient(settings.ELEVENLABS_BASE_URL, credentials.api_key())
    await client.open()
    try:
        async with own_db_thread("doctor"):
            stream = SpeechGateway(client, DatabaseLedger()).stream(
                request, attempt, first_byte_s=SPEECH_TIMEOUT_S, stall_s=SPEECH_TIMEOUT_S
            )
            async with asyncio.timeout(SPEECH_TIMEOUT_S), stream as audio:
                return Spoken(attempt, sum([len(chunk) async for chunk in audio]))
    finally:
        await client.close()


def _key(*, works: bool, state: str) -> Part:
    advice = "Patients hear cached phrases and the offline voice. Check ELEVENLABS_API_KEY, its file, and the network."
    return Part("provider_key", "API key", works, state, advice)


def _check_permission(client: AccountClient, permission: Permission) -> Part:
    title = f"May {permission.purpose}"
    try:
        permission.call(client)
    except AuthorizationError as error:
        advice = f"Without it {permission.loss}. Give the key this permission at the provider."
        works, state = not permission.is_needed, f"no: {error.message} ({error.code})"
        return Part(permission.name, title, works, state, advice, warns=True)
    except ProviderError as error:
        if error.status is None or error.retryable:
            return Part(permission.name, title, True, f"unknown: {_explain(error)}", "Try again later.", warns=True)
    return Part(permission.name, title, True, "yes")


def _check_default_voice(client: AccountClient) -> Part:
    voice = Voice.objects.default(LANGUAGE)
    if voice is None:
        state = "no voice of the account has been read, or none can be used"
        advice = "Start the worker, which reads them, or add a voice to the account at the provider."
        return Part("default_voice", "Default voice", False, state, advice)
    try:
        client.voice(voice.provider_id)
    except VoiceUnavailable as error:
        advice = "The server replaces it. Choose another one in the admin, or correct DEFAULT_VOICE_ID."
        return Part("default_voice", "Default voice", False, f"{voice.name} is refused ({error.code})", advice)
    except ProviderError as error:
        state = f"{voice.name}, which could not be read: {_explain(error)}"
        return Part("default_voice", "Default voice", True, state, "Try again later.", warns=True)
    return Part("default_voice", "Default voice", True, voice.name)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _explain(error: ProviderError) -> str:
    if isinstance(error, Unreachable):
        return f"{settings.ELEVENLABS_BASE_URL} cannot be reached"
    return f"{error.message} ({error.support_details})"
