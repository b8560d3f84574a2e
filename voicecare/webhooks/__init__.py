"""Webhooks for integrators: events about utterances, clones, voices and devices, posted to their own servers.

`events.emit` writes an event and its deliveries in the transaction of the change that it is about. `delivery.deliver`
sends what is due; a message to the worker starts it at once, and beat repeats it. `offline` finds the devices that have
been offline for long. The other apps use `events`, `models` and `offline` only. This package imports `voicecare.core`,
`voicecare.patients`, and, in `delivery`, `usage.alerts`. docs/webhooks.md is the contract.
"""
