"""Contexts and speeches for tests that need no database."""

import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from tts.conversations.context import Context, OpenConversation
from tts.conversations.voice import SpeechSettings, VoiceRef
from tts.protocol.session import Session
from tts.speech import Speech, SpeechProgress
from tts.text.stream import TextStream

OWN_VOICE = VoiceRef(uuid.uuid4(), "OWNvoice", "Rachel", 1)
DEFAULT_VOICE = VoiceRef(uuid.uuid4(), "DEFAULTvoice", "Default", 1)
RENDERING = SpeechSettings(OWN_VOICE, model="eleven_flash_v2_5", language="en", speed=1.0, format="mp3_44100_128")
CONTEXT = Context(
    conversation_id=uuid.uuid4(),
    patient_id=uuid.uuid4(),
    companion_name="Clara",
    speech_settings=RENDERING,
    backup_settings=replace(RENDERING, voice=DEFAULT_VOICE),
    voice_source="selected",
    initiated_by="device",
    phrases=frozenset(),
    greeting="Hello Alice, this is Clara.",
)


def new_session(characters_per_minute: int = 100) -> Session:
    return Session(characters_per_minute, new_id=uuid.uuid4, utc_now=partial(datetime.now, UTC))


def opened(*, used_ids: frozenset[str] = frozenset(), characters: int = 0, **changes: object) -> OpenConversation:
    """Return a new open conversation, as the database would open it."""
    return OpenConversation(replace(CONTEXT, conversation_id=uuid.uuid4(), **changes), used_ids, characters)


def speech(speech_id: str = "s1", text: str = "How are you?", *, origin: str = "device", **changes: object) -> Speech:
    """`changes` are fields of `Speech` or of its `SpeechProgress`."""
    steps = {name: changes.pop(name) for name in list(changes) if name in SpeechProgress.__dataclass_fields__}
    request = {"conversation_id": uuid.uuid4(), "patient_id": uuid.uuid4(), "utterance_id": uuid.uuid4(), **changes}
    return Speech(
        speech_id,
        TextStream(text, complete=True),
        origin,
        received_at=datetime.now(UTC),
        progress=SpeechProgress(**{"received_at_monotonic": time.monotonic(), **steps}),
        **request,
    )
