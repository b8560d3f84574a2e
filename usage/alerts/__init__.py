"""Incidents and the alerts about them.

`incidents` opens and resolves an incident. `dispatcher` sends its alerts by the `channels` of the settings, with the
text of `messages`. `notifications` sends them through the channels that administrators have entered, and `severity`
says how urgent each kind is. `latency` detects slow speech, `heartbeats` missing background processes,
`periodic_tasks` tasks that keep failing, and `lost_voices` voices that the provider no longer has. `impact` lists the
affected patients for the admin.
May import usage.models and the shared packages of voicecare, no other part of usage.
"""
