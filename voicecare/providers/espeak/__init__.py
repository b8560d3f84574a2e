"""The offline voice: espeak-ng in a worker process, used when the provider cannot speak.

`client.OfflineSynthesizer` starts the worker and streams audio from it. `worker` is the program of that process, with
`engine` (the library), `text` (preparation of texts) and `messages` (the protocol between the two processes).
The worker is a separate process, because espeak-ng has global state, can crash on unusual text, and is under the GPL.
This package may import `voicecare.audio` and `voicecare.core`.
"""
