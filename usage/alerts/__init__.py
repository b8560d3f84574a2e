"""Incidents and the alerts about them.

`incidents` opens and resolves an incident. `dispatcher` sends its alerts through `channels`, with the text of
`messages`. `latency` detects slow speech, `heartbeats` missing background processes, `periodic_tasks` tasks that keep
failing, and `lost_voices` voices that the provider no longer has. `impact` lists the affected patients for the admin.
May import usage.models and the shared packages of voicecare, no other part of usage.
"""
