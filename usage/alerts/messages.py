"""The text of alerts: what happened, what patients hear, what to do, and how an incident ended.

The incident's page in the admin shows the same text.
"""

from datetime import datetime
from typing import Literal, NamedTuple

from usage.models import Incident

AlertState = Literal["opened", "reminder", "resolved"]
"""What an alert reports. A reminder is sent when the mute of an incident ends and the incident does not."""

Kind = Incident.Kind

TEST_SUBJECT = "voicecare: test alert"
TEST_ALERT = "This is a test alert of voicecare. Nothing is wrong. Alerts about incidents will arrive in the same way."


class IncidentMessage(NamedTuple):
    """The texts about one kind of incident.

    `resolved` replaces the summary when the server has detected the end. It says no more than what the server detects.
    """

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
        "Cached phrases still play. While it does not answer, everything else is spoken in the offline voice. After "
        "repeated outages, the incident stays open until the provider has answered for five minutes.",
        "Check the provider's status page and this server's internet connection. Recovery is detected automatically.",
        "The speech provider answers again. Companions speak in their own voices.",
    ),
    Kind.ACCESS: IncidentMessage(
        "The speech provider rejects our API key, plan or permissions.",
        "Cached phrases still play. Everything else is spoken in the offline voice. If the key belongs to another "
        "workspace, patients with a voice of this one hear the default voice, or else the offline voice.",
        "Check ELEVENLABS_API_KEY or its file, its workspace, its permissions and the plan. Recovery is detected "
        "automatically. If only voice clones were refused, mark the incident as resolved in the admin.",
        "The speech provider accepts our API key again.",
    ),
    Kind.REQUEST: IncidentMessage(
        "The speech provider rejects a request of this server as invalid. This is most likely a software defect.",
        "Rejected requests are spoken in the offline voice.",
        "Send the details below to your technical support. Then mark the incident as resolved in the admin.",
        "The problem with rejected requests is marked as resolved.",
    ),
    Kind.VOICE: IncidentMessage(
        "One or more voices were deleted at the speech provider, or we may not use them.",
        "Patients with such a voice hear their backup voice, or the offline voice if no other voice may speak to them.",
        "Open the voices in the admin. Choose another voice for these patients, or clone the voice again. Both is "
        "detected automatically. If the provider has the voice but refuses its use, mark the incident as resolved.",
        "Every lost voice was found again, or no patient has it any longer.",
    ),
    Kind.DEFAULT_VOICE: IncidentMessage(
        "The default voice cannot be used at the speech provider any longer. Another voice has taken over.",
        "Patients without a voice of their own hear the new default voice. It is also the backup voice of all others.",
        "Listen to the new default voice. Choose another one in the admin under Default voices, or keep it and mark "
        "the incident as resolved. It is resolved automatically if the former voice can be used again.",
        "The former default voice can be used again, or an administrator has decided which voice is used.",
    ),
    Kind.NO_USABLE_VOICE: IncidentMessage(
        "The speech provider's account has no usable voice for patients without a voice of their own.",
        "Patients without a voice clone hear the offline voice. So do the others when their own voice fails.",
        "Check ELEVENLABS_API_KEY and the plan, and add a voice to the account at the provider. The worker reads the "
        "voices every minute. If the provider speaks in a refused voice again, use the action for it under Voices.",
        "The account has a usable voice. It is the default voice now.",
    ),
    Kind.VOICE_ENDING: IncidentMessage(
        "The speech provider will end one or more voices that are in use. The details below name the day.",
        "No change until that day. On the day patients hear the successor that the details below name.",
        "Listen to the proposed successor. Choose another one in the admin under Voices, or give the patients another "
        "voice before. If no successor is named, add a voice that lasts longer to the account at the provider.",
        "No voice in use ends on that day any longer, or its patients have its successor.",
    ),
    Kind.NO_VOICE: IncidentMessage(
        "A patient heard nothing. Neither the speech provider nor the offline voice could speak.",
        "Silence instead of speech.",
        "Check this server's memory, load and log (speech.no_voice). Then mark the incident as resolved in the admin.",
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
        "A budget of characters is used up: that of a patient, or that of a clinic. The details below say which.",
        "Cached phrases still play. Nothing else is spoken to the patient, or to the patients of the clinic, until the "
        "budget is raised or begins again.",
        "Raise the budget of the patient or the clinic in the admin, or wait. A monthly budget begins again next "
        "month, and a daily budget of a clinic the next day.",
        "Characters are available in the budget again.",
    ),
    Kind.DRIFT: IncidentMessage(
        "The ledger and the provider's figures differ by more than one per cent.",
        "No change. This concerns billing only.",
        "Open the reconciliations in the admin. They show the day, the difference and possible explanations. The "
        "days are compared again for a month. Mute the incident if the difference is known.",
        "A later comparison found no unexplained difference between the ledger and the provider's figures.",
    ),
    Kind.SILENT: IncidentMessage(
        "A background process (worker or beat) is not running.",
        "No change for now. Live speech does not need this process. Voice cloning, the pre-generation of cached "
        "phrases and the retry of failed alerts do.",
        "Restart the process that the details below name (see Procfile) and check its log. Recovery is detected "
        "automatically.",
        "The background process is running again.",
    ),
    Kind.SECOND_BEAT: IncidentMessage(
        "Two beat processes are running. There must be only one.",
        "No change. Periodic tasks start twice as often, which costs the server time.",
        "Stop all beat processes but one, on all machines (see Procfile). Recovery is detected automatically.",
        "Only one beat process is running.",
    ),
    Kind.TASK: IncidentMessage(
        "A periodic background task has failed at least three times in a row.",
        "No change for now. Live speech does not need periodic tasks. Queued speech, voice clones, erasures, cached "
        "phrases, usage figures and alerts may be late, depending on the task that the details below name.",
        "Check the worker's log for this task (task.failed, row.failed). If its database, provider or disk works, send "
        "the details below to your technical support. Recovery is detected automatically.",
        "The periodic task succeeds again.",
    ),
    Kind.HISTORY: IncidentMessage(
        "Requests that must be deleted are still in the speech provider's history: those of an erased patient, or "
        "those in a withdrawn voice clone.",
        "No change. The provider still has texts and speech of people who no longer want that.",
        "Run the doctor. If the API key may not read the history or delete from it, give it these permissions at the "
        "provider. Or delete the requests on the provider's web site. The deletions are tried again automatically.",
        "All deletions in the provider's history succeed again.",
    ),
    Kind.RETENTION: IncidentMessage(
        "Zero retention is not effective. The speech provider has kept a request that was sent with zero retention.",
        "No change. The texts of all patients stay in the provider's history, with their speech.",
        "Ask the provider whether the plan has zero retention, and for which key. Inform your data protection officer. "
        "Delete the history on the provider's web site. The check is repeated every night.",
        "The request of a later check was not in the provider's history, or zero retention was turned off.",
    ),
    Kind.REGION: IncidentMessage(
        "The speech provider handles our requests outside of the promised region. The details below name the region.",
        "No change. The texts of the patients who spoke since then were processed in another region. Their requests "
        "are in the usage events, with the region of each.",
        "Check that ELEVENLABS_BASE_URL is the regional address and ELEVENLABS_API_KEY a key of the workspace there. "
        "Ask the provider. Inform your data protection officer. If the region is right, correct ELEVENLABS_REGIONS.",
        "All requests are handled in the promised region again.",
    ),
    Kind.ALERTS: IncidentMessage(
        "At least one alert channel cannot send alerts.",
        "No change. Administrators get no alerts through this channel.",
        "Check ADMIN_EMAILS, EMAIL_URL and ALERT_WEBHOOK_URL, and their receivers. Recovery is detected automatically.",
        "Alerts are being sent again.",
    ),
    Kind.CHANNEL: IncidentMessage(
        "A notification channel cannot send alerts.",
        "No change. The people whom this channel reaches get no alerts through it.",
        "Open the notification channels in the admin and send a test alert. Check the address of the channel and its "
        "service. Recovery is detected automatically.",
        "The notification channel sends alerts again, or it was disabled or deleted.",
    ),
    Kind.WEBHOOK: IncidentMessage(
        "A webhook endpoint was disabled, because no message could be delivered for a day.",
        "No change. The system that gets the webhooks does not learn what happens.",
        "Ask the people who run that system. The page of the endpoint in the admin has the log of its deliveries. "
        "Enable the endpoint there when its system answers again, and send a test event.",
        "The webhook endpoint is enabled again, or it was deleted.",
    ),
}


def subject(incident: Incident, state: AlertState) -> str:
    """Return the subject of the alert mail."""
    kind = incident.get_kind_display()
    if state == "resolved":
        return f"voicecare: {'marked as resolved' if incident.resolved_by else 'resolved'}: {kind}"
    if state == "reminder":
        return f"voicecare: still open: {kind}"
    return f"voicecare: open again: {kind}" if incident.reopened_at else f"voicecare: {kind}"


def message_for(incident: Incident) -> IncidentMessage:
    return _MESSAGES[Kind(incident.kind)]


def resolution(incident: Incident) -> str:
    """Return how a resolved incident has ended. Only what the server has detected is told as a fact."""
    if incident.resolved_by:
        return (
            f"Marked as resolved by {incident.resolved_by}. The server cannot detect whether the cause has ended. "
            "If it occurs again, the incident opens again."
        )
    return message_for(incident).resolved


def body(incident: Incident, state: AlertState) -> str:
    """Return the text of the alert."""
    message, opened = message_for(incident), _utc(incident.opened_at)
    if state == "resolved":
        return f"{resolution(incident)}\n\nOpened {opened}, resolved {_utc(incident.resolved_at)}."
    news = ""
    if state == "reminder":
        news = "This incident is still open. It was muted until now.\n\n"
    elif incident.reopened_at:
        news = f"This incident was marked as resolved and has occurred again at {_utc(incident.reopened_at)}.\n\n"
    detail = f"\n\nSince {opened}. {incident.detail}".rstrip()
    return (
        f"{news}{message.summary}\n\nWhat patients hear: {message.patient_impact}\n\nWhat to do: {message.action}"
        f"{detail}"
    )


def _utc(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
