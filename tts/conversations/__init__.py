"""Conversations between a patient and the companion.

`lifecycle` starts, resumes, switches and ends them in the database. `Context` (`context`) is the frozen result: all
that the speech pipeline needs, so that it needs no database query. `SpeechSettings` and `VoiceRef` (`voice`) describe
how a text sounds.

May import `tts.text`, `tts.models`, `tts.states` and `voicecare`.
"""
