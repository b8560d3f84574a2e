"""The offline voice: espeak-ng in a worker process, used when the provider cannot speak.

`client.OfflineSynthesizer` starts the worker and streams audio from it. `worker` is the program of that process, with
`engine` (the library) and `messages` (the protocol between the two processes). `markup` removes markup from a text,
`readability` decides which words espeak can read, and `text` removes single characters and splits texts. The worker is
a separate process, because espeak-ng has global state, can crash on unusual text, and is under the GPL. This package
may import `voicecare.audio` and `voicecare.core`.
"""
