"""What an entry of the lexicon must be, and what follows a change of one. The admin and REST use it."""

from django.core.exceptions import ValidationError

from tts.text.speakable import is_speakable
from tts.text.tags import strip_tags
from voicecare.core import task_names, task_queue

ONE_SCOPE = "Choose a clinic or a patient, not both."
TAKEN = "There is an entry for this word already. Change that one."


def clean_written(text: str) -> str:
    """Return the written form in one line. It begins with a letter or digit, because whole words are replaced.

    Raises ValidationError with the code `no_word` or `markup`.
    """
    written = " ".join(text.split())
    if not written[:1].isalnum():
        raise ValidationError("It must begin with a letter or a digit.", code="no_word")
    return _without_signs(written)


def clean_spoken(text: str) -> str:
    """Return the spoken form in one line. It has something to say.

    Raises ValidationError with the code `no_sound` or `markup`.
    """
    spoken = " ".join(text.split())
    if not is_speakable(spoken):
        raise ValidationError("It must have a letter or a digit.", code="no_sound")
    return _without_signs(spoken)


def _without_signs(text: str) -> str:
    """Return the text. Raises ValidationError if it could be markup or an audio tag."""
    if set(text) & set("<>[]*_`|#") or strip_tags(text) != text:
        raise ValidationError("The signs < > [ ] * _ ` | and # are not allowed.", code="markup")
    return text


def renew_audio() -> None:
    """Have the worker generate the clips whose texts are said differently now, and delete the outdated ones."""
    task_queue.enqueue_on_commit(task_names.WARM_DUE)
    task_queue.enqueue_on_commit(task_names.REMOVE_AUDIO)
