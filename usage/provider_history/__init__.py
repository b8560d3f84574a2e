"""Deletes our requests from the provider's history, after the erasure of a patient or the withdrawal of a voice clone.

`deletion` has the tasks. Their rows (`HistoryDeletion`) are written by those who erase and withdraw.
"""
