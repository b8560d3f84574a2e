"""Usage of the speech provider: billed characters and credits, the quota, budgets of patients, and incidents.

`prices` has the cost of usage. `ledger` records attempts and daily totals. `reports` reads figures from them. `budgets`
limits patients by month. `provider_state` is the shared state of the provider's circuit and quota. `alerts` opens
incidents and sends alerts. `reconciliation` compares the ledger with the provider's figures. This app never
imports `tts` or `cloning`. They may import `ledger`, `alerts`, `provider_state` and `budgets` (tests/test_layers.py).
"""
