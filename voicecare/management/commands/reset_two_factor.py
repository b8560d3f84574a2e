"""`python manage.py reset_two_factor USERNAME` lets a user log in without the second factor, who has lost it."""

from argparse import ArgumentParser

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from voicecare.accounts import two_factor
from voicecare.audit.models import Action
from voicecare.audit.recording import record


class Command(BaseCommand):
    help = "Deletes the second factor of a user who has lost the authenticator app and the recovery codes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")

    @transaction.atomic
    def handle(self, *args: object, **options: str) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError("There is no such user.")
        if not two_factor.turn_off(user):
            raise CommandError("This user has no second factor.")
        record(None, Action.TURN_OFF_TWO_FACTOR, user)
        self.stdout.write("The second factor is deleted. The next login needs the password alone.")
