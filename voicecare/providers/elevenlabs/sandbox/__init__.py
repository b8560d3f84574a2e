"""The sandbox: an imitation of the ElevenLabs API on this machine, for use without an account.

It makes real speech with espeak-ng, and has the provider's response formats, errors, limits and accounting. Failures
can be simulated by faults (`faults`, `/sandbox/faults`) or by a named scenario (`scenarios`). `manage.py sandbox` calls
`server.serve()`, which runs the sandbox without Django. `api` has the endpoints that the provider has, `control` the
additional ones under `/sandbox/`, and `account` the state of the imitated account. This package may import
`voicecare.audio` and `voicecare.providers.espeak`.
"""
