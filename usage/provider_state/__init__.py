"""The state of the speech provider that all processes share in one row.

`circuit` has the state of the circuit and reads the row, `quota` has the transitions of the quota, `access` whether the
API key is accepted, and `thresholds` the early warnings about credits. May import usage.alerts, usage.ledger,
usage.budgets, usage.reports, usage.models and the shared packages of voicecare.
"""
