"""Gives running conversations another voice when theirs, or their backup voice, cannot be used any longer.

The registry of each process looks for such conversations every second. All conversations of a process take a few
queries together (docs/protocol.md, rule 10).
"""

import uuid
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace

from tts.conversations.context import Context
from tts.conversations.lifecycle import PATIENT_VOICES, has_lost_voice, resolve_voice
from tts.conversations.voice import VoiceRef
from tts.models import Conversation
from voicecare.patients.models import DefaultVoices, Voice


@dataclass(frozen=True, slots=True)
class UnreliableVoices:
    """Ids of voices. `lost` cannot be used at all. `refused` also has those that cannot be a default or backup voice.

    A voice without a row is in both, so that `NO_VOICE` is replaced when there is a voice again. `usable` are those
    that can speak, also if they have ended.
    """

    usable: frozenset[uuid.UUID]
    lost: frozenset[uuid.UUID]
    refused: frozenset[uuid.UUID]

    def concern(self, context: Context) -> bool:
        """Whether the voice or the backup voice of this conversation has to be replaced.

        A conversation in which only the patient's own voice may speak keeps an ended voice. While its voice is lost, it
        looks again whether the patient has a voice.
        """
        voice = context.speech_settings.voice
        if context.own_voice_only:
            return (voice.id in self.lost and voice.id not in self.usable) or (
                voice.id in self.usable and voice.is_offline
            )
        spoken = self.refused if context.voice_source == "default" else self.lost
        return voice.id in spoken or context.backup_settings.voice.id in self.refused


@dataclass(frozen=True, slots=True)
class VoiceChoice:
    """The voices of a conversation from the next speech on. `source` is that of `conversation.started`."""

    voice: VoiceRef
    source: str
    backup: VoiceRef
    reserve: VoiceRef
    own_voice_only: bool

    def apply_to(self, context: Context) -> Context:
        return replace(
            context,
            speech_settings=replace(context.speech_settings, voice=self.voice),
            backup_settings=replace(context.backup_settings, voice=self.backup),
            reserve_voice=self.reserve,
            voice_source=self.source,
            own_voice_only=self.own_voice_only,
        )


def unreliable_voices(voice_ids: Collection[uuid.UUID]) -> UnreliableVoices:
    """Returns which of these voices cannot be used any longer. One query."""
    voices = list(Voice.objects.filter(pk__in=voice_ids))
    usable = frozenset(voice.pk for voice in voices if voice.is_usable)
    lasting = {voice.pk for voice in voices if voice.is_usable and not voice.has_ended}
    dependable = {voice.pk for voice in voices if voice.is_dependable}
    return UnreliableVoices(usable, frozenset(voice_ids) - lasting, frozenset(voice_ids) - dependable)


def choose_voices(conversation_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, VoiceChoice]:
    """Chooses the voices of these conversations as if they started now, and writes them.

    A voice that can still be used stays.
    """
    defaults = DefaultVoices()
    choices: dict[uuid.UUID, VoiceChoice] = {}
    changed: dict[tuple[Voice | None, str], list[uuid.UUID]] = defaultdict(list)
    conversations = Conversation.objects.filter(pk__in=conversation_ids)
    for conversation in conversations.select_related("voice", *PATIENT_VOICES):
        patient = conversation.patient
        voice, source = conversation.voice, conversation.voice_source
        if has_lost_voice(conversation):
            voice, source = resolve_voice(patient, defaults)
            changed[voice, source].append(conversation.pk)
        choices[conversation.pk] = VoiceChoice(
            VoiceRef.from_voice(voice),
            source,
            backup=VoiceRef.from_voice(defaults.backup_for(patient)),
            reserve=VoiceRef.from_voice(defaults.reserve_for(patient)),
            own_voice_only=patient.hears_own_voice_only,
        )
    for (voice, source), ids in changed.items():
        Conversation.objects.filter(pk__in=ids).update(voice=voice, voice_source=source)
    return choices
