"""Comparison of the voices in our database with the provider's list of voices.

`audit.audit_voices` finds lost and changed voices, restores those that exist again, and deletes duplicates.
`facts` copies what the provider says of its voices into our rows. `sync` reads the voices before the check is due.
`additions` adds a stock voice by its id at the provider.
This package imports all other parts of cloning except `api`.
"""
