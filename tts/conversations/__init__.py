"""Conversations between a patient and the companion, the program that talks with the patient.

`lifecycle` starts, resumes, switches and ends conversations in the database. Its result is an immutable `Context`
(`context`) with everything that the speech pipeline needs, so that the pipeline makes no database query.
`SpeechSettings` and `VoiceRef` (`voice`) describe how a text sounds. `retention` clears old texts and deletes the data
of erased patients.

May import `tts.text`, `tts.models`, `tts.states`, `voicecare`, and, for the retention, `tts.outbox`.
"""
