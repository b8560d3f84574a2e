"""The sandbox: an imitation of the ElevenLabs API on this machine, for use without an account.

It makes real speech with espeak-ng and has the provider's response formats, errors, limits and accounting. Faults can
be injected (`faults`, `/sandbox/faults`) or chosen by name (`scenarios`). `manage.py sandbox` calls `server.serve()`,
which runs the sandbox without Django.
`api` has the endpoints of the provider, `control` our own under `/sandbox/`, and `account` the state behind them.
It may import `voicecare.audio` and `voicecare.providers.espeak`.
"""
