"""Shared fixtures: patients with devices, and the real processes of the end-to-end tests."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings
from django.core.cache import cache
from django.db import OperationalError, connection
from django.db.backends.base.operations import BaseDatabaseOperations
from django.db.models import Q
from pytest_django.plugin import DjangoDbBlocker

from tests.free_processors import FREE_SHARE, free_processor_share
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess, environment
from tests.usage.alerts.postbox import Webhook
from tests.waiting import until
from tts.models import Phrase
from usage.models import ProviderState
from voicecare.patients.models import Device, Patient, Voice

DEFAULT_VOICE = settings.DEFAULT_VOICE_ID
OTHER_VOICE = "EXAVITQu4vr4xnSDxMaL"  # a stock voice of the sandbox


@dataclass(frozen=True)
class Member:
    """A patient with a device and the token of the device."""

    patient: Patient
    device: Device
    token: str


@pytest.fixture
def phrases(db: None) -> None:
    Phrase.objects.create(kind="greeting", text="Hello {patient_name}, this is {ai_name}. It is good to hear you.")
    for text in ("That's wonderful!", "I see.", "Tell me more."):
        Phrase.objects.create(text=text)


@pytest.fixture
def member(db: None) -> Callable[..., Member]:
    """Return a function that creates a patient with a device.

    `voice` is a provider id, or None for the default voice.
    """

    def make(name: str = "Alice Archer", voice: str | None = None, **fields: object) -> Member:
        Voice.objects.default()
        chosen = voice and Voice.objects.get_or_create(provider_id=voice, defaults={"name": f"Voice {voice[:4]}"})[0]
        patient = Patient.objects.create(name=name, companion_name="Clara", voice=chosen or None, **fields)
        device, token = Device.objects.issue(patient, "bedside")
        return Member(patient, device, token)

    return make


@pytest.fixture
def alice(member: Callable[..., Member]) -> Member:
    """A patient with a chosen voice."""
    return member("Alice Archer", voice=OTHER_VOICE)


@pytest.fixture
def bob(member: Callable[..., Member]) -> Member:
    """A patient with the default voice and no connection to Alice."""
    return member("Bob Baker")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows-only", action="store_true", help="leave out the tests that never reach a database")
    parser.addoption(
        "--no-processes", action="store_true", help="leave out the tests that need the sandbox or a server"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    selected = [
        item
        for item in items
        if not (config.getoption("rows_only") and not _reaches_a_database(item))
        and not (config.getoption("no_processes") and _needs_a_process(item))
    ]
    if len(selected) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in set(selected)])
        items[:] = selected
    _sort(items)


def _sort(items: list[pytest.Item]) -> None:
    """Sort the tests by file: those with a server last, and larger files before smaller ones.

    Servers run until the end of the session. They read the test database every second and claim work there, such as a
    probe, so they would disturb tests of the same work. Several processes of pytest finish at about the same time if
    the large files come first.
    """
    sizes = Counter(item.path for item in items)
    with_server = {item.path for item in items if "start_server" in _fixtures(item)}
    items.sort(key=lambda item: (item.path in with_server, -sizes[item.path]))


def _reaches_a_database(item: pytest.Item) -> bool:
    return "django_db_setup" in _fixtures(item) or item.get_closest_marker("django_db") is not None


def _needs_a_process(item: pytest.Item) -> bool:
    return not _fixtures(item).isdisjoint({"sandbox_process", "start_server"})


def _fixtures(item: pytest.Item) -> set[str]:
    return set(getattr(item, "fixturenames", ()))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("timed") and os.environ.get("CI") != "true" and os.environ.get("TIMED") != "1":
        share = free_processor_share()
        if share < FREE_SHARE:
            pytest.skip(
                f"measures time, and other programs use the machine: a process gets {share:.0%} of a processor, "
                f"and the test needs {FREE_SHARE:.0%}. TIMED=1 runs it anyway."
            )


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Delete the phrases that `migrate` has added, and close all other connections before the database is dropped.

    Tests create the phrases that they need. They would find none after a test that flushes the database, either.
    PostgreSQL does not drop a database that has connections, and ended threads leave theirs to the garbage collector.
    """
    with django_db_blocker.unblock():
        Phrase.objects.all().delete()
    yield
    if connection.vendor == "postgresql":
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(f"{others} AND pid <> pg_backend_pid()")


@pytest.fixture(scope="session", autouse=True)
def retry_flush_after_deadlock() -> Iterator[None]:
    """Retry the flush between two tests after a deadlock.

    Servers read the database every second, so they can deadlock with the flush. PostgreSQL may then abort the flush.
    """
    flush = BaseDatabaseOperations.execute_sql_flush

    def flush_with_retries(operations: BaseDatabaseOperations, statements: list[str]) -> None:
        for _ in range(5):
            with suppress(OperationalError):
                flush(operations, statements)
                return
        flush(operations, statements)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseDatabaseOperations, "execute_sql_flush", flush_with_retries)
        yield


@pytest.fixture(autouse=True)
def empty_cache() -> None:
    """Forget the figures of earlier tests: those of past days and months are cached for up to an hour."""
    cache.clear()


# Real processes


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[SandboxProcess]:
    with SandboxProcess() as process:
        yield process


@pytest.fixture
def sandbox(sandbox_process: SandboxProcess) -> SandboxProcess:
    sandbox_process.reset()
    return sandbox_process


def database_url() -> str:
    """Return the URL of the test database for another process."""
    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        return f"sqlite:///{database['NAME']}"
    user = database["USER"] + (f":{database['PASSWORD']}" if database["PASSWORD"] else "")
    return f"postgres://{user}@{database['HOST']}:{database['PORT'] or 5432}/{database['NAME']}"


@pytest.fixture(scope="session")
def webhook() -> Iterator[Webhook]:
    """The receiver of the alerts of all servers. They share a database, so any of them may send an alert."""
    with Webhook() as webhook:
        yield webhook


@pytest.fixture(scope="session")
def start_server(
    django_db_setup: None,
    sandbox_process: SandboxProcess,
    webhook: Webhook,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., ServerProcess]]:
    """Return a function that starts a server with the test database and the sandbox.

    Positional arguments go to daphne, keyword arguments are settings. With `untouched` the server has not received a
    request when it is returned.
    """
    started: list[ServerProcess] = []

    def start(*arguments: str, untouched: bool = False, **changes: object) -> ServerProcess:
        folder = tmp_path_factory.mktemp("server")
        env = environment(
            DATABASE_URL=database_url(),
            VOICECARE_DATA_DIR=folder,
            **{
                "ELEVENLABS_BASE_URL": sandbox_process.url,
                "SECRET_KEY": settings.SECRET_KEY,
                "QUOTA_POLL_S": 0.3,
                "ALERT_WEBHOOK_URL": webhook.url,
                "PUBLIC_URL": "https://voice.example",
                **changes,
            },
        )
        started.append(ServerProcess(env, Path(folder) / "server.log", *arguments, untouched=untouched))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def shared_server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    return start_server()


@pytest.fixture
def server(shared_server: ServerProcess, sandbox: SandboxProcess, transactional_db: None) -> Iterator[ServerProcess]:
    """The server that all tests share. The database is flushed between tests, after the server has written all rows."""
    yield shared_server
    wait_until_idle(shared_server)


def wait_until_idle(server: ServerProcess, timeout_s: float = 15) -> None:
    """Wait until no device is connected, no request to the provider is in progress, and no row waits to be written.

    A row that is written after the flush would be in the ledger of the next test, and not in the provider's history.
    """
    gauges = ("voicecare_devices_connected", "voicecare_slots_held", "voicecare_recorder_backlog")
    deadline = time.monotonic() + timeout_s
    while any(map(server.gauge, gauges)) and time.monotonic() < deadline:
        time.sleep(0.02)


def wait_until_provider_healthy(server: ServerProcess) -> None:
    """Wait until no process considers the provider down or its quota used up, so that tests start in a healthy state.

    The gauges of the server come first, because the server detects an outage before it writes the row.
    """

    def problems() -> list[object]:
        gauges = [server.gauge("voicecare_circuit_open"), server.gauge("voicecare_quota_spent")]
        rows = ProviderState.objects.filter(Q(circuit="open") | Q(quota="spent")).values_list("circuit", "quota")
        return [*filter(None, gauges), *rows]

    until(problems, wanted=lambda found: not found)
