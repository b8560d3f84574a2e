"""Voice clones: recordings come in with a consent, become voices at the provider, and are removed when consent ends.

Sub-packages: `samples` (inspection of recordings), `gateway` (calls to the provider), `consent` (withdrawal, erasure,
retention), `jobs` (from upload to voice), `voices` (comparison with the provider) and `api` (REST). This app imports
voicecare and usage.alerts. It never imports tts.
"""
