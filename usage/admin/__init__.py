"""The admin pages of usage, prices, the provider's state and incidents, one module for each subject.

All are read-only, except for prices, and for the actions on incidents. `voicecare.admin.overview` registers the pages
of `incidents`, whose filters are in `incident_filters`.
"""

from usage.admin import ledger, prices, provider_state, reconciliations

__all__ = ["ledger", "prices", "provider_state", "reconciliations"]
