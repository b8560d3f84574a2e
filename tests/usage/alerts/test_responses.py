"""What people do about incidents: who does what first, what alerts say, and when an incident opens again."""

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from tests.usage.alerts.postbox import MailServer, Webhook
from tests.usage.provider_state.test_circuit import row, run_concurrently, seconds_ago
from tests.waiting import until
from usage.alerts import dispatcher, endings, incidents, messages, responses
from usage.alerts.incidents import Kind
from usage.models import Incident, IncidentEvent
from usage.provider_state import quota
from voicecare.patients.models import Voice

pytestmark = pytest.mark.django_db(transaction=True)  # alerts are sent from a separate thread

HOUR = timedelta(hours=1)


def opened(kind: Kind = Kind.REQUEST, **columns: object) -> Incident:
    """An open incident whose alert was sent."""
    return Incident.objects.create(kind=kind, **{"opening_sent_at": timezone.now(), **columns})


def events(incident: Incident) -> list[tuple[str, str, str]]:
    return list(incident.events.order_by("pk").values_list("kind", "person", "text"))


def retry_after_pause() -> None:
    Incident.objects.exclude(retry_at=None).update(retry_at=seconds_ago(1))
    dispatcher.retry_pending()


def end_mute() -> None:
    Incident.objects.exclude(muted_until=None).update(muted_until=seconds_ago(1))


def states(webhook: Webhook) -> list[str]:
    return [body["state"] for body in webhook.received]


# Which incidents people can resolve


def test_every_kind_says_whether_the_server_detects_its_end():
    assert set(endings._DETECTED) == set(Kind)


@pytest.mark.parametrize("kind", list(Kind))
def test_only_an_incident_without_a_detected_end_can_be_marked_as_resolved(kind: Kind, webhook: Webhook):
    incident = opened(kind)
    detected = endings.is_end_detected(incident)
    assert responses.mark_resolved(incident.pk, "ann") is not detected
    incident.refresh_from_db()
    if detected:
        assert (incident.resolved_at, incident.resolved_by) == (None, "")
        assert webhook.asked == 0
    else:
        assert incident.resolved_by == "ann"
        until(lambda: webhook.received)
        assert "Marked as resolved by ann." in webhook.received[0]["text"]
        assert messages.message_for(incident).resolved not in webhook.received[0]["text"]


def test_nobody_is_told_that_there_are_credits_again_while_there_are_none(webhook: Webhook):
    quota.mark_exhausted(40, "quota_exceeded")
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())
    incident = Incident.objects.get()
    assert not responses.mark_resolved(incident.pk, "root")
    dispatcher.retry_pending()
    assert (row().quota, Incident.objects.filter(resolved_at=None).count()) == ("spent", 1)
    assert states(webhook) == ["opened"]


@pytest.mark.parametrize(
    ("kind", "key", "detected"),
    [
        ("access", "", True),
        ("access", "clones", False),
        ("access", "workspace", True),
        ("voice", "", True),
        ("voice", "refused", False),
        ("drift", f"{timezone.localdate() - timedelta(days=5)}", True),
        ("drift", "2020-02-29", False),
        ("task", "usage.poll_quota", True),
        ("task", "usage.task_of_an_earlier_release", False),
    ],
)
def test_for_some_kinds_it_depends_on_the_key(kind: Kind, key: str, detected: bool):
    assert endings.is_end_detected(Incident(kind=kind, key=key)) is detected


@pytest.mark.parametrize(("state", "detected"), [("gone", True), ("usable", False)])
def test_the_end_of_a_lost_voice_is_detected_and_that_of_a_refused_one_is_not(state: str, detected: bool):
    voice = Voice.objects.create(provider_id="v", name="Anna", state=state)
    assert endings.is_end_detected(Incident(kind="voice", key=str(voice.pk))) is detected


# People


def test_of_several_people_one_acknowledges():
    incident = opened()
    assert sorted(run_concurrently(lambda: responses.acknowledge(incident.pk, "ann"))).count(True) == 1
    assert not responses.acknowledge(incident.pk, "ben", "me too")
    incident.refresh_from_db()
    assert incident.acknowledged_by == "ann"
    assert events(incident) == [("acknowledged", "ann", "")]


def test_of_several_people_one_resolves(webhook: Webhook):
    incident = opened()
    assert run_concurrently(lambda: responses.mark_resolved(incident.pk, "ann")).count(True) == 1
    until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists())
    assert states(webhook) == ["resolved"]
    assert [kind for kind, _, _ in events(incident)] == ["resolved", "alert"]


def test_nothing_is_done_about_an_incident_that_has_ended():
    incident = opened(resolved_at=timezone.now())
    assert not responses.acknowledge(incident.pk, "ann")
    assert not responses.mute(incident.pk, "ann", HOUR)
    assert not responses.unmute(incident.pk, "ann")
    assert not responses.mark_resolved(incident.pk, "ann")
    assert events(incident) == []


def test_a_note_is_kept_with_its_author():
    incident = opened()
    responses.acknowledge(incident.pk, "ann", "I call them.")
    responses.mute(incident.pk, "ann", 4 * HOUR, "They work on it.")
    responses.add_note(incident.pk, "ben", "Back at 5.")
    assert events(incident) == [
        ("acknowledged", "ann", "I call them."),
        ("muted", "ann", "For 4 hours. They work on it."),
        ("note", "ben", "Back at 5."),
    ]


# Regressions


def test_an_incident_opens_again_if_its_cause_occurs_again(webhook: Webhook):
    incident = opened(acknowledged_at=timezone.now(), acknowledged_by="ann", resolution_sent_at=None)
    responses.mark_resolved(incident.pk, "ann")
    until(lambda: states(webhook) == ["resolved"])
    until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists())
    incidents.open_incident(Kind.REQUEST, detail="text_too_long")
    until(lambda: states(webhook) == ["resolved", "opened"])
    assert "was marked as resolved and has occurred again" in webhook.received[1]["text"]
    incident = Incident.objects.get()
    assert (incident.resolved_at, incident.resolved_by, incident.acknowledged_by) == (None, "", "")
    assert incident.reopened_at is not None
    assert ("reopened", "", "text_too_long") in events(incident)
    incidents.open_incident(Kind.REQUEST, detail="once more")
    assert [kind for kind, _, _ in events(incident)].count("reopened") == 1


def test_the_alert_about_a_regression_is_sent_although_the_incident_is_old(webhook: Webhook):
    old = timezone.now() - timedelta(days=3)
    incident = opened(opened_at=old, opening_sent_at=old)
    responses.mark_resolved(incident.pk, "ann")
    until(lambda: states(webhook) == ["resolved"])
    incidents.open_incident(Kind.REQUEST)
    until(lambda: states(webhook) == ["resolved", "opened"])


def test_several_processes_open_one_incident_again():
    incident = opened()
    responses.mark_resolved(incident.pk, "ann")
    run_concurrently(lambda: incidents.open_incident(Kind.REQUEST))
    assert Incident.objects.get().resolved_at is None
    assert [kind for kind, _, _ in events(incident)] == ["resolved", "reopened"]


@pytest.mark.parametrize(
    "columns",
    [
        {"resolved_by": "", "resolved_at": timezone.now()},
        {"resolved_by": "ann", "resolved_at": timezone.now() - incidents.REGRESSION_WITHIN - HOUR},
        {"resolved_by": "ann", "resolved_at": timezone.now(), "key": "another"},
    ],
)
def test_another_cause_opens_another_incident(columns: dict):
    before = opened(**columns)
    incidents.open_incident(Kind.REQUEST)
    assert Incident.objects.exclude(pk=before.pk).get().reopened_at is None


# Mute


def test_a_muted_incident_is_reported_when_the_mute_ends_and_not_before(webhook: Webhook, mail: MailServer):
    incident = opened(Kind.QUOTA)
    responses.mute(incident.pk, "ann", HOUR)
    dispatcher.retry_pending()
    assert webhook.asked == 0
    end_mute()
    dispatcher.retry_pending()
    dispatcher.retry_pending()
    assert states(webhook) == ["reminder"]
    assert [mail["Subject"] for _, mail in mail.mails] == ["voicecare: still open: credits exhausted"]
    assert "still open" in webhook.received[0]["text"]
    assert Incident.objects.get().muted_until is None


def test_a_muted_incident_that_ends_is_reported_once(webhook: Webhook):
    incident = opened(Kind.QUOTA)
    responses.mute(incident.pk, "ann", HOUR)
    incidents.resolve_incident(Kind.QUOTA)
    until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists())
    end_mute()
    dispatcher.retry_pending()
    assert states(webhook) == ["resolved"]


def test_an_alert_that_could_not_be_sent_waits_for_the_end_of_the_mute(webhook: Webhook):
    webhook.status = 500
    incident = opened(Kind.QUOTA, opening_sent_at=None)
    dispatcher.retry_pending()
    responses.mute(incident.pk, "ann", HOUR)
    webhook.status = 200
    retry_after_pause()
    assert states(webhook) == []
    end_mute()
    retry_after_pause()
    dispatcher.retry_pending()
    assert states(webhook) == ["opened"]


def test_an_unmuted_incident_is_not_reported_again(webhook: Webhook):
    incident = opened(Kind.QUOTA)
    responses.mute(incident.pk, "ann", HOUR)
    assert responses.unmute(incident.pk, "ben")
    dispatcher.retry_pending()
    assert states(webhook) == []
    assert [kind for kind, _, _ in events(incident)] == ["muted", "unmuted"]


def test_a_reminder_that_one_channel_got_does_not_hide_the_resolution(webhook: Webhook, mail: MailServer):
    opened(Kind.QUOTA, muted_until=seconds_ago(1))
    mail.refuses = True
    dispatcher.retry_pending()
    assert states(webhook) == ["reminder"]
    incidents.resolve_incident(Kind.QUOTA)
    mail.refuses = False
    retry_after_pause()
    until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists())  # perhaps by the thread of the resolution
    assert states(webhook) == ["reminder", "resolved"]
    assert [mail["Subject"] for _, mail in mail.mails] == ["voicecare: resolved: credits exhausted"]


# Acknowledged


def test_an_acknowledged_alert_is_not_repeated_for_the_channel_that_failed(webhook: Webhook, mail: MailServer):
    mail.refuses = True
    incident = opened(Kind.QUOTA, opening_sent_at=None)
    dispatcher.retry_pending()
    responses.acknowledge(incident.pk, "ann")
    mail.refuses = False
    retry_after_pause()
    assert (states(webhook), mail.mails) == (["opened"], [])
    assert Incident.objects.get().opening_sent_at is not None


def test_an_acknowledged_alert_that_nobody_got_is_repeated(webhook: Webhook):
    webhook.status = 500
    incident = opened(Kind.QUOTA, opening_sent_at=None)
    dispatcher.retry_pending()
    responses.acknowledge(incident.pk, "ann")
    webhook.status = 200
    retry_after_pause()
    assert states(webhook) == ["opened"]


# The timeline


def test_the_timeline_has_the_channel_of_each_alert(webhook: Webhook, mail: MailServer):
    mail.refuses = True
    incident = opened(Kind.QUOTA, opening_sent_at=None)
    dispatcher.retry_pending()
    mail.refuses = False
    retry_after_pause()
    sent = incident.events.filter(kind=IncidentEvent.Kind.ALERT).order_by("pk")
    assert list(sent.values_list("channel", "text")) == [("webhook", "opened"), ("mail", "opened")]


def test_without_a_channel_the_timeline_has_no_alert(settings: Settings):
    settings.ADMIN_EMAILS, settings.ALERT_WEBHOOK_URL = [], ""
    incident = opened(opening_sent_at=None)
    responses.mark_resolved(incident.pk, "ann")
    dispatcher.retry_pending()
    assert [kind for kind, _, _ in events(incident)] == ["resolved"]
