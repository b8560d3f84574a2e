"""The admin pages of this app.

`conversations` are conversations and messages (utterances), `phrases` the phrases and their cache coverage, `clips` the
cached audio. Only phrases can be edited.
"""

from tts.admin import clips, conversations, phrases

__all__ = ["clips", "conversations", "phrases"]
