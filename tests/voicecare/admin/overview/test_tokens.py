"""The list of API tokens in the admin."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from knox.models import AuthToken

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:No directory at:UserWarning"),  # whitenoise in a fresh checkout
]

LIST = "/admin/knox/authtoken/"


def test_the_list_names_the_owner_and_the_expiry_and_links_no_digest(admin_client: Client):
    token, _ = AuthToken.objects.create(User.objects.create_user("nora"))
    page = admin_client.get(LIST).content.decode()
    for words in ("<h1>API tokens</h1>", "nora", "Valid", f"{token.expiry:%Y-%m-%d %H:%M:%S UTC}"):
        assert words in page
    assert f"{token.digest}/change" not in page
    assert f">{token.digest}" not in page


def test_expired_tokens_are_found_by_their_status(admin_client: Client):
    old, _ = AuthToken.objects.create(User.objects.create_user("nora"), expiry=timedelta(seconds=-1))
    AuthToken.objects.create(User.objects.create_user("otto"))
    found = admin_client.get(LIST, {"status": "expired"}).context["cl"].result_list
    assert list(found) == [old]
