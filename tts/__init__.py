"""Conversations and speech: from a text of a device or clinician to audio on the device.

`devices` connects devices, `protocol` defines their messages, and `api` is the REST interface. `synthesis` turns text
into audio with the help of `cache` (the phrase cache) and `resilience` (calling a provider that fails). `outbox` keeps
queued speech, `conversations` the facts of a conversation, and `text` splits text into segments. `runtime` builds the
parts of a server process. May import the parts of `usage` that other apps may use, and `voicecare`.
"""
