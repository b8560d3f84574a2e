"""The steps of a first installation, which `manage.py setup` runs. Each can be repeated and changes nothing twice.

Each function returns one line for the administrator: what it found or did. It raises StepFailed, with what to do, if
the step could not be completed.
"""

from dataclasses import dataclass

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from cloning.gateway import provider_voices
from cloning.voices.sync import sync_stock_voices
from tts.cache.coverage import languages_without_greeting
from tts.cache.planning import active_patients
from tts.models import Phrase
from usage.alerts import heartbeats
from usage.alerts.notifications import channel_check
from usage.models import ProviderState
from usage.provider_state import quota
from voicecare.core import languages, task_names, task_queue
from voicecare.health import database, parts
from voicecare.patients.models import DefaultVoice, Device, Patient, Voice
from voicecare.providers.elevenlabs import credentials
from voicecare.providers.errors import Cause, ProviderError, Unreachable


class StepFailed(Exception):
    """The step could not be completed. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class FirstPatient:
    """The first patient and the name of their device, as the administrator entered them."""

    name: str
    companion_name: str
    language: str
    device_name: str


def check_database() -> str:
    """Checks that the database answers and all migrations have run."""
    found = database.check_database()
    if found.works:
        found = database.check_migrations()
    if not found.works:
        raise StepFailed(f"{found.title}: {found.state}. {found.advice}")
    return f"all migrations have run ({connection.vendor})"


def existing_administrator() -> User | None:
    return User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()


def create_administrator(username: str, email: str, password: str) -> str:
    if User.objects.filter(username=username).exists():
        raise StepFailed(f"There is a user {username} who is no administrator. Choose another name with --admin.")
    user = User(username=username, email=email)
    try:
        user.clean_fields(exclude=["password"])
    except ValidationError as error:
        raise StepFailed(_describe(error)) from error
    if problem := password_problem(user, password):
        raise StepFailed(problem)
    User.objects.create_superuser(username, email, password)
    return f"created {username}"


def password_problem(user: User, password: str) -> str:
    """Returns what is wrong with the password of this user, or ""."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        return f"The password is too weak. {' '.join(error.messages)}"
    return ""


def _describe(error: ValidationError) -> str:
    """Returns the messages, each with the name of its field."""
    return " ".join(f"{field}: {' '.join(messages)}" for field, messages in error.message_dict.items())


def check_key() -> str:
    """Checks with free requests that the provider accepts the API key."""
    if settings.ELEVENLABS_API_KEY_FILE and not credentials.api_key():
        raise StepFailed(f"{settings.ELEVENLABS_API_KEY_FILE} (ELEVENLABS_API_KEY_FILE) cannot be read or has no key.")
    try:
        with provider_voices.account_client() as client:
            client.models()
    except ProviderError as error:
        raise StepFailed(_explain(error)) from error
    quota.poll_now()  # reads the subscription, and ends the incident of a key that was refused before
    name = "the built-in sandbox answers" if settings.USE_SANDBOX else "the key is accepted"
    state = ProviderState.objects.filter(pk=1).first()
    if state is None or state.quota_remaining is None:
        return name
    return f"{name}; {state.quota_remaining:,} of {state.quota_limit:,} credits are left"


def _explain(error: ProviderError) -> str:
    if settings.USE_SANDBOX:
        return f"The sandbox does not run at {settings.ELEVENLABS_BASE_URL}. Set ELEVENLABS_API_KEY, or start it."
    if error.cause is Cause.KEY:
        key = "the key in ELEVENLABS_API_KEY_FILE" if settings.ELEVENLABS_API_KEY_FILE else "ELEVENLABS_API_KEY"
        return f"The provider refuses the key ({error.code}). Correct {key}, restart what runs, and repeat setup."
    if isinstance(error, Unreachable):
        return f"{settings.ELEVENLABS_BASE_URL} cannot be reached. Check the address and the internet connection."
    return f"{error} ({error.support_details})"


def read_voices() -> str:
    """Reads the account's stock voices."""
    Voice.objects.default()  # creates the row of DEFAULT_VOICE_ID, so that this voice is looked up, too
    try:
        result = sync_stock_voices()
    except ProviderError as error:
        raise StepFailed(_explain(error)) from error
    usable = Voice.objects.filter(source=Voice.Source.STOCK, state=Voice.State.USABLE).count()
    if not usable:
        raise StepFailed("The account has no voice that can be used. Add one in the account's voice library.")
    return f"{usable} stock voices can be used, {result.added} of them are new"


def choose_default_voice(wanted: str) -> str:
    """Makes the stock voice with this name or provider id the default voice. Without `wanted`, keeps the current one.

    Without a current one, the server chooses.
    """
    if wanted:
        stock = Voice.objects.filter(source=Voice.Source.STOCK, state=Voice.State.USABLE)
        found = list(stock.filter(Q(name__iexact=wanted) | Q(provider_id=wanted)))
        if len(found) != 1:
            names = ", ".join(stock.values_list("name", flat=True)[:20]) or "none"
            raise StepFailed(f"{len(found)} voices are called {wanted}. Use an id, or one of these names: {names}.")
        DefaultVoice.objects.update_or_create(
            language="",
            chosen_by=DefaultVoice.ChosenBy.ADMINISTRATOR,
            defaults={"voice": found[0], "chosen_at": timezone.now()},
        )
    voice = Voice.objects.default()
    if voice is None:
        raise StepFailed("No voice can be used. Patients would hear the offline voice.")
    if settings.DEFAULT_VOICE_ID not in ("", voice.provider_id):
        raise StepFailed(f"The voice of DEFAULT_VOICE_ID cannot be used. {voice.name} takes its place.")
    if voice.ends_at is not None:
        return f"{voice.name}. The provider ends it on {voice.ends_at:%Y-%m-%d}; another one then takes its place"
    return voice.name


def check_phrases() -> str:
    """Checks that every language of a patient has a greeting."""
    missing = languages_without_greeting(active_patients())
    if missing:
        names = ", ".join(gap.name for gap in missing)
        raise StepFailed(f"No greeting in: {names}. Add phrases in these languages in the admin.")
    greeted = Phrase.objects.filter(kind=Phrase.Kind.GREETING).order_by("language").values_list("language", flat=True)
    return f"greetings in {', '.join(greeted)}"


def check_alerts(*, send_test: bool) -> str:
    """Checks that there is a way to alert administrators. With `send_test`, it sends a test alert."""
    names = channel_check.channel_names()
    if not names:
        raise StepFailed(
            "Nobody would be alerted. Set ADMIN_EMAILS (with EMAIL_URL) or ALERT_WEBHOOK_URL, or add a notification "
            "channel in the admin."
        )
    if not send_test:
        return f"by {' and '.join(names)}; no test alert was sent"
    failures = [result for result in channel_check.send_test_alerts() if result.error]
    if failures:
        raise StepFailed("The test alert failed. " + " ".join(f"{name}: {why}" for name, _, why in failures))
    return f"a test alert was sent by {' and '.join(names)}"


def has_device() -> bool:
    return Device.objects.bedside().filter(revoked_at=None, patient__in=active_patients()).exists()


@transaction.atomic
def create_patient(first: FirstPatient) -> tuple[str, str]:
    """Creates the patient and a device. Returns the line, and the token of the device, which cannot be read again."""
    patient = Patient(name=first.name, companion_name=first.companion_name, language=first.language)
    if problem := language_problem(first.language):
        raise StepFailed(problem)
    try:
        patient.full_clean()
        Device(name=first.device_name).clean_fields(exclude=["patient", "token_prefix", "token_digest"])
    except ValidationError as error:
        raise StepFailed(_describe(error)) from error
    patient.save()
    _, token = Device.objects.issue(patient, first.device_name)
    task_queue.enqueue_on_commit(task_names.WARM_PATIENT, patient.pk)
    return f"created {patient.name} with the device {first.device_name}", token


def language_problem(language: str) -> str:
    """Returns what is wrong with the language of a patient, or ""."""
    if languages.is_listed(language):
        return ""
    return f"{language} is no language of the list. Use a code such as en, de or fr."


def check_broker() -> str:
    """Checks that the broker answers, which worker and beat need."""
    part = async_to_sync(parts.check_broker)()
    if not part.works:
        raise StepFailed(f"{part.state}. Check REDIS_URL.")
    return part.state


def missing_processes() -> str:
    """Returns what to start, or "" if worker and beat run."""
    missing = heartbeats.missing_processes()
    return f"start {' and '.join(missing)}: `honcho start`" if missing else ""
