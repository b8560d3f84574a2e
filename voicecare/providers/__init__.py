"""Sources of speech: `elevenlabs`, the provider, and `espeak`, the offline voice of this server.

`errors` has the exceptions for failed calls to the provider. This package may import `voicecare.audio` and
`voicecare.core`. Only `elevenlabs.credentials` reads Django's settings. The callers of all other modules pass the
values as arguments.
"""
