"""Starts, resumes, switches and ends conversations in the database.

Call these functions from a thread. Each looks up everything that speech needs, and the result is frozen. Later, no
database query delays the audio.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from tts.conversations.context import Context, OpenConversation
from tts.conversations.voice import SpeechSettings, VoiceRef
from tts.models import Conversation, Phrase, Utterance
from tts.states import Origin, UtteranceState
from tts.text.segmenter import normalise
from voicecare.audio.formats import DEVICE_FORMATS
from voicecare.core.errors import VoicecareError
from voicecare.patients.models import Device, Patient, Voice


class UnknownConversation(VoicecareError):
    """The conversation does not exist, belongs to another patient, or has ended."""

    code = "unknown_id"


def start(device_id: uuid.UUID, audio_format: str | None) -> OpenConversation:
    """Starts a conversation that the device requested, in the patient's voice or else in the default voice."""
    return _create(device_id, audio_format, Conversation.Initiated.DEVICE)


def start_for_delivery(device_id: uuid.UUID) -> OpenConversation:
    """Starts a conversation for queued speech that the server starts, in the last format of the device."""
    return _create(device_id, None, Conversation.Initiated.SERVER)


def _create(device_id: uuid.UUID, audio_format: str | None, initiated: str) -> OpenConversation:
    device = Device.objects.select_related("patient__voice").get(pk=device_id)
    voice, source = resolve_voice(device.patient)
    last = device.format if initiated == Conversation.Initiated.SERVER else ""
    chosen = audio_format or last or DEVICE_FORMATS[0]
    with transaction.atomic():
        conversation = Conversation.objects.create(
            patient=device.patient, device=device, voice=voice, voice_source=source, format=chosen, initiated=initiated
        )
        Device.objects.filter(pk=device_id).update(format=chosen)
    return OpenConversation(_build_context(conversation, device.patient), frozenset(), 0)


def adopt(device_id: uuid.UUID, opened: OpenConversation, audio_format: str | None) -> OpenConversation:
    """Lets the device continue a conversation that the server has started. The next speech has the device's format."""
    chosen = audio_format or opened.context.speech_settings.format
    initiated = Conversation.Initiated.DEVICE.value
    with transaction.atomic():
        Conversation.objects.filter(pk=opened.context.conversation_id).update(initiated=initiated, format=chosen)
        Device.objects.filter(pk=device_id).update(format=chosen)
    context = replace(
        opened.context,
        initiated_by=initiated,
        speech_settings=replace(opened.context.speech_settings, format=chosen),
        backup_settings=replace(opened.context.backup_settings, format=chosen),
    )
    return replace(opened, context=context)


def resume(device_id: uuid.UUID, conversation_id: str) -> OpenConversation:
    """Resumes an unfinished conversation of the device's patient on this device. Raises UnknownConversation.

    If its voice was withdrawn in the meantime, the conversation continues in the default voice.
    """
    device = Device.objects.select_related("patient").get(pk=device_id)
    resumable = Conversation.objects.resumable(timezone.now()).filter(patient=device.patient)
    try:
        conversation = resumable.select_related("voice").filter(pk=uuid.UUID(conversation_id)).first()
    except ValueError:  # not a UUID
        conversation = None
    if conversation is None:
        raise UnknownConversation("This patient has no such unfinished conversation. Start a new one.")
    if conversation.voice.state == Voice.State.WITHDRAWN:  # while no device was connected
        conversation.voice, conversation.voice_source = Voice.objects.default(), "default"
    Conversation.objects.filter(pk=conversation.pk).update(
        device=device, seen_at=timezone.now(), voice=conversation.voice, voice_source=conversation.voice_source
    )
    Utterance.objects.filter(conversation=conversation).interrupt_unfinished()
    utterances = Utterance.objects.filter(conversation=conversation).values_list("client_speech_id", "origin")
    ids, origins = zip(*utterances, strict=True) if utterances else ((), ())
    return OpenConversation(
        _build_context(conversation, device.patient),
        used_speech_ids=frozenset(ids) - {""},
        characters=conversation.tts_characters_used,
        hold_message_spoken=Origin.HOLD_MESSAGE in origins,
    )


def end(conversation_id: uuid.UUID, now: datetime | None = None) -> int:
    """Ends a conversation and returns its billed characters. Idempotent. Calling it again keeps the first end time."""
    Conversation.objects.unfinished().filter(pk=conversation_id).update(ended_at=now or timezone.now())
    utterances = Utterance.objects.filter(conversation=conversation_id)
    utterances.interrupt_unfinished()
    utterances.filter(origin=Origin.DEVICE, state=UtteranceState.QUEUED).update(state=UtteranceState.INTERRUPTED)
    used = Conversation.objects.filter(pk=conversation_id).values_list("tts_characters_used", flat=True)
    return used.first() or 0


def end_abandoned(now: datetime | None = None) -> int:
    """Ends conversations that were not resumed for 30 minutes and returns how many.

    Their end time is the time when they were last seen.
    """
    abandoned = Conversation.objects.abandoned(now or timezone.now())
    with transaction.atomic():
        Utterance.objects.filter(conversation__in=abandoned).interrupt_unfinished()
        return abandoned.update(ended_at=F("seen_at"))


def heartbeat(conversation_ids: list[uuid.UUID]) -> None:
    """Records that these conversations have a live connection now."""
    Conversation.objects.unfinished().filter(pk__in=conversation_ids).update(seen_at=timezone.now())


def current_devices(conversation_ids: list[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID | None]:
    """Returns the device of each conversation, which is the one that started or resumed it last."""
    return dict(Conversation.objects.filter(pk__in=conversation_ids).values_list("pk", "device_id"))


def with_withdrawn_voice(conversation_ids: list[uuid.UUID]) -> list[uuid.UUID]:
    """Returns the conversations whose voice was withdrawn."""
    affected = Conversation.objects.filter(pk__in=conversation_ids, voice__state=Voice.State.WITHDRAWN)
    return list(affected.values_list("pk", flat=True))


def add_reconciled_characters(new: Mapping[uuid.UUID, int]) -> None:
    """Adds characters found by reconciliation to conversations that are still resumable.

    Ended conversations are not changed (docs/protocol.md, rule 9).
    """
    Conversation.objects.resumable(timezone.now()).add_characters(new)


def switch_to_default_voice(context: Context) -> Context:
    """Continues the conversation in the default voice (docs/protocol.md, rule 10)."""
    default = Voice.objects.default()
    Conversation.objects.filter(pk=context.conversation_id).update(voice=default, voice_source="default")
    speech_settings = replace(context.speech_settings, voice=VoiceRef.from_voice(default))
    return replace(context, speech_settings=speech_settings, backup_settings=speech_settings, voice_source="default")


def resolve_voice(patient: Patient) -> tuple[Voice, str]:
    """Returns the voice for a new conversation of this patient, and its kind: cloned, selected or default."""
    voice = patient.voice
    if voice is None or not voice.is_usable:
        return Voice.objects.default(), "default"
    return voice, "cloned" if voice.source == Voice.Source.CLONED else "selected"


def _build_context(conversation: Conversation, patient: Patient) -> Context:
    phrases = list(Phrase.objects.for_language(patient.language))
    of_kind = {phrase.kind: phrase.text for phrase in phrases}
    greeting = of_kind.get(Phrase.Kind.GREETING)
    speech_settings = SpeechSettings(
        voice=VoiceRef.from_voice(conversation.voice),
        model=settings.ELEVENLABS_MODEL_ID,
        language=patient.language.partition("-")[0].lower(),
        speed=float(patient.speech_rate),
        format=conversation.format,
    )
    return Context(
        conversation_id=conversation.id,
        patient_id=patient.id,
        companion_name=patient.companion_name,
        speech_settings=speech_settings,
        backup_settings=replace(speech_settings, voice=VoiceRef.from_voice(Voice.objects.default())),
        voice_source=conversation.voice_source,
        initiated_by=conversation.initiated,
        phrases=frozenset(normalise(phrase.text) for phrase in phrases if phrase.kind != Phrase.Kind.GREETING),
        greeting=None if greeting is None else render_greeting(greeting, patient),
        hold_message=of_kind.get(Phrase.Kind.HOLD_MESSAGE),
        has_budget=patient.monthly_character_budget is not None,
    )


def render_greeting(template: str, patient: Patient) -> str:
    """Replaces the two placeholders. Does not use `str.format`, because a name may contain braces."""
    names = {"{patient_name}": patient.form_of_address, "{ai_name}": patient.companion_name}
    return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], template)
