"""A user who has forgotten the password asks for a mail and sets a new one."""

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.usage.alerts.postbox import MailServer
from voicecare import tasks
from voicecare.accounts import throttling
from voicecare.audit.models import AuditEntry

pytestmark = pytest.mark.django_db
PASSWORD, NEW_PASSWORD = "correct horse battery", "another horse staple"
PAGE = "/admin/password-reset/"
EMAIL = "nora@clinic.example"


@pytest.fixture
def nora(settings) -> User:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return User.objects.create_user("nora", EMAIL, PASSWORD, first_name="Eleonora", is_staff=True, is_superuser=True)


@pytest.fixture
def mail(settings) -> Iterator[MailServer]:
    with MailServer() as server:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
        settings.CAN_RESET_PASSWORDS = True
        settings.PUBLIC_URL = "https://voice.example"
        yield server


@pytest.fixture
def ask(mail: MailServer, django_capture_on_commit_callbacks) -> Callable[..., Any]:
    """Return a function that posts an address, and runs the task that the page sends to the worker."""

    def post(email: str, **extra: str) -> Any:
        with django_capture_on_commit_callbacks() as callbacks:
            response = Client().post(PAGE, {"email": email}, **extra)
        for callback in callbacks:
            [message] = callback.args
            name, ids, _delay = message
            assert name == tasks.send_reset_links.name
            tasks.send_reset_links(*ids)
        return response

    return post


def link_in(mail: MailServer) -> str:
    [(_, message)] = mail.mails
    [url] = re.findall(r"https://voice\.example(\S+)", message.get_content())
    return str(url)


def set_password(link: str, client: Client | None = None, password: str = NEW_PASSWORD) -> Any:
    client = client or Client()
    page = client.get(link, follow=True)
    data = {"new_password1": password, "new_password2": password}
    return client.post(page.redirect_chain[-1][0] if page.redirect_chain else link, data, follow=True)


def can_log_in(password: str) -> bool:
    data = {"username": "nora", "password": password}
    return Client().post("/admin/login/?next=/admin/", data).status_code == 302


def test_the_mail_leads_to_a_new_password_once(nora: User, mail: MailServer, ask):
    assert "/admin/password-reset/" in Client().get("/admin/login/").content.decode()
    assert ask(EMAIL.upper().replace("CLINIC.EXAMPLE", "clinic.example")).headers["Location"] == f"{PAGE}done/"
    [(recipients, message)] = mail.mails
    text = message.get_content() + str(message["Subject"])
    assert recipients == [EMAIL]
    assert '"nora"' in text
    assert "Eleonora" not in text
    link = link_in(mail)
    assert "has been set" in set_password(link).content.decode()
    [entry] = AuditEntry.objects.all()
    assert (entry.action, entry.user_name, entry.object_id, entry.changes) == (
        "change",
        "nora",
        str(nora.pk),
        {"password": None},
    )
    assert [can_log_in(PASSWORD), can_log_in(NEW_PASSWORD)] == [False, True]
    assert "link was invalid" in Client().get(link, follow=True).content.decode()


def test_sessions_and_rest_tokens_end(nora: User, mail: MailServer, ask):
    session = Client()
    session.force_login(nora)
    body = {"username": "nora", "password": PASSWORD}
    token = Client().post("/api/v1/auth/token/", body, "application/json").json()["token"]
    headers = {"Authorization": f"Bearer {token}"}

    def codes() -> list[int]:
        return [session.get("/admin/").status_code, Client().get("/api/v1/voices/", headers=headers).status_code]

    assert codes() == [200, 200]
    ask(EMAIL)
    set_password(link_in(mail))
    assert codes() == [302, 401]


def test_the_token_is_in_no_path_and_no_log(nora: User, mail: MailServer, ask, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    ask(EMAIL)
    link = link_in(mail)
    [token] = re.findall(r"token=(\S+)", link)
    assert token not in urlsplit(link).path
    client = Client()
    assert client.get(link).headers["Location"] == urlsplit(link).path
    client.get(link.replace(token, "wrong"), follow=True)
    User.objects.all().delete()
    client.get(link, follow=True)
    output = capfd.readouterr()
    assert token not in caplog.text + output.out + output.err


def test_the_answer_does_not_tell_whether_a_user_has_the_address(nora: User, mail: MailServer, ask, settings):
    User.objects.create_user("gone", "gone@clinic.example", PASSWORD, is_active=False)
    User.objects.create_user("sso", "sso@clinic.example")  # no password
    answers = [ask(email) for email in (EMAIL, "nobody@clinic.example", "gone@clinic.example", "sso@clinic.example")]
    assert {(answer.status_code, answer.headers["Location"], answer.content) for answer in answers} == {
        (302, f"{PAGE}done/", b"")
    }
    assert len(mail.mails) == 1


def test_a_mailbox_gets_one_mail_a_minute(nora: User, mail: MailServer, ask):
    answers = [ask(EMAIL, REMOTE_ADDR=f"198.51.100.{number}") for number in range(3)]
    assert {answer.status_code for answer in answers} == {302}
    assert len(mail.mails) == 1


def test_one_address_cannot_ask_without_limit_and_log_ins_are_not_affected(nora: User, ask):
    for number in range(throttling.MAX_FAILURES_PER_ADDRESS):
        assert ask(f"{number}@clinic.example").status_code == 302
    refused = ask("another@clinic.example")
    assert refused.status_code == 200
    assert "Too many requests." in refused.content.decode()
    assert can_log_in(PASSWORD)


def test_a_weak_password_is_refused(nora: User, mail: MailServer, ask):
    ask(EMAIL)
    assert "too short" in set_password(link_in(mail), password="short").content.decode()
    assert can_log_in(PASSWORD)


def test_the_link_does_not_come_from_the_host_header(nora: User, mail: MailServer, ask, settings):
    settings.ALLOWED_HOSTS = ["*"]
    ask(EMAIL, HTTP_HOST="evil.example")
    assert "evil.example" not in mail.mails[0][1].get_content()


def test_a_mail_server_that_refuses_is_logged_without_the_address(nora: User, mail: MailServer, ask, caplog):
    mail.refuses = True
    assert ask(EMAIL).status_code == 302
    output = caplog.text
    assert "password_reset.not_sent" in output
    assert EMAIL not in output


def test_without_a_mail_server_there_are_no_pages_and_no_link(nora: User):
    assert PAGE not in Client().get("/admin/login/").content.decode()
    assert [Client().get(f"{PAGE}{page}").status_code for page in ("", "done/", "complete/", "MQ/")] == [404] * 4
