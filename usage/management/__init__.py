"""The management command of usage: `rebuild_usage` calculates the daily totals again from the ledger's events."""
