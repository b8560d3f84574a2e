"""Incidents about the default voice and about voices that end.

`default_voice` reports that the default voice was replaced or that there is none. `ending` looks ahead: it reports
voices in use that will end, proposes their successors, and gives patients the successor on the day.
"""
