"""The runtime of a server process. It builds the parts of the process, starts them, and shuts them down.

The parts are, for example, the provider client, the phrase cache, the recorder and the connection registry. daphne
sends no ASGI lifespan events, so the first scope of any kind starts the runtime. The runtime then handles SIGTERM,
because daphne would close every socket in the middle of a word.
"""

import asyncio
import gc
import math
import signal
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import structlog
from django.conf import settings
from django.db import DatabaseError

from tts.cache.phrase_cache import PhraseCache
from tts.cache.single_flight import SingleFlight
from tts.cache.stores import create_store
from tts.conversations.model_check import ModelProblem, find_model_problems
from tts.devices import close_reasons, daphne_fast_path
from tts.devices.registry import ConnectionRegistry
from tts.recorder import Recorder
from tts.resilience.circuit_breaker import CircuitBreaker
from tts.resilience.concurrency import create_limiter
from tts.resilience.error_reporter import ErrorReporter
from tts.resilience.quota_gate import QuotaGate
from tts.resilience.speech_gateway import RecorderLedger, SpeechGateway
from tts.resilience.state_watcher import ProviderStatePoller
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.hedging import HedgePolicy
from tts.synthesis.probe import ProviderProbe
from tts.synthesis.response_speeches import ResponseSpeeches
from usage.alerts.heartbeats import HeartbeatMonitor
from usage.ledger import events, journal
from usage.provider_state import access
from usage.provider_state import quota as subscription
from voicecare.core import metrics, pubsub
from voicecare.core.database import run_in_db_thread
from voicecare.providers.elevenlabs import credentials
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.client import SpeechClient
from voicecare.providers.elevenlabs.models import CATALOGUE, ModelCatalogue
from voicecare.providers.elevenlabs.responses import Model
from voicecare.providers.errors import Cause, ProviderError
from voicecare.providers.espeak.client import OfflineSynthesizer
from voicecare.webhooks import offline
from voicecare.webhooks.offline import OfflineMonitor

CACHE_MAINTENANCE_INTERVAL_S = 5.0  # for writing hits, and for dropping deleted clips from memory
HEARTBEAT_CHECK_INTERVAL_S = 5.0
KEY_CHECK_INTERVAL_S = 1.0
OWN_REFUSAL_S = 120.0
MODELS_INTERVAL_S = 6 * 3600.0  # the provider adds languages to its models a few times in a year
MODELS_RETRY_S = 300.0
MODELS_TIMEOUT_S = (2.0, 5.0)  # connect, read
SWITCH_INTERVAL_S = 0.0001
GC_THRESHOLDS = (50_000, 2, 10)  # Python's default is (700, 10, 10)
JOURNAL_RECOVERY_INTERVAL_S = 15.0
CLOSE_TIMEOUT_S = 2.0  # for background tasks to end
CLOSE_GRACE_S = 0.3  # for sending the close frames before the server stops

log = structlog.get_logger(__name__)


class Runtime:
    """The parts of one server process. `start` builds them, `drain` shuts them down.

    Celery workers and management commands have no runtime.
    """

    def __init__(self) -> None:
        self.draining = False
        self.is_closed = False
        """Whether the event loop is about to stop, so that no HTTP request may begin."""
        self.speeches = ResponseSpeeches()
        self.model_problems: list[ModelProblem] = []
        self._requests: set[asyncio.Task[Any]] = set()
        self._dependencies: SpeechDependencies | None = None
        self._registry: ConnectionRegistry | None = None
        self._provider_state: ProviderStatePoller | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_started(self) -> bool:
        return self._dependencies is not None

    @property
    def dependencies(self) -> SpeechDependencies:
        """The objects that the speech pipeline needs. Raises RuntimeError before `start`."""
        if self._dependencies is None:
            raise RuntimeError("The runtime has not been started. It starts with the first ASGI scope.")
        return self._dependencies

    @property
    def registry(self) -> ConnectionRegistry:
        """The registry of the device connections. Raises RuntimeError before `start`."""
        if self._registry is None:
            raise RuntimeError("The runtime has not been started. It starts with the first ASGI scope.")
        return self._registry

    @property
    def access_refused(self) -> bool:
        """Whether the provider refuses our API key, plan or permissions.

        This process may have another key than the others, so its own requests of the last two minutes count as well as
        the shared state.
        """
        if self._provider_state is None:
            return False
        refused_at = self.dependencies.error_reporter.access_refused_at
        is_refused_here = refused_at > max(self.dependencies.gateway.accepted_at, time.monotonic() - OWN_REFUSAL_S)
        return self._provider_state.access_refused or is_refused_here

    async def start(self) -> None:
        """Build and start all parts. Idempotent. Runs on the server's event loop."""
        if self._dependencies is not None:
            return
        journal_folder = settings.DATA_DIR / journal.FOLDER
        client = SpeechClient(settings.ELEVENLABS_BASE_URL, credentials.api_key())
        circuit = CircuitBreaker()
        quota = QuotaGate(self.spawn)
        slots = create_limiter(settings.REDIS_URL)
        recorder = Recorder(journal.open_journal(journal_folder))
        gateway = SpeechGateway(client, RecorderLedger(recorder), limiter=slots, quota=quota, models=CATALOGUE)
        dependencies = self._dependencies = SpeechDependencies(
            client=client,
            gateway=gateway,
            offline_voice=OfflineSynthesizer(),
            circuit=circuit,
            quota=quota,
            limiter=slots,
            error_reporter=ErrorReporter(circuit, self.spawn),
            phrase_cache=PhraseCache(create_store(settings), settings.PHRASE_SECRET, settings.PHRASE_TTL_S),
            single_flight=SingleFlight(),
            recorder=recorder,
            hedging=HedgePolicy(settings.HEDGE_SHARE),
            spawn=self.spawn,
            first_byte_s=settings.FIRST_CHUNK_TIMEOUT_S,
            stall_s=settings.STALL_TIMEOUT_S,
            busy_wait_s=settings.BUSY_WAIT_S,
            zero_retention=settings.ELEVENLABS_ZERO_RETENTION,
        )
        registry = self._registry = ConnectionRegistry(quota)
        probe = ProviderProbe(dependencies)
        dependencies.error_reporter.outages.probe = probe
        watch = self._provider_state = ProviderStatePoller(
            circuit, quota, slots, probe.run, self.spawn, gateway=gateway
        )
        daphne_fast_path.check()
        close_reasons.check()
        await client.open()
        self.spawn(dependencies.offline_voice.start())
        self.spawn(registry.run())
        self.spawn(registry.keep_alive())
        self.spawn(watch.run())
        self.spawn(pubsub.process_pubsub().run(registry.wake_patient, watch.poll_now))
        self.spawn(self._maintain_cache(dependencies.phrase_cache))
        self.spawn(self._monitor_heartbeats())
        self.spawn(self._report_offline_devices())
        self.spawn(self._update_models(CATALOGUE))
        if settings.ELEVENLABS_API_KEY_FILE:
            self.spawn(self._follow_key_file(client))
        self.spawn(self._recover_journals(journal_folder))
        loop = asyncio.get_running_loop()
        metrics.TASKS.set_function(lambda: len(asyncio.all_tasks(loop)))
        metrics.HELD_BYTES.set_function(lambda: sum(connection.buffered_bytes() for connection in registry.connections))
        metrics.SLOTS_HELD.set_function(lambda: dependencies.limiter.held_count)
        metrics.SLOTS_WAITING.set_function(lambda: dependencies.limiter.waiting_count)
        _tune_interpreter()
        self._install_sigterm_handler()

    @contextmanager
    def http_request(self) -> Iterator[None]:
        """Mark the current task as an HTTP request inside the block, so that `drain` waits for its end."""
        task = cast(asyncio.Task[Any], asyncio.current_task())
        self._requests.add(task)
        try:
            yield
        finally:
            self._requests.discard(task)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run the coroutine in the background until it ends or the process shuts down. If it fails, log its error."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    async def _maintain_cache(self, phrases: PhraseCache) -> None:
        while True:
            await asyncio.sleep(CACHE_MAINTENANCE_INTERVAL_S)
            await phrases.write_hits()
            await phrases.evict_deleted()

    async def _update_models(self, models: ModelCatalogue) -> None:
        """Read regularly what the provider's models can do. The call is free, and no speech waits for it."""
        while True:
            try:
                models.update(await asyncio.to_thread(_read_models))
            except ProviderError as error:
                log.info("runtime.models_unread", particulars=error.support_details)
                if error.cause is Cause.KEY:  # known seconds after the start, before a patient notices
                    with suppress(DatabaseError):  # the poll of the subscription finds it, too
                        await run_in_db_thread(access.report_refused, error)
                pause_s = MODELS_RETRY_S
            else:
                pause_s = MODELS_INTERVAL_S
            await self._check_model(models)
            await asyncio.sleep(pause_s)

    async def _check_model(self, models: ModelCatalogue) -> None:
        """Find out what patients lose with the model, for the log and for the page System health."""
        try:
            found = await run_in_db_thread(find_model_problems, models)
        except DatabaseError as error:
            log.warning("runtime.model_unchecked", error=type(error).__name__)
            return
        for problem in found:
            if problem not in self.model_problems:
                log.warning("runtime.model_problem", problem=problem.text)
        self.model_problems = found

    async def _follow_key_file(self, client: SpeechClient) -> None:
        """Use the API key in ELEVENLABS_API_KEY_FILE soon after the file has changed."""
        while True:
            await asyncio.sleep(KEY_CHECK_INTERVAL_S)
            if client.change_key(await asyncio.to_thread(credentials.api_key)):
                self.dependencies.error_reporter.access_refused_at = -math.inf
                with suppress(DatabaseError):  # only shows whether the new key works, without waiting for speech
                    await run_in_db_thread(subscription.poll_now)

    async def _recover_journals(self, folder: Path) -> None:
        """Regularly recover the journals of processes on this machine that have ended.

        This is repeated because some of them end later, and because the database may be unavailable at first. Journals
        on other machines are not touched. The next process on that machine recovers them.
        """
        while True:
            try:
                await run_in_db_thread(journal.recover, folder, events.record_attempts)
            except Exception as error:  # after any error the next attempt may succeed
                log.warning("runtime.journal_recovery_failed", error=type(error).__name__)
            await asyncio.sleep(JOURNAL_RECOVERY_INTERVAL_S)

    async def _monitor_heartbeats(self) -> None:
        """Report a worker or beat that has stopped. Patients do not notice that, so administrators have to."""
        monitor = HeartbeatMonitor(time.time())
        while True:
            await asyncio.sleep(HEARTBEAT_CHECK_INTERVAL_S)
            try:
                await run_in_db_thread(monitor.check, time.time())
            except Exception as error:  # after any error the next check may succeed
                log.warning("runtime.heartbeat_check_failed", error=type(error).__name__)

    async def _report_offline_devices(self) -> None:
        """Inform integrators about devices that have been offline for long."""
        monitor = OfflineMonitor(time.time())
        while True:
            await asyncio.sleep(offline.INTERVAL_S)
            try:
                await run_in_db_thread(monitor.check, time.time())
            except Exception as error:  # after any error the next check may succeed
                log.warning("runtime.offline_check_failed", error=type(error).__name__)

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("runtime.background_task_failed", exc_info=task.exception())

    async def drain(self, seconds: float) -> None:
        """Shut down: refuse new connections and speech, and let playing speech and HTTP responses end within `seconds`.

        Then close all sockets, write all records, and stop the background tasks.
        """
        self.draining = True
        drains = (connection.drain(seconds) for connection in self.registry.connections)
        # An error of one connection must not stop the others.
        await asyncio.gather(*drains, self._finish_requests(seconds), return_exceptions=True)
        await asyncio.sleep(CLOSE_GRACE_S)
        with suppress(DatabaseError):
            await self.dependencies.recorder.flush()
        await self.dependencies.phrase_cache.write_hits()
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
        await self.dependencies.limiter.close()
        await self.dependencies.offline_voice.close()
        await self.dependencies.client.close()
        with suppress(DatabaseError):  # last, because the tasks and the client record the end of their requests
            await self.dependencies.recorder.close()

    async def _finish_requests(self, seconds: float) -> None:
        """Let the running HTTP requests end within `seconds`. Then cancel their speech that still runs."""
        if self._requests:
            await asyncio.wait(self._requests, timeout=seconds)
        await self.speeches.cancel()

    async def _end_all_tasks(self) -> None:
        """Refuse new HTTP requests, let those end that came during `drain`, and cancel all tasks that are left.

        Synchronous middleware waits in a thread for the event loop. If the loop stopped during a request, the thread
        would wait forever, and the process would not end.
        """
        self.is_closed = True
        if self._requests:
            await asyncio.wait(self._requests, timeout=CLOSE_TIMEOUT_S)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)

    def _install_sigterm_handler(self) -> None:
        server_stops: Any = signal.getsignal(signal.SIGTERM)
        if not callable(server_stops):
            return

        async def shut_down() -> None:
            log.info("runtime.drain_started", devices=len(self.registry.connections))
            try:
                await self.drain(settings.DRAIN_TIMEOUT_S)
                await self._end_all_tasks()
            finally:
                server_stops(signal.SIGTERM, None)

        def on_sigterm() -> None:
            if self.draining:  # a second SIGTERM stops the server immediately
                server_stops(signal.SIGTERM, None)
            else:
                self.spawn(shut_down())

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_sigterm)


def _read_models() -> list[Model]:
    base_url, api_key = settings.ELEVENLABS_BASE_URL, credentials.api_key()
    with closing(AccountClient(base_url, api_key, timeout=MODELS_TIMEOUT_S)) as client:
        return client.models()


def _tune_interpreter() -> None:
    """Set three interpreter options, so that database threads and the garbage collector do not delay audio.

    A thread that writes rows takes the GIL whenever it sends or receives. The event loop then waits for up to one
    switch interval. Python's default is 5 ms. With 200 speakers, an interval of 0.1 ms lowers the 95th percentile of
    the server's share of the time to first audio from 3.6-4.7 ms to 2.1-2.7 ms.

    `gc.freeze` excludes all objects that exist now, mostly modules, from garbage collection. So no later collection has
    to walk through them while a patient listens.

    `gc.set_threshold`: a full collection walks through all connections, which takes 0.1 ms for each. Nothing is sent
    meanwhile. The sweep of the registry creates some objects for each connection every second. With Python's
    thresholds, they survive two collections before they are freed, count as long-lived, and cause a full collection
    about every six seconds. With these thresholds, nearly all are freed before the first collection.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


runtime = Runtime()
