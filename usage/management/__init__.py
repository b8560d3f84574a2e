"""The management command of usage: `rebuild_usage` builds the daily sums again from the ledger's events."""
