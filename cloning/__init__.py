"""Voice clones: people upload recordings with their consent, and the provider creates voices from these recordings.

The voice and its data are removed when the consent ends.

Sub-packages: `samples` (inspection of recordings), `gateway` (calls to the provider), `consent` (withdrawal, erasure,
retention), `jobs` (from upload to voice), `voices` (comparison with the provider) and `api` (REST). This app imports
voicecare and usage.alerts. It never imports tts.
"""
