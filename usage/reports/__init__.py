"""Figures for the dashboard and the REST API.

`queries` reads usage and latency from the daily totals. `statement` has the figures of a whole month. `forecast`
calculates whether the credits last until the reset. May import usage.ledger, usage.alerts, usage.prices, usage.models
and the shared packages of voicecare.
"""
