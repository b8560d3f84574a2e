"""Usage of the speech provider, the provider's state, and incidents.

`ledger` has what was requested and billed, `money` prices and budgets, `provider_state` the provider's state,
`processes` the state of background processes, `incident` the incidents, `notification` who is told about them,
`history` what the provider keeps of our requests. Some
fields keep an older column name (`db_column`), because old and new processes run at the same time during a deploy.
"""

from usage.models.history import HistoryDeletion, RetentionCheck
from usage.models.incident import Incident, IncidentEvent
from usage.models.ledger import NO_ID, DailyUsage, Reconciliation, UsageEvent
from usage.models.money import BudgetMonth, ClinicBudget, DigestMail, Price, StatementMail
from usage.models.notification import ChannelAlert, NotificationChannel
from usage.models.processes import Heartbeat, TaskFailure
from usage.models.provider_state import ProviderState

__all__ = [
    "NO_ID",
    "BudgetMonth",
    "ChannelAlert",
    "ClinicBudget",
    "DailyUsage",
    "DigestMail",
    "Heartbeat",
    "HistoryDeletion",
    "Incident",
    "IncidentEvent",
    "NotificationChannel",
    "Price",
    "ProviderState",
    "Reconciliation",
    "RetentionCheck",
    "StatementMail",
    "TaskFailure",
    "UsageEvent",
]
