"""Clients of the ElevenLabs API.

`client.SpeechClient` streams speech (async), `account.AccountClient` does all else (sync).

`requests` makes the speech request, `responses` parses the responses of the account, `error_mapping` makes an exception
from an error response, `credentials` has the API key, `plans` the concurrency limits, `languages` the language codes of
the models. `sandbox` imitates the API for use without an account. This package may import `voicecare.audio`,
`voicecare.core` and `voicecare.providers.errors`. The sandbox may also import `voicecare.providers.espeak`.
"""
