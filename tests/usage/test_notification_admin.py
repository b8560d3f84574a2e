"""The pages of notification channels: the form, the list, the test alert, and that nobody sees an address."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from tests.roles import role
from tests.usage.alerts.postbox import MailServer, Webhook
from usage.alerts.notifications import sender, worker
from usage.models import Incident, NotificationChannel
from voicecare.audit.models import AuditEntry

pytestmark = pytest.mark.django_db

SECRET = "s3cr3t-t0ken"
URL = f"json://user:{SECRET}@127.0.0.1:1/{SECRET}"
LIST = "/admin/usage/notificationchannel/"


@pytest.fixture
def administrator(client: Client) -> Client:
    return logged_in(client, "Administrator")


@pytest.fixture
def service() -> Iterator[Callable[[], Webhook]]:
    """Return a function that starts a service."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Webhook())


def logged_in(client: Client, name: str) -> Client:
    user = User.objects.create_user(name.lower(), is_staff=True)
    user.groups.add(role(name))
    client.force_login(user)
    return client


def address(service: Webhook) -> str:
    return f"json://user:{SECRET}@{service.url.removeprefix('http://').partition('/')[0]}/{SECRET}"


def create(name: str = "On call", **columns: Any) -> NotificationChannel:
    return NotificationChannel.objects.create(**{"name": name, "url": URL, **columns})


def change_url(channel: NotificationChannel) -> str:
    return reverse("admin:usage_notificationchannel_change", args=[channel.pk])


def text_of(response: Any) -> str:
    return unescape(response.content.decode())


# The form


def test_a_channel_is_created_with_its_rules(administrator: Client):
    form = {"name": "Second on call", "url": URL, "enabled": "on", "severities": ["critical"], "kinds": ["no_voice"]}
    form |= {"escalate_after_minutes": "15", "quiet_from": "22:00", "quiet_to": "07:00"}
    assert administrator.post(f"{LIST}add/", form).status_code == 302
    channel = NotificationChannel.objects.get()
    assert (channel.url, channel.kinds, channel.severities) == (URL, ["no_voice"], ["critical"])
    assert (channel.escalate_after_minutes, f"{channel.quiet_from}", channel.enabled) == (15, "22:00:00", True)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"url": "nonsense://a"}, worker.UNKNOWN_SCHEME),
        ({"url": "slack://x"}, worker.MALFORMED),
        ({"url": ""}, "Enter the address of the service."),
        ({"name": "Webhook"}, "This is the name of a channel of the settings."),
        ({"name": "Taken"}, "Notification channel with this Name already exists."),
        ({"quiet_from": "22:00"}, "Quiet hours need a beginning and an end."),
        ({"quiet_from": "22:00", "quiet_to": "22:00"}, "Quiet hours cannot end when they begin."),
        ({"escalate_after_minutes": "0"}, "Ensure this value is greater than or equal to 1."),
        ({"escalate_after_minutes": "1441"}, "Ensure this value is less than or equal to 1440."),
        ({"kinds": "nothing"}, "Select a valid choice."),
    ],
)
def test_wrong_input_is_refused_with_what_to_do(administrator: Client, wrong: dict[str, str], words: str):
    create("Taken")
    response = administrator.post(f"{LIST}add/", {"name": "New", "url": URL, **wrong})
    assert words in text_of(response)
    assert NotificationChannel.objects.count() == 1


def test_the_form_keeps_the_address_and_does_not_show_it(administrator: Client):
    channel = create()
    page = administrator.get(change_url(channel))
    assert SECRET not in text_of(page)
    assert "Leave it empty to keep json://… as it is." in text_of(page)
    assert administrator.post(change_url(channel), {"name": "Renamed", "url": ""}).status_code == 302
    channel.refresh_from_db()
    assert (channel.name, channel.url) == ("Renamed", URL)


def test_a_form_overwrites_nothing_that_was_sent_meanwhile(administrator: Client):
    channel = create()
    administrator.get(change_url(channel))
    NotificationChannel.objects.update(last_sent_at=timezone.now(), sending_until=timezone.now())
    administrator.post(change_url(channel), {"name": "Renamed", "url": "", "enabled": "on"})
    channel.refresh_from_db()
    assert None not in (channel.last_sent_at, channel.sending_until)


def test_with_a_new_address_the_channel_is_tried_again_at_once(administrator: Client):
    channel = create(failures=4, last_error="The service refused the message.", sending_until=timezone.now())
    administrator.post(change_url(channel), {"name": channel.name, "url": "json://127.0.0.1:2", "enabled": "on"})
    channel.refresh_from_db()
    assert (channel.url, channel.failures, channel.last_error, channel.sending_until) == (
        "json://127.0.0.1:2",
        0,
        "",
        None,
    )


# Who sees what


def test_no_page_and_no_audit_entry_has_the_address(administrator: Client, caplog: pytest.LogCaptureFixture):
    administrator.post(f"{LIST}add/", {"name": "On call", "url": URL, "enabled": "on"})
    channel = NotificationChannel.objects.get()
    administrator.post(change_url(channel), {"name": "On call", "url": f"{URL}/other", "enabled": "on"})
    administrator.post(f"{LIST}test/")
    pages = [text_of(administrator.get(url)) for url in (LIST, change_url(channel), f"{LIST}test/", "/admin/health/")]
    administrator.post(f"{LIST}{channel.pk}/delete/", {"post": "yes"})
    entries = [str(entry) + repr(entry.changes) for entry in AuditEntry.objects.all()]
    assert len(entries) == 4
    assert SECRET not in "".join([*pages, *entries, caplog.text])


def test_an_auditor_sees_the_channels_without_their_address_and_changes_nothing(client: Client):
    auditor, channel = logged_in(client, "Auditor"), create()
    for url in (LIST, change_url(channel)):
        page = text_of(auditor.get(url))
        assert "json://…" in page
        assert SECRET not in page
        assert "test alert" not in page
    assert auditor.post(change_url(channel), {"name": "Mine"}).status_code == 403
    for method in (auditor.get, auditor.post):
        assert method(f"{LIST}test/").status_code == 403
    assert not AuditEntry.objects.exists()


def test_nobody_can_guess_the_address_by_a_filter(client: Client):
    auditor = logged_in(client, "Auditor")
    create()
    assert auditor.get(f"{LIST}?url__startswith=json").status_code == 400
    assert auditor.get(f"{LIST}?name__startswith=On").status_code == 200


def test_clinicians_see_nothing(client: Client):
    other, channel = logged_in(client, "Clinician"), create()
    for url in (LIST, change_url(channel), f"{LIST}add/", f"{LIST}test/"):
        assert other.get(url).status_code == 403


# The list


def test_the_list_shows_rules_state_and_last_messages(administrator: Client):
    create("A", last_sent_at=timezone.now())
    create("B", escalate_after_minutes=15, kinds=["slow"], severities=["critical"], failures=2)
    NotificationChannel.objects.filter(name="B").update(
        last_error="The service could not be reached.", last_failed_at=timezone.now()
    )
    create("C", enabled=False, kinds=["slow", "quota"])
    page = text_of(administrator.get(LIST))
    for words in ("All kinds", "High latency, critical", "2 kinds", "At once", "After 15 min without acknowledgement"):
        assert words in page
    for words in ("Enabled", "Failing", "Disabled", "json://…", "The service could not be reached.", "never"):
        assert words in page


# The test alert


def rows_of(page: str) -> list[str]:
    """The results: the words of each row of the table."""
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    cells = ["".join(part.partition(">")[2] for part in row.split("<")) for row in body.split("</tr>")]
    return [" ".join(cell.split()) for cell in cells if cell.strip()]


def test_the_test_alert_shows_the_result_of_each_channel(
    administrator: Client,
    service: Callable[[], Webhook],
    webhook: Webhook,
    mail: MailServer,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(sender, "SEND_TIMEOUT_S", 3.0)
    chat, broken, stuck = service(), service(), service()
    broken.status, stuck.hang_s = 403, 6.0
    create("Chat", url=address(chat))
    create("Broken", url=address(broken))
    create("Stuck", url=f"{address(stuck)}?rto=30")
    create("Unused", url=address(chat), enabled=False)
    webhook.status = 500
    page = text_of(administrator.post(f"{LIST}test/"))
    results = rows_of(page)
    assert [result.split()[:2] for result in results] == [
        ["Mail", "Sent"],
        ["Webhook", "Problem"],
        ["Broken", "Problem"],
        ["Chat", "Sent"],
        ["Stuck", "Problem"],
    ]
    assert results[0].endswith(" ms")
    assert "The receiver refused the message (HTTP 500)." in results[1]
    assert "The service refused the message (HTTP 403)." in results[2]
    assert "The service did not answer within 3 s." in results[4]
    assert [len(chat.received), len(mail.mails)] == [1, 1]
    assert chat.received[0]["title"] == "voicecare: test alert"
    assert SECRET not in page
    assert "secret" not in page.replace("csrf", "")
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.object_type, entry.user_name) == (
        "send_test_alert",
        "usage.notificationchannel",
        "administrator",
    )
    errors = dict(NotificationChannel.objects.values_list("name", "last_error"))
    assert errors["Broken"] == "The service refused the message (HTTP 403)."
    assert errors["Chat"] == errors["Unused"] == ""


def test_a_successful_test_ends_the_incident_of_the_channel(administrator: Client, service: Callable[[], Webhook]):
    chat = service()
    channel = create(url=address(chat), failures=5)
    for key in (channel.pk, channel.pk + 1):
        Incident.objects.create(kind="channel", key=str(key))
    administrator.post(f"{LIST}test/")
    open_keys = Incident.objects.filter(resolved_at=None).values_list("key", flat=True)
    assert list(open_keys) == [str(channel.pk + 1)]


def test_a_link_sends_nothing(administrator: Client, webhook: Webhook):
    page = text_of(administrator.get(f"{LIST}test/"))
    assert (webhook.asked, "Result of each channel" in page) == (0, False)


def test_without_channels_the_page_says_what_to_do(administrator: Client, settings: Settings):
    settings.ADMIN_EMAILS, settings.ALERT_WEBHOOK_URL = [], ""
    assert "There is no channel. Set" in text_of(administrator.get(f"{LIST}test/"))
