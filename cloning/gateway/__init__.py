"""Calls to the provider for voice clones, and how their failures are explained to clinicians.

`provider_voices` finds, creates and deletes voices. `plan_limits` compares the use of the account with the limits of
its plan. `previews` reads the published sample of a voice. `failures` has one message per failure code. This package
may import cloning.models, cloning.samples, usage.alerts, usage.provider_state, and the core, audio, providers and
patients packages of voicecare.
"""
