"""The admin pages of this app.

`conversations` are conversations and messages (utterances), `phrases` the phrases and their cache coverage, `clips` the
cached audio, and `lexicon` the pronunciations. Only phrases and pronunciations can be edited.
"""

from tts.admin import clips, conversations, lexicon, phrases

__all__ = ["clips", "conversations", "lexicon", "phrases"]
