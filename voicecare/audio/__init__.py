"""Audio formats, encoders and checks, for the offline voice and for audio from the provider.

`formats` names the output formats of the provider. `encoders.Encoder` encodes PCM in one of them. `received` checks the
first bytes of the provider's audio and removes tags. `framing.whole_frames` completes a stream that ends in the middle
of a frame. `ogg` joins the streams of Opus. All audio is mono. PCM is signed 16 bit, little-endian.
This package imports no other package of this project.
"""
