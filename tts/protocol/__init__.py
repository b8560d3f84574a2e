"""The device protocol without I/O: frames in, commands out (docs/protocol.md).

`session.Session` decides what one device socket may do and returns `commands`. `messages` reads and builds JSON frames.
`queue`, `text_assembler` and `rate_limit` hold the state of a session. `heartbeat` decides when a device is pinged and
when it counts as gone. `handshake` reads the ASGI scope, and `refusals` has the reasons to refuse it.

The package imports no ORM, no socket and no task: only `tts.speech`, `tts.states`, `tts.text`, the conversation's
context and the list of audio formats.
"""
