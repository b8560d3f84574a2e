"""The text of alerts: what happened, what patients hear, what to do, and how an incident ended.

The incident's page in the admin shows the same text.
"""

from typing import NamedTuple

from usage.models import Incident

Kind = Incident.Kind


class IncidentMessage(NamedTuple):
    """`resolved` is the summary of an incident that has ended."""

    summary: str
    patient_impact: str
    action: str
    resolved: str


_MESSAGES = {
    Kind.QUOTA: IncidentMessage(
        "The speech provider's credits are exhausted.",
        "Cached phrases still play. During the first minute, the companion waits for credits. After that, its replies "
        "in a conversation are spoken in the offline voice. Speech that the server starts is queued until there are "
        "credits again.",
        "Buy credits or raise the plan's limit at the provider. New credits are detected automatically. Queued speech "
        "is then spoken.",
        "The speech provider has credits again. Companions speak in their own voices. Queued speech is being spoken.",
    ),
    Kind.PROVIDER_DOWN: IncidentMessage(
        "The speech provider does not answer, or answers with server errors.",
        "Cached phrases still play. Everything else is spoken in the offline voice.",
        "Check the provider's status page and this server's internet connection. Recovery is detected automatically.",
        "The speech provider answers again. Companions speak in their own voices.",
    ),
    Kind.ACCESS: IncidentMessage(
        "The speech provider rejects our API key, plan or permissions.",
        "Cached phrases still play. Everything else is spoken in the offline voice.",
        "Check ELEVENLABS_API_KEY, its permissions and the plan. Then resolve the incident in the admin.",
        "The problem with the speech provider's API key, plan or permissions is marked as resolved.",
    ),
    Kind.REQUEST: IncidentMessage(
        "The speech provider rejects a request of this server as invalid. This is most likely a software defect.",
        "Rejected requests are spoken in the offline voice.",
        "Send the details below to your technical support. Then resolve the incident in the admin.",
        "The problem with rejected requests is marked as resolved.",
    ),
    Kind.VOICE: IncidentMessage(
        "A voice was deleted at the speech provider, or we may not use it.",
        "Patients with this voice hear the default voice.",
        "Open the voices in the admin. Choose another voice for these patients, or clone the voice again. Then resolve "
        "the incident in the admin.",
        "The problem with a voice is marked as resolved.",
    ),
    Kind.NO_VOICE: IncidentMessage(
        "A patient heard nothing. Neither the speech provider nor the offline voice could speak.",
        "Silence instead of speech.",
        "Check this server's memory, load and log (speech.no_voice). Then resolve the incident in the admin.",
        "The problem with the offline voice is marked as resolved.",
    ),
    Kind.VOICE_SLOTS: IncidentMessage(
        "The ElevenLabs account is almost out of voice slots.",
        "No change. When no slot is free, no further voice can be cloned.",
        "Withdraw voice clones that are no longer needed, or raise the plan at the provider. Free slots are detected "
        "automatically.",
        "The ElevenLabs account has free voice slots again.",
    ),
    Kind.QUOTA_LOW: IncidentMessage(
        "The speech provider's credits are running low. The details below show how many are used.",
        "No change until the credits are exhausted. Then only cached phrases and the offline voice remain.",
        "Buy credits or raise the plan's limit at the provider. New credits are detected automatically.",
        "The speech provider has enough credits again.",
    ),
    Kind.FORECAST: IncidentMessage(
        "At the rate of the last seven days, the provider's credits will run out before the billing period ends.",
        "No change until the credits are exhausted. Then only cached phrases and the offline voice remain.",
        "Check the dashboard to see who uses most. Buy credits, raise the plan's limit, or give patients a budget.",
        "The speech provider's credits will last until the billing period ends.",
    ),
    Kind.SLOW: IncidentMessage(
        "High latency. In ten minutes, more than one in twenty speeches took over half a second to first audio.",
        "A pause before the companion answers.",
        "Check the provider's status page, this server's load and its internet connection. Recovery is detected "
        "automatically.",
        "Latency is normal again.",
    ),
    Kind.BUDGET: IncidentMessage(
        "A patient's monthly budget of characters is used up.",
        "Cached phrases still play. Nothing else is spoken until the month ends or the budget is raised.",
        "Raise the patient's budget in the admin, or wait. The budget resets automatically next month.",
        "Characters are available in the patient's budget again.",
    ),
    Kind.DRIFT: IncidentMessage(
        "The ledger and the provider's figures differ by more than one per cent.",
        "No change. This concerns billing only.",
        "Open the reconciliations in the admin. They show the day, the difference and possible explanations. Then "
        "resolve the incident there.",
        "The difference between the ledger and the provider's figures is marked as resolved.",
    ),
    Kind.SILENT: IncidentMessage(
        "A background process (worker or beat) is not running.",
        "No change for now. Live speech does not need this process. Voice cloning, the pre-generation of cached "
        "phrases and the retry of failed alerts do.",
        "Restart the process that the details below name (see Procfile) and check its log. Recovery is detected "
        "automatically.",
        "The background process is running again.",
    ),
    Kind.ALERTS: IncidentMessage(
        "At least one alert channel cannot send alerts.",
        "No change. Administrators get no alerts through this channel.",
        "Check ADMIN_EMAILS, EMAIL_URL and ALERT_WEBHOOK_URL, and their receivers. Recovery is detected automatically.",
        "Alerts are being sent again.",
    ),
}


def subject(incident: Incident, state: str) -> str:
    """Return the subject of the mail. `state` is "opened" or "resolved"."""
    kind = incident.get_kind_display()
    return f"voicecare: {kind}" if state == "opened" else f"voicecare: resolved: {kind}"


def message_for(incident: Incident) -> IncidentMessage:
    return _MESSAGES[Kind(incident.kind)]


def body(incident: Incident, state: str) -> str:
    """Return the text of the alert. `state` is "opened" or "resolved"."""
    message = message_for(incident)
    opened = f"{incident.opened_at:%Y-%m-%d %H:%M:%S} UTC"
    if state == "opened":
        detail = f"\n\nSince {opened}. {incident.detail}".rstrip()
        return (
            f"{message.summary}\n\nWhat patients hear: {message.patient_impact}\n\nWhat to do: {message.action}{detail}"
        )
    return f"{message.resolved}\n\nOpened {opened}, resolved {incident.resolved_at:%Y-%m-%d %H:%M:%S} UTC."
