"""The audit trail: who did what, when and from where, and who read the texts and recordings of which patient.

`recording.record` writes an entry in the transaction of the change. `changes` says what may be stored of a change.
`retention` deletes old entries. This package imports `voicecare.core` only. The page of the admin is
`voicecare.admin.overview.audit`.
"""
