"""Connected devices, with their I/O.

`connection.Connection` drives one socket from accept to close. Its `player` plays one speech after the other to an
`output`, which sends frames through a `transport`. `outbox_client` and `prefetch` fetch deliveries for it. The
`registry` holds all connections of this process. `client.DeviceClient` is a device itself, for tools and tests.

The package may import all of `tts` except `tts.api`, `tts.consumers` and `tts.runtime`.
"""
