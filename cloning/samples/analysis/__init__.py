"""Measurements of the sound of a recording: `speech` (when somebody speaks), `noise`, and `voices` (other speakers).

Their input is mono sound at 16 kHz as floats, filtered with `noise.high_passed`. `voiceprints` compares voices. It and
`voices` use the neural networks in the folder `models`, which `networks` loads. The only libraries that this package
loads are numpy and onnxruntime.
"""
