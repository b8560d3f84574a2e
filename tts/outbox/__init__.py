"""The outbox: speech that waits in the database.

`store` submits, claims and finishes rows of `tts.models.Utterance`. `leases` says which connection owns a row and for
how long. `claim.Claim` is one attempt to deliver a row.

All functions use the database and must run in a thread. The package imports `tts.models`, `tts.states` and the shared
packages of `voicecare`. `claim` imports no ORM.
"""
