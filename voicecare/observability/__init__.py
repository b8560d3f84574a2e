"""Logs, error reports (Sentry) and traces (OpenTelemetry). None of them has a name, a text or a token.

`logs` is always on. `reports` and `traces` import their libraries only if their variable is set. This package imports
only `voicecare.core`, because the settings import it.
"""
