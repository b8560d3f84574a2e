"""Incidents and the alerts about them.

`incidents` opens and resolves an incident. `dispatcher` sends its alerts through `channels`, with the text of
`messages`. `latency` and `heartbeats` detect slow speech and missing background processes. `impact` lists the affected
patients for the admin. May import usage.models and the shared packages of voicecare, no other part of usage.
"""
