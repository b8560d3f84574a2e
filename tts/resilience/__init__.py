"""Speech requests to a provider that can fail: when to send a request, and what a failure means.

`speech_gateway` sends every speech request. `concurrency` limits how many requests run at the same time.
`circuit_breaker` knows whether the provider is down, `quota_gate` whether the quota is exhausted. Both are copies
(`cached_state`) of one database row, which `state_watcher` polls. `outage_detector` distinguishes an outage from a text
that cannot be spoken. `retry_policy` is the table of the fallback chain. `error_reporter` opens incidents.

May import recorder, speech, text and conversations of tts, and usage, but neither cache nor synthesis.
"""
