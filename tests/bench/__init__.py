"""What the server adds to the provider, measured beside the least that could stand in its place.

`python -m tests.bench` (or `make bench`) runs it; `docs/performance.md` says how to read what it prints. It is not a
test: nothing here passes or fails, and pytest never runs it.
"""
