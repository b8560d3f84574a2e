"""The usage ledger.

`events` records attempts (`Attempt`, `record_attempts`, `resolve_unknown`). `rollup` maintains their daily totals and
rebuilds them. `journal` keeps the attempts of a process on disk until they are recorded. May import usage.models and
the shared packages of voicecare.
"""
