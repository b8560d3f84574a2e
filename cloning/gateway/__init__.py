"""Calls to the provider for voice clones, and how their failures are explained to clinicians.

`provider_voices` finds, creates and deletes voices. `plan_limits` reads the limits of the account. `failures` has one
message per failure code. This package may import cloning.models, cloning.samples,
usage.alerts, and the core, audio, providers and patients packages of voicecare.
"""
