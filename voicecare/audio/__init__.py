"""Audio formats and encoders. Used by the offline voice, the phrase cache and the device output.

`formats` names the output formats of the provider. `encoders.Encoder` turns PCM into one of them. `framing.FramePadder`
completes a stream that was cut in the middle of a frame. All audio is mono. PCM is signed 16 bit, little-endian.
This package imports nothing else of ours.
"""
