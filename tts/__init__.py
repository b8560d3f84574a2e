"""Conversations and speech: from a text of a device or clinician to audio on the device.

`devices` connects devices, `protocol` defines their messages, and `api` is the REST interface. `synthesis` turns text
into audio. It uses `cache`, the phrase cache, and `resilience`, which handles failures of the provider. `outbox` keeps
queued speech, `conversations` starts and ends conversations, and `text` splits text into segments. `runtime` builds the
parts of a server process. May import the parts of `usage` that other apps may use, and `voicecare`.
"""
