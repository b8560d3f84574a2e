"""The pages of devices in the admin: a token is shown once, and can be renewed and revoked."""

import base64
import html
import re
from urllib.parse import unquote

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.conftest import Member
from tests.roles import give_permissions
from voicecare.admin.lists import timestamp
from voicecare.audit.models import AuditEntry
from voicecare.patients.authentication import authenticate_device
from voicecare.patients.models import Device

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:No directory at:UserWarning"),  # whitenoise in a fresh checkout
]

ADD = "/admin/patients/device/add/"
PATIENTS = "/admin/patients/patient/"


def url(page: str, device: Device) -> str:
    name = "admin:patients_device_change" if page == "change" else f"admin:device-{page}"
    return reverse(name, args=[device.pk])


def token_on(page: str) -> str | None:
    found = re.search(r'<code class="token"[^>]*>([^<]+)</code>', page)
    return found and found.group(1)


def add(client: Client, member: Member, **data: str) -> str:
    response = client.post(ADD, {"name": "Kitchen", "patient": str(member.patient.pk), **data}, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def test_a_new_device_shows_its_token_with_the_command_and_a_qr_code(admin_client: Client, alice: Member, settings):
    settings.PUBLIC_URL = "https://voice.example"
    page = add(admin_client, alice)
    device = Device.objects.get(name="Kitchen")
    token = token_on(page)
    assert token is not None
    assert authenticate_device(token) == device
    command = f'python manage.py talk --url wss://voice.example/ws/device/ --token {token} "Good morning"'
    assert command in html.unescape(page)
    assert 'src="data:image/svg+xml' in page
    assert f"{ADD}?patient={alice.patient.pk}" in page
    for again in (url("change", device), reverse("admin:patients_device_changelist"), PATIENTS):
        later = admin_client.get(again).content.decode()
        assert token not in later
        assert device.token_digest not in later


def test_the_page_of_a_device_shows_when_and_why_it_was_refused_last(admin_client: Client, alice: Member):
    page = admin_client.get(url("change", alice.device)).content.decode()
    assert "Last refusal" in page
    assert "The device is revoked" not in page
    alice.device.record_refusal(Device.Refusal.REVOKED_DEVICE)
    alice.device.refresh_from_db()
    page = admin_client.get(url("change", alice.device)).content.decode()
    assert f"{timestamp(alice.device.refused_at)}: The device is revoked" in page


def test_every_button_of_the_add_page_shows_the_token(admin_client: Client, alice: Member):
    for button in ("_save", "_addanother", "_continue"):
        assert token_on(add(admin_client, alice, **{button: "1"})) is not None, button


def test_the_token_is_in_no_cookie_session_or_address(admin_client: Client, alice: Member):
    response = admin_client.post(ADD, {"name": "Kitchen", "patient": str(alice.patient.pk)})
    token = token_on(response.content.decode())
    assert token is not None
    assert "Location" not in response
    assert "no-store" in response["Cache-Control"]
    kept = [cookie.value for cookie in admin_client.cookies.values()] + [str(dict(admin_client.session))]
    decoded = [base64.urlsafe_b64decode(part + "===") for value in kept for part in re.findall(r"[\w-]{20,}", value)]
    assert token not in unquote(" ".join(kept))
    assert not any(token.encode() in value for value in decoded)


def test_a_renewed_token_replaces_the_old_one_and_its_connections(admin_client: Client, alice: Member):
    epoch = alice.device.register_connection()
    question = admin_client.get(url("renew-token", alice.device)).content.decode()
    assert "bedside" in question
    assert authenticate_device(alice.token) == alice.device
    token = token_on(admin_client.post(url("renew-token", alice.device)).content.decode())
    assert token is not None
    assert authenticate_device(token) == alice.device
    assert authenticate_device(alice.token) is None
    assert Device.objects.get().epoch > epoch
    entry = AuditEntry.objects.get(action="renew_token")
    assert (entry.object_id, entry.patient_id) == (str(alice.device.pk), alice.patient.pk)


def test_a_device_is_revoked_after_a_question(admin_client: Client, alice: Member):
    assert "bedside" in admin_client.get(url("revoke", alice.device)).content.decode()
    assert authenticate_device(alice.token) == alice.device
    page = admin_client.post(url("revoke", alice.device), follow=True).content.decode()
    assert "The device is revoked." in page
    assert authenticate_device(alice.token) is None
    assert AuditEntry.objects.get(action="revoke").object_id == str(alice.device.pk)
    revoked_at = Device.objects.get().revoked_at
    admin_client.post(url("revoke", alice.device))
    assert Device.objects.get().revoked_at == revoked_at
    assert AuditEntry.objects.filter(action="revoke").count() == 1


def test_a_revoked_device_has_no_buttons_and_gets_no_token(admin_client: Client, alice: Member):
    assert url("renew-token", alice.device) in admin_client.get(url("change", alice.device)).content.decode()
    admin_client.post(url("revoke", alice.device))
    page = admin_client.get(url("change", alice.device)).content.decode()
    assert url("renew-token", alice.device) not in page
    assert url("revoke", alice.device) not in page
    page = admin_client.post(url("renew-token", alice.device), follow=True).content.decode()
    assert token_on(page) is None
    assert "is revoked. Add a new device instead." in page
    assert Device.objects.get().token_matches(alice.token)


def test_the_pages_need_the_permission_to_change_devices(client: Client, alice: Member):
    viewer = User.objects.create_user("viewer", is_staff=True)
    client.force_login(
        give_permissions(viewer, "patients.view_device", "patients.view_patient", "patients.view_all_patients")
    )
    assert client.get(url("change", alice.device)).status_code == 200
    for page in ("renew-token", "revoke"):
        assert url(page, alice.device) not in client.get(url("change", alice.device)).content.decode()
        assert client.get(url(page, alice.device)).status_code == 403
        assert client.post(url(page, alice.device)).status_code == 403
    assert authenticate_device(alice.token) == alice.device


def test_the_page_of_a_patient_has_a_link_to_add_a_device(admin_client: Client, alice: Member):
    page = admin_client.get(f"{PATIENTS}{alice.patient.pk}/change/").content.decode()
    assert f'href="{ADD}?patient={alice.patient.pk}"' in page
    assert "Online" in page or "Offline" in page
    assert "Add another device" in page


def test_the_added_device_has_the_patient_of_the_link(admin_client: Client, alice: Member):
    page = admin_client.get(ADD, {"patient": str(alice.patient.pk)}).content.decode()
    assert f'<option value="{alice.patient.pk}" selected>' in page
