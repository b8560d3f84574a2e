"""What administrators are told of an incident, in plain words: what happened, what patients hear, what to do."""

from typing import NamedTuple

from usage.models import Incident

Kind = Incident.Kind


class _Words(NamedTuple):
    happened: str
    heard: str
    to_do: str
    over: str


_WORDS = {
    Kind.QUOTA: _Words(
        "The speech provider's credits are used up.",
        "Known phrases play as ever. For the first minute a patient's companion waits; after that, what it says in "
        "conversation is spoken in the offline voice. What the server starts waits for the credits.",
        "Buy credits or raise the plan's limit at the provider. That is noticed by itself; what waits is then spoken.",
        "The speech provider has credits again. Companions speak in their own voices, and what waited is being spoken.",
    ),
    Kind.PROVIDER_DOWN: _Words(
        "The speech provider does not answer, or answers with faults of its own.",
        "Known phrases play as ever; everything else is spoken in the offline voice.",
        "Look at the provider's status page and at this server's way to the internet. Its return is noticed by itself.",
        "The speech provider answers again. Companions speak in their own voices.",
    ),
    Kind.ACCESS: _Words(
        "The speech provider refuses our key, plan or permission.",
        "Known phrases play as ever; everything else is spoken in the offline voice.",
        "Check ELEVENLABS_API_KEY, its permissions and the plan. Then resolve the incident in the admin.",
        "The trouble with the speech provider's key, plan or permission is marked as resolved.",
    ),
    Kind.REQUEST: _Words(
        "The speech provider refuses a request of this server as wrong: most likely a defect of the software.",
        "What was refused is spoken in the offline voice.",
        "Give the detail below to who maintains this server. Then resolve the incident in the admin.",
        "The trouble with refused requests is marked as resolved.",
    ),
    Kind.VOICE: _Words(
        "A voice is gone at the speech provider, or may not be used.",
        "Patients who were to hear it hear the default voice.",
        "Look at the voices in the admin: choose another one for those patients, or make it anew. Then resolve the "
        "incident in the admin.",
        "The trouble with a voice is marked as resolved.",
    ),
    Kind.NO_VOICE: _Words(
        "A patient heard nothing: neither the speech provider nor the offline voice could speak.",
        "Silence, where something was to be said.",
        "Look at this server's memory, load and log (speech.no_voice). Then resolve the incident in the admin.",
        "The trouble with the offline voice is marked as resolved.",
    ),
    Kind.VOICE_SLOTS: _Words(
        "The account at the speech provider has hardly room for another voice.",
        "The same as ever. New copies of voices cannot be made once there is no room left.",
        "Withdraw copies that nobody needs any more, or raise the plan at the provider. That is noticed by itself.",
        "The account at the speech provider has room for new voices again.",
    ),
}  # fmt: skip


def subject(incident: Incident, state: str) -> str:
    what = incident.get_kind_display()
    return f"voicecare: {what}" if state == "opened" else f"voicecare: over: {what}"


def text(incident: Incident, state: str) -> str:
    words = _WORDS[Kind(incident.kind)]
    opened = f"{incident.opened_at:%Y-%m-%d %H:%M:%S} UTC"
    if state == "opened":
        detail = f"\n\nSince {opened}. {incident.detail}".rstrip()
        return f"{words.happened}\n\nWhat patients hear: {words.heard}\n\nWhat to do: {words.to_do}{detail}"
    return f"{words.over}\n\nIt began {opened} and was over {incident.resolved_at:%Y-%m-%d %H:%M:%S} UTC."
