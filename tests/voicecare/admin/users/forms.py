"""Posts the forms of users and groups as a browser does: with the values that the page shows, and some changes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from tests.roles import give_permissions, role


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def staff(name: str, *permissions: str, in_role: str = "") -> User:
    user = User.objects.create_user(name, is_staff=True)
    if in_role:
        user.groups.add(role(in_role))
    return give_permissions(user, *permissions)


def page_of(row: User | Group, action: str = "change") -> str:
    return f"/admin/auth/{row._meta.model_name}/{row.pk}/{action}/"


def shown_values(client: Client, row: User | Group) -> dict[str, Any]:
    """Return the values in the form of the page."""
    form = client.get(page_of(row)).context["adminform"].form
    values: dict[str, Any] = {}
    for field in form:
        value = field.value()
        if isinstance(value, datetime):
            local = timezone.localtime(value)
            values |= {f"{field.name}_0": f"{local:%Y-%m-%d}", f"{field.name}_1": f"{local:%H:%M:%S}"}
        elif isinstance(value, list):
            values[field.name] = [getattr(choice, "pk", choice) for choice in value]
        elif value not in (None, False):
            values[field.name] = "on" if value is True else value
    return values


def edit(client: Client, row: User | Group, changes: Mapping[str, Any]) -> list[str]:
    """Post the form with the changes. A change to None leaves the field out. Return the errors, none if it is saved."""
    posted = {name: value for name, value in {**shown_values(client, row), **changes}.items() if value is not None}
    response = client.post(page_of(row), posted)
    if response.status_code == 302:
        return []
    form = response.context["adminform"].form
    return [message for messages in form.errors.values() for message in messages]
