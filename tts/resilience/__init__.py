"""Calling a provider that fails: when to send a request, and what a failure means.

`speech_gateway` sends every speech request. `concurrency` limits how many run at the same time. `circuit_breaker` and
`quota_gate` know whether the provider is down or the quota exhausted; both are copies (`cached_state`) of one database
row, which `state_watcher` polls. `retry_policy` is the table of the fallback chain. `error_reporter` opens incidents.

May import recorder, speech, text and conversations of tts, and usage, but neither cache nor synthesis.
"""
