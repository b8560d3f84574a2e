"""`python manage.py seed_demo` creates the data of the demo, which `make run` starts."""

import os
import time
from argparse import ArgumentParser

import requests
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from usage.alerts import heartbeats
from voicecare.core import task_names, task_queue
from voicecare.core.lan import ANY, lan_address
from voicecare.management import demo_address
from voicecare.management.demo_data import ADMIN, CLINICIAN, seed

START_TIMEOUT_S = 120.0
POLL_INTERVAL_S = 0.5
REQUEST_TIMEOUT_S = 5.0

_TEXT = """
{headline}

admin       {site}/admin/       user {admin}, password {password}
in browser  {site}/console/     user {clinician}, the same password
REST API    {site}/api/docs/    user {clinician}, the same password
provider    {provider}
device      {socket}, subprotocol voicecare.v1
token       {token}
talk        .venv/bin/python manage.py talk "Good morning"
"""

_LAN_TEXT = """
For a device in the same network:

address     ws://{lan}:{port}/ws/device/
token       {token}
in browser  http://{lan}:{port}/console/

Nothing is encrypted, and everybody in this network can try to log in. Use it with the demo only.
"""

_NO_LAN_TEXT = "\nThis machine has no network, so no other device can connect.\n"


class Command(BaseCommand):
    help = "Create the demo's users, patients, devices, voices and phrases where they are missing; print how to use it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or 8000))
        parser.add_argument(
            "--when-ready",
            action="store_true",
            help="print only when all processes of `make run` answer",
        )

    def handle(self, *, port: int, when_ready: bool, verbosity: int, **options: object) -> None:
        if not settings.DEBUG:
            raise CommandError("The demo stores an administrator's password on disk, so it needs DEBUG to be on.")
        demo = seed()
        lan = lan_address(settings.HOST)
        host = settings.HOST if lan == settings.HOST else "127.0.0.1"
        demo_address.write(demo_address.DemoAddress(host, port, settings.SANDBOX_PORT))
        headline = "The demo is set up. `make run` starts it."
        if when_ready:
            silent = _wait_until_ready(host, port)
            if silent:
                headline = f"Not ready after {START_TIMEOUT_S:.0f} s, no answer from: {', '.join(silent)}."
            else:
                headline = "Ready. Ctrl-C stops everything."
                task_queue.enqueue_on_commit(task_names.WARM_DUE)
        if verbosity:
            sandbox = f"built-in sandbox, {settings.ELEVENLABS_BASE_URL}/ (no account is used, nothing is billed)"
            text = _TEXT.format(
                headline=headline,
                site=f"http://{host}:{port}",
                socket=f"ws://{host}:{port}/ws/device/",
                admin=ADMIN,
                clinician=CLINICIAN,
                password=demo.password,
                token=demo.token,
                provider=sandbox if settings.USE_SANDBOX else "ElevenLabs",
            )
            self.stdout.write(text)
            if lan is not None:
                self.stdout.write(_LAN_TEXT.format(lan=lan, port=port, token=demo.token))
            elif settings.HOST == ANY:
                self.stdout.write(_NO_LAN_TEXT)


def _wait_until_ready(host: str, port: int) -> list[str]:
    """Waits until all processes of `make run` respond or send a heartbeat, at most START_TIMEOUT_S.

    Returns the names of the processes that do not, or an empty list.
    """
    urls = {"web": f"http://{host}:{port}/readyz"}
    if settings.USE_SANDBOX:
        urls["sandbox"] = settings.ELEVENLABS_BASE_URL
    started = time.monotonic()
    task_queue.enqueue_on_commit(task_names.HEARTBEAT)  # the schedule would ask the worker only after 15 s
    while True:
        elapsed_s = time.monotonic() - started
        # An older heartbeat may be from an earlier start.
        alive = {name for name, last in heartbeats.read_heartbeats().items() if last.age_s <= elapsed_s}
        missing = [name for name in (heartbeats.WORKER, heartbeats.BEAT) if name not in alive]
        silent = [*(name for name, url in urls.items() if not _answers(url)), *missing]
        if not silent or elapsed_s > START_TIMEOUT_S:
            return silent
        time.sleep(POLL_INTERVAL_S)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=REQUEST_TIMEOUT_S).ok
    except requests.RequestException:
        return False
