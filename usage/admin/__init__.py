"""The admin pages of usage, prices, notification channels, the provider's state and incidents, one module for each.

All are read-only, except for prices and notification channels, and for the actions on incidents.
`voicecare.admin.overview` registers the pages of `incidents`, whose filters are in `incident_filters`.
"""

from usage.admin import history, ledger, notifications, prices, provider_state, reconciliations

__all__ = ["history", "ledger", "notifications", "prices", "provider_state", "reconciliations"]
