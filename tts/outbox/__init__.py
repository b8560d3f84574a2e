"""The outbox: speech that waits in the database until a device can play it.

`store` submits, claims and finishes rows of `tts.models.Utterance`. `leases` records which connection owns a row and
for how long. `deferred` guards speech that also waits in the memory of a connection. `claim.Claim` is one attempt to
deliver a row.

All functions use the database and must run in a thread. The package imports `tts.models`, `tts.states` and the shared
packages of `voicecare`. `claim` imports no ORM.
"""
