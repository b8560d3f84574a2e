"""Clinicians who call the REST API through Django's test client. tests/e2e has tests over real sockets."""

import json
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from tests.roles import role
from voicecare.accounts import tokens
from voicecare.patients.models import Patient


@dataclass(frozen=True)
class Clinician:
    user: User
    token: str

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """Send a request and return the response. `body` is sent as JSON, or unchanged if it is bytes."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.token}", **{name.replace("_", "-"): v for name, v in headers.items()}}
        return Client().generic(method, f"/api/v1/{path}", data, "application/json", headers=sent)

    def get(self, path: str) -> Any:
        """Return the JSON body of a GET request that must succeed."""
        response = self.call("GET", path)
        assert response.status_code == 200, response.content
        return response.json()


def clinician(name: str, *patients: Patient, in_role: str = "", **rights: bool) -> Clinician:
    """Create a user with a token in the care team of `patients`.

    `in_role` is the name of a group. `rights` are fields of User, such as `is_staff`.
    """
    user = User.objects.create_user(name, **rights)
    if in_role:
        user.groups.add(role(in_role))
    user.patients.set(patients)  # type: ignore[attr-defined]
    return Clinician(user, tokens.issue_for_log_in(user, None)[1])
