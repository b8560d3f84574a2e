"""The built-in provider: an imitation of the ElevenLabs API on this machine, for use without an account.

It speaks really, keeps the provider's shapes, errors, limits and accounting, and can be told to break in every way the
provider can (`faults.py`, `/sandbox/faults`). It needs no Django: `server.serve()` runs it, `manage.py sandbox` is one
door to it.
"""
