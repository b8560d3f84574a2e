"""Sources of speech: `elevenlabs`, the provider, and `espeak`, the offline voice of this server.

`errors` has the exceptions that the calls to the provider raise. This package may import `voicecare.audio` and
`voicecare.core`. It does not read Django's settings: callers pass all values in.
"""
