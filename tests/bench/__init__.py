"""Measures what the server adds to the provider's latency, compared with a minimal relay.

`python -m tests.bench` (or `make bench`) runs it. `docs/performance.md` explains the output. It is not a test: nothing
here passes or fails, and pytest never runs it.
"""
