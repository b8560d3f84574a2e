"""Clinicians at the REST API, through Django's client: for tables of calls. tests/e2e/test_rest.py has real sockets."""

import json
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.test import Client
from knox.models import AuthToken

from voicecare.patients.models import Patient


@dataclass(frozen=True)
class Clinician:
    user: User
    token: str

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """The response; `body` as JSON, or as it is if it is bytes."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.token}", **{name.replace("_", "-"): v for name, v in headers.items()}}
        return Client().generic(method, f"/api/v1/{path}", data, "application/json", headers=sent)

    def get(self, path: str) -> Any:
        """The body of a 200."""
        response = self.call("GET", path)
        assert response.status_code == 200, response.content
        return response.json()


def clinician(name: str, *patients: Patient, **rights: bool) -> Clinician:
    """A new user with a token, in the care team of these patients."""
    user = User.objects.create_user(name, **rights)
    user.patients.set(patients)  # type: ignore[attr-defined]
    return Clinician(user, AuthToken.objects.create(user)[1])
