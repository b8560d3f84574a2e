"""Reconciliation of the ledger with the provider's figures.

`reconciler` finds the days that are due (`reconcile`, `reconcile_day`). `request_records` reads the provider's single
requests, `usage_calls` its sums, and both use `provider_usage`. `matching` matches unknown attempts with the requests,
`comparison` compares a `day`, and `explanation` describes the difference. May import all of usage except its api, admin
and tasks.
"""
