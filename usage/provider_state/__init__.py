"""The state of the speech provider that all processes share in one row.

`circuit` has the circuit breaker's state and `read_status`, `quota` the transitions of the quota, `thresholds` the
early warnings. May import usage.alerts, usage.ledger, usage.budgets, usage.reports, usage.models and the shared
packages of voicecare.
"""
