"""Inspection of recordings: format, sound quality, and whether a recording can become a voice clone.

`inspection.inspect_sample` runs `worker` in a child process and returns an `acceptance.Report` or raises
`acceptance.SampleRefused`. `worker` and the modules that it imports (`formats`, `decoding`, `mixing`, `quality`,
`measurements`) load neither Django nor Celery. This package imports voicecare.core and voicecare.audio only.
"""
