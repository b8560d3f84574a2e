"""Reconciliation of the ledger with the provider's figures.

`reconciler` finds the days that are due (`reconcile`, `reconcile_day`). `provider_usage` reads the provider's figures,
`matching` matches unknown attempts with its history, `comparison` compares a day, and `explanation` describes the
difference. May import all of usage except its api, admin and tasks.
"""
