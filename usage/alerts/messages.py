"""What administrators are told of an incident, in plain words: what happened, what patients hear, what to do."""

from typing import NamedTuple

from usage.models import Incident

Kind = Incident.Kind


class IncidentMessage(NamedTuple):
    summary: str
    patient_impact: str
    action: str
    resolved: str


_MESSAGES = {
    Kind.QUOTA: IncidentMessage(
        "The speech provider's credits are used up.",
        "Known phrases play as ever. For the first minute a patient's companion waits; after that, what it says in "
        "conversation is spoken in the offline voice. What the server starts waits for the credits.",
        "Buy credits or raise the plan's limit at the provider. That is noticed by itself; what waits is then spoken.",
        "The speech provider has credits again. Companions speak in their own voices, and what waited is being spoken.",
    ),
    Kind.PROVIDER_DOWN: IncidentMessage(
        "The speech provider does not answer, or answers with faults of its own.",
        "Known phrases play as ever; everything else is spoken in the offline voice.",
        "Look at the provider's status page and at this server's way to the internet. Its return is noticed by itself.",
        "The speech provider answers again. Companions speak in their own voices.",
    ),
    Kind.ACCESS: IncidentMessage(
        "The speech provider refuses our key, plan or permission.",
        "Known phrases play as ever; everything else is spoken in the offline voice.",
        "Check ELEVENLABS_API_KEY, its permissions and the plan. Then resolve the incident in the admin.",
        "The trouble with the speech provider's key, plan or permission is marked as resolved.",
    ),
    Kind.REQUEST: IncidentMessage(
        "The speech provider refuses a request of this server as wrong: most likely a defect of the software.",
        "What was refused is spoken in the offline voice.",
        "Give the detail below to who maintains this server. Then resolve the incident in the admin.",
        "The trouble with refused requests is marked as resolved.",
    ),
    Kind.VOICE: IncidentMessage(
        "A voice is gone at the speech provider, or may not be used.",
        "Patients who were to hear it hear the default voice.",
        "Look at the voices in the admin: choose another one for those patients, or make it anew. Then resolve the "
        "incident in the admin.",
        "The trouble with a voice is marked as resolved.",
    ),
    Kind.NO_VOICE: IncidentMessage(
        "A patient heard nothing: neither the speech provider nor the offline voice could speak.",
        "Silence, where something was to be said.",
        "Look at this server's memory, load and log (speech.no_voice). Then resolve the incident in the admin.",
        "The trouble with the offline voice is marked as resolved.",
    ),
    Kind.VOICE_SLOTS: IncidentMessage(
        "The account at the speech provider has hardly room for another voice.",
        "The same as ever. New copies of voices cannot be made once there is no room left.",
        "Withdraw copies that nobody needs any more, or raise the plan at the provider. That is noticed by itself.",
        "The account at the speech provider has room for new voices again.",
    ),
    Kind.QUOTA_LOW: IncidentMessage(
        "The speech provider's credits are running low: the detail below says how many are used.",
        "The same as ever, until they are used up: then known phrases and the offline voice.",
        "Buy credits or raise the plan's limit at the provider. That is noticed by itself.",
        "The speech provider has enough credits again.",
    ),
    Kind.FORECAST: IncidentMessage(
        "At the rate of the last seven days the speech provider's credits will not last to the end of the period.",
        "The same as ever, until they are used up: then known phrases and the offline voice.",
        "Look at the dashboard for who uses most. Buy credits, raise the plan's limit, or give patients a budget.",
        "The speech provider's credits will last to the end of the period.",
    ),
    Kind.SLOW: IncidentMessage(
        "Speech begins late: for ten minutes one in twenty speeches took more than half a second to its first sound.",
        "A pause before their companion answers.",
        "Look at the provider's status page, this server's load, and its way to the internet. Its end is noticed by "
        "itself.",
        "Speech begins in time again.",
    ),
    Kind.BUDGET: IncidentMessage(
        "A patient's monthly budget of characters is used up.",
        "Known phrases play as ever; everything else is not spoken until the month ends or the budget is raised.",
        "Raise the patient's budget in the admin, or leave it as it is: the next month begins anew by itself.",
        "The patient's budget has room again.",
    ),
    Kind.DRIFT: IncidentMessage(
        "The ledger and the provider's own figures differ by more than one per cent.",
        "The same as ever: this is about money.",
        "Look at the reconciliations in the admin: they say which day, by how much, and what may explain it. Then "
        "resolve the incident there.",
        "The difference between the ledger and the provider's figures is marked as resolved.",
    ),
    Kind.SILENT: IncidentMessage(
        "A part of this server gives no sign of life.",
        "The same as ever for now: speech does not need it. Copied voices, warm phrases and repeated alerts do.",
        "Start the process that the detail below names again (Procfile), and look at its log. Its return is noticed by "
        "itself.",
        "The silent part of this server gives signs of life again.",
    ),
    Kind.ALERTS: IncidentMessage(
        "Alerts cannot be sent, by one way at least.",
        "The same as ever: but nobody is told of trouble that way.",
        "Check ADMIN_EMAILS, EMAIL_URL and ALERT_WEBHOOK_URL, and who receives there. Its return is noticed by itself.",
        "Alerts are being sent again.",
    ),
}


def subject(incident: Incident, state: str) -> str:
    what = incident.get_kind_display()
    return f"voicecare: {what}" if state == "opened" else f"voicecare: over: {what}"


def message_for(incident: Incident) -> IncidentMessage:
    """The alert's, and those of the incident's page in the admin."""
    return _MESSAGES[Kind(incident.kind)]


def body(incident: Incident, state: str) -> str:
    said = message_for(incident)
    opened = f"{incident.opened_at:%Y-%m-%d %H:%M:%S} UTC"
    if state == "opened":
        detail = f"\n\nSince {opened}. {incident.detail}".rstrip()
        return f"{said.summary}\n\nWhat patients hear: {said.patient_impact}\n\nWhat to do: {said.action}{detail}"
    return f"{said.resolved}\n\nIt began {opened} and was over {incident.resolved_at:%Y-%m-%d %H:%M:%S} UTC."
