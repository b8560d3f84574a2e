"""Figures for the dashboard and the REST API.

`queries` reads usage and latency from the daily totals. `forecast` calculates whether the credits last until the
reset. May import usage.ledger, usage.alerts, usage.models and the shared packages of voicecare.
"""
