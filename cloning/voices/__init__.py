"""Comparison of our voices with the list of the provider.

`audit.audit_voices` finds lost and changed voices and deletes duplicates. `sync.sync_stock_voices` copies the stock
voices of the provider into our database. This package imports all other parts of cloning except `api`.
"""
