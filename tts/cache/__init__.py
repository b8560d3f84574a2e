"""The phrase cache: audio of phrases that are spoken often, kept for seven days (docs/protocol.md, rule 2).

A clip is the audio of one text in one voice, speed, language and format. `PhraseCache` (`phrase_cache`) finds and
stores clips. `SingleFlight` (`single_flight`) lets concurrent requests for the same clip share one request to the
provider. `planning` decides which clips are needed, `warmer` generates them in the background, `removal` deletes clips
that may not be played, and `coverage` counts them for the admin.

May import `tts.resilience`, `tts.conversations`, `tts.text`, `tts.models`, `usage` and `voicecare`, but neither
`tts.synthesis` nor `tts.devices`.
"""
