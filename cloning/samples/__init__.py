"""Inspection of recordings: format, sound quality, and whether a recording can become a voice clone.

`inspection.inspect_sample` starts `worker` as a child process. For an acceptable recording it returns the measurements
and the file for the provider. For any other it raises `acceptance.SampleRefused`. `worker` and the modules that it
imports (`formats`, `decoding`, `mixing`, `repair`, `conversion`, `quality`, `analysis`, `measurements`) load neither
Django nor Celery, so that the child process starts fast. This package imports voicecare.core and voicecare.audio only.
"""
