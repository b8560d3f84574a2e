"""The ElevenLabs API. `client.SpeechClient` streams speech (async), `account.AccountClient` does the rest (sync).

`requests` describes the requests, `responses` parses the responses of the account, `error_mapping` turns an error
response into an exception, and `plans` knows the concurrency limits. `sandbox` imitates the API for use without an
account. This package may import `voicecare.audio`, `voicecare.core` and `voicecare.providers.errors`; the sandbox also
`voicecare.providers.espeak`.
"""
