"""`python -m tests.chaos.soak --minutes 120`: hours of mixed load with failures. A command, not collected by pytest.

Two web processes, a worker, beat and the sandbox on PostgreSQL and Redis. Devices speak, stream texts, interrupt, hang
up, resume, and stop reading. Clinicians queue texts, listen to speech and upload recordings. Meanwhile requests fail,
the credits are exhausted and restored, and processes are suspended and killed.

At the end the command prints a table of what must hold, and exits with 1 if something does not. `devices` is the load,
`disturbances` are the failures, and `checks` is the table.
"""
