"""Connected devices, with their I/O.

`connection.Connection` serves one socket from its acceptance to its end. Its `player` plays one speech after the other
to an `output`, which sends frames through a `transport`. `refusing` refuses handshakes. `close_reasons` tells a device
why its handshake is refused or its socket closed. `outbox_client` and `prefetch` get queued speech from the outbox for
the player. The `registry` holds all connections of this process. The other end of the socket, a device, is a package of
its own: clients/python.

The package may import all of `tts` except `tts.api`, `tts.consumers` and `tts.runtime`.
"""
