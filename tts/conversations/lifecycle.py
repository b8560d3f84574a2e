"""Starts, resumes, switches and ends conversations in the database.

Call these functions from a thread. When a conversation starts, everything that its speech needs is read into an
immutable `Context`. So later no database query delays the audio.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import replace

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest, Now

from tts.conversations.context import Context, OpenConversation
from tts.conversations.lexicon import load_lexicon
from tts.conversations.voice import SpeechSettings, VoiceRef
from tts.models import Conversation, Phrase, Utterance
from tts.states import UNFINISHED_STATES, Origin, UtteranceState
from tts.text.segmenter import normalise
from voicecare.audio.formats import DEVICE_FORMATS
from voicecare.core import languages
from voicecare.core.batches import process_each
from voicecare.core.errors import VoicecareError
from voicecare.patients.models import DefaultVoices, Device, Patient, Voice

PATIENT_VOICES = ("patient__voice__successor", "patient__backup_voice__successor")
"""What `select_related` must load, so that the voices of a patient take no further query."""


_PLACEHOLDER = re.compile(r"\{patient_name\}|\{ai_name\}")


class UnknownConversation(VoicecareError):
    """The conversation does not exist, belongs to another patient, or has ended."""

    code = "unknown_id"


def start(device_id: uuid.UUID, audio_format: str | None, buffer_ms: int | None = None) -> OpenConversation:
    """Start a conversation that the device requested, in the patient's voice or else in the default voice."""
    return _create(device_id, audio_format, Conversation.Initiated.DEVICE, buffer_ms)


def start_for_delivery(device_id: uuid.UUID) -> OpenConversation:
    """Start a conversation in which queued speech can be played, although the device has not requested one.

    Its audio format is the one that the device used last, and it keeps to the buffer that the device named last.
    """
    return _create(device_id, None, Conversation.Initiated.SERVER, None)


def _create(device_id: uuid.UUID, audio_format: str | None, initiated: str, buffer_ms: int | None) -> OpenConversation:
    device = Device.objects.select_related("patient__clinic", *PATIENT_VOICES).get(pk=device_id)
    defaults = DefaultVoices()
    voice, source = resolve_voice(device.patient, defaults)
    last = ""
    if initiated == Conversation.Initiated.SERVER:
        last, buffer_ms = device.format, device.buffer_ms
    chosen = audio_format or last or DEVICE_FORMATS[0]
    with transaction.atomic():
        conversation = Conversation.objects.create(
            patient=device.patient,
            device=device,
            voice=voice,
            voice_source=source,
            format=chosen,
            initiated=initiated,
            started_at=Now(),
            seen_at=Now(),
        )
        Device.objects.filter(pk=device_id).update(format=chosen, buffer_ms=buffer_ms)
    context = _build_context(conversation, device.patient, defaults)
    return OpenConversation(context, frozenset(), 0, buffer_ms=buffer_ms)


def adopt(
    device_id: uuid.UUID, opened: OpenConversation, audio_format: str | None, buffer_ms: int | None
) -> OpenConversation:
    """Turn a conversation that the server has started into one of the device. Its later speech has `audio_format`."""
    chosen = audio_format or opened.context.speech_settings.format
    initiated = Conversation.Initiated.DEVICE.value
    with transaction.atomic():
        Conversation.objects.filter(pk=opened.context.conversation_id).update(initiated=initiated, format=chosen)
        Device.objects.filter(pk=device_id).update(format=chosen, buffer_ms=buffer_ms)
    context = replace(
        opened.context,
        initiated_by=initiated,
        speech_settings=replace(opened.context.speech_settings, format=chosen),
        backup_settings=replace(opened.context.backup_settings, format=chosen),
    )
    return replace(opened, context=context, buffer_ms=buffer_ms)


def parse_id(text: str) -> uuid.UUID:
    """Return the id of a conversation, in any letter case. Raises UnknownConversation if `text` is not a UUID."""
    try:
        return uuid.UUID(text)
    except ValueError:
        raise _unknown() from None


def _unknown() -> UnknownConversation:
    return UnknownConversation("This patient has no such unfinished conversation. Start a new one.")


def resume(device_id: uuid.UUID, conversation_id: uuid.UUID, buffer_ms: int | None = None) -> OpenConversation:
    """Resume an unfinished conversation of the device's patient on this device. Raises UnknownConversation.

    If its voice cannot be used any longer, the conversation continues in the voice that a new one would start with.
    """
    device = Device.objects.select_related("patient__clinic", *PATIENT_VOICES).get(pk=device_id)
    resumable = Conversation.objects.resumable().filter(patient=device.patient, pk=conversation_id)
    conversation = resumable.select_related("voice", *PATIENT_VOICES).first()
    if conversation is None:
        raise _unknown()
    defaults = DefaultVoices()
    if has_lost_voice(conversation):  # while no device was connected
        conversation.voice, conversation.voice_source = resolve_voice(device.patient, defaults)
    # Utterances are locked before their conversation, as in the recorder. In another order they could deadlock.
    Utterance.objects.filter(conversation=conversation).interrupt_unfinished()
    resumed = Conversation.objects.unfinished().filter(pk=conversation.pk)
    if not resumed.update(
        device=device, seen_at=Now(), voice=conversation.voice, voice_source=conversation.voice_source
    ):
        raise _unknown()
    if device.buffer_ms != buffer_ms:
        Device.objects.filter(pk=device_id).update(buffer_ms=buffer_ms)
    utterances = Utterance.objects.filter(conversation=conversation).values_list("client_speech_id", "origin")
    ids, origins = zip(*utterances, strict=True) if utterances else ((), ())
    return OpenConversation(
        _build_context(conversation, device.patient, defaults),
        used_speech_ids=frozenset(ids) - {""},
        characters=conversation.tts_characters_used,
        hold_message_spoken=Origin.HOLD_MESSAGE in origins,
        buffer_ms=buffer_ms,
    )


def end(conversation_id: uuid.UUID) -> int:
    """End a conversation and return its billed characters. Idempotent: another call keeps the first end time.

    The end is never before the start, even if the start was written by another clock.
    """
    unfinished = Conversation.objects.unfinished().filter(pk=conversation_id)
    unfinished.update(ended_at=Greatest(Now(), F("started_at")))
    utterances = Utterance.objects.filter(conversation=conversation_id)
    utterances.interrupt_unfinished()
    deferred = utterances.filter(origin=Origin.DEVICE, state=UtteranceState.QUEUED)
    deferred.update_in_order(state=UtteranceState.INTERRUPTED)
    return characters_of(conversation_id)


def characters_of(conversation_id: uuid.UUID) -> int:
    """Return the billed characters of a conversation so far."""
    used = Conversation.objects.filter(pk=conversation_id).values_list("tts_characters_used", flat=True)
    return used.first() or 0


def end_abandoned() -> int:
    """End conversations that no device has resumed for 30 minutes, and return how many. Raises RowsFailed.

    The end time is the last time when the conversation had a connection.
    """
    abandoned = list(Conversation.objects.abandoned().values_list("pk", flat=True))
    return process_each("conversations.end_abandoned", abandoned, _end_abandoned)


@transaction.atomic
def _end_abandoned(conversation_id: uuid.UUID) -> bool:
    utterances = Utterance.objects.filter(conversation=conversation_id)
    # Utterances are locked before their conversation, as in the recorder. In another order they could deadlock.
    list(utterances.filter(state__in=UNFINISHED_STATES).select_for_update().order_by("pk").values_list("pk"))
    conversation = Conversation.objects.filter(pk=conversation_id)
    if conversation.abandoned().select_for_update(no_key=True).first() is None:
        return False  # another process has seen it since it was listed, so its speech continues
    utterances.interrupt_unfinished()
    return bool(conversation.update(ended_at=Greatest(F("seen_at"), F("started_at"))))


def heartbeat(conversation_ids: list[uuid.UUID]) -> None:
    """Record that these conversations have a connected device now."""
    Conversation.objects.unfinished().filter(pk__in=conversation_ids).update(seen_at=Now())


def current_devices(conversation_ids: list[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID | None]:
    """Return the device that started or resumed each conversation last, by conversation id."""
    return dict(Conversation.objects.filter(pk__in=conversation_ids).values_list("pk", "device_id"))


def add_reconciled_characters(new: Mapping[uuid.UUID, int]) -> None:
    """Add the characters that reconciliation has found to conversations that can still be resumed.

    Conversations that have ended are not changed (docs/protocol.md, rule 9).
    """
    Conversation.objects.resumable().add_characters(new)


def resolve_voice(patient: Patient, defaults: DefaultVoices | None = None) -> tuple[Voice | None, str]:
    """Return the voice for a new conversation of this patient, and its kind: cloned, selected or default.

    The voice is None if the provider has no voice for this patient. The kind is "default" then.
    """
    own = patient.voice
    voice = (defaults or DefaultVoices()).for_patient(patient)
    if voice is None or own is None or voice not in (own, own.successor, patient.backup_voice):
        return voice, "default"
    return voice, "cloned" if voice.source == Voice.Source.CLONED else "selected"


def has_lost_voice(conversation: Conversation) -> bool:
    """Whether the conversation cannot continue in its voice. `conversation.patient` must be loaded."""
    voice = conversation.voice
    if conversation.patient.hears_own_voice_only:
        return voice is None or not voice.is_usable or voice.pk != conversation.patient.voice_id
    if conversation.voice_source == "default":
        return voice is None or not voice.is_dependable
    return voice is None or not voice.is_usable or voice.has_ended


def _build_context(conversation: Conversation, patient: Patient, defaults: DefaultVoices) -> Context:
    phrases = list(Phrase.objects.for_language(patient.language))
    of_kind = {phrase.kind: phrase.text for phrase in phrases}
    greeting = of_kind.get(Phrase.Kind.GREETING)
    speech_settings = SpeechSettings(
        voice=VoiceRef.from_voice(conversation.voice),
        model=settings.ELEVENLABS_MODEL_ID,
        language=languages.code_of(patient.language),
        speed=float(patient.speech_rate),
        format=conversation.format,
    )
    backup = VoiceRef.from_voice(defaults.backup_for(patient))
    clinic = patient.clinic if patient.clinic and patient.clinic.has_budget else None
    return Context(
        conversation_id=conversation.id,
        patient_id=patient.id,
        companion_name=patient.companion_name,
        speech_settings=speech_settings,
        backup_settings=replace(speech_settings, voice=backup),
        reserve_voice=VoiceRef.from_voice(defaults.reserve_for(patient)),
        voice_source=conversation.voice_source,
        initiated_by=conversation.initiated,
        phrases=frozenset(normalise(phrase.text) for phrase in phrases if phrase.kind != Phrase.Kind.GREETING),
        greeting=greeting and render_greeting(greeting, patient.form_of_address, patient.companion_name),
        hold_message=of_kind.get(Phrase.Kind.HOLD_MESSAGE),
        has_budget=patient.monthly_character_budget is not None or clinic is not None,
        budgeted_clinic_id=None if clinic is None else clinic.pk,
        own_voice_only=patient.hears_own_voice_only,
        lexicon=load_lexicon(speech_settings.language, patient),
    )


def render_greeting(template: str, patient_name: str, ai_name: str) -> str:
    """Replace `{patient_name}` and `{ai_name}` in the text of a greeting.

    This is not `str.format`, because a name may contain braces.
    """
    names = {"{patient_name}": patient_name, "{ai_name}": ai_name}
    return _PLACEHOLDER.sub(lambda found: names[found[0]], template)
