"""Runs clone jobs: claims a job, creates its voice at the provider, and writes the outcome.

Every transition is one conditional UPDATE. The field `attempts` counts the attempts of a job and is its fencing token:
a worker can write the outcome of its attempt only while `attempts` has the value that the worker has set. The lease of
a worker that has died expires. Then the sweep starts a new attempt, which finds the voice that the dead worker may have
created. So a lease must last longer than any request of a worker.
"""

import random
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import takewhile

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from cloning.gateway import plan_limits, provider_voices
from cloning.gateway.failures import CloneFailure
from cloning.gateway.provider_voices import ProviderVoice
from cloning.jobs import activation
from cloning.models import CloneJob
from voicecare.core import task_names, task_queue
from voicecare.core.batches import process_each
from voicecare.core.errors import VoicecareError
from voicecare.patients.models import Patient, Voice
from voicecare.providers.errors import ProviderError
from voicecare.webhooks import events
from voicecare.webhooks.events import Subject
from voicecare.webhooks.models import EventType

RETRY_DELAYS_S = (5, 15, 60)  # before the second, third and fourth attempt
MAX_ATTEMPTS = len(RETRY_DELAYS_S) + 1
JITTER = 0.2
LOOKUP_LEASE = timedelta(seconds=90)
# An upload can take 60 s to connect, 60 s to send, 120 s until the response starts and 60 s for the response.
UPLOAD_LEASE = timedelta(seconds=320)
SWEEP_TIME_LIMIT_S = 60.0  # the next sweep continues; well below Celery's time limit for a task

Status = CloneJob.Status

log = structlog.get_logger(__name__)


class NotRetryable(VoicecareError):
    """The job cannot be retried. REST status 409.

    It has not failed, its recording is deleted, or another job of the same recording is already in progress.
    """

    code = "not_retryable"


class _AttemptFailed(Exception):
    """This attempt has not created a voice. `failure` is the reason, and says whether a retry can help."""

    def __init__(self, failure: CloneFailure) -> None:
        super().__init__(failure.code)
        self.failure = failure


class _LeaseLost(Exception):
    """This attempt no longer owns the job, because the consent was withdrawn or the lease has expired."""


def sweep(start: Callable[[uuid.UUID], None]) -> None:
    """Starts an attempt for each job that is due, and for each job whose worker has died.

    Idempotent. Several processes may call this in parallel. `start` is called with the id of each job. It is `run`, or
    a function that calls `run` in another thread. If a call fails, the other jobs are still started. Then RowsFailed is
    raised.
    """
    overdue = CloneJob.objects.filter(status=Status.UPLOADING, lease_until__lte=Now(), attempts__gte=F("last_attempt"))
    _fail(overdue, CloneFailure.from_code("interrupted"))
    deadline = time.monotonic() + SWEEP_TIME_LIMIT_S
    due = _due().values_list("pk", flat=True).order_by("created_at")
    process_each("clones.run", takewhile(lambda _: time.monotonic() < deadline, due), start)


def run(job_id: uuid.UUID) -> None:
    """Makes one attempt to create the voice, and writes the outcome to the row of the job.

    Does nothing if no attempt is due, or if another worker owns the job. Raises only unexpected errors, because errors
    of the provider and of the storage are outcomes.
    """
    claimed = {"status": Status.UPLOADING, "attempts": F("attempts") + 1, "lease_until": Now() + LOOKUP_LEASE}
    with transaction.atomic():  # no other worker can claim the job between the two statements
        if not _due().filter(pk=job_id).update(**claimed, next_attempt_at=None):
            return
        job = CloneJob.objects.select_related("voice").get(pk=job_id)
    try:
        provider_voice = _make_voice(job)
    except ProviderError as error:
        provider_voices.report_error(error)
        _retry_or_fail(job, CloneFailure.from_error(error))
    except _AttemptFailed as error:
        _retry_or_fail(job, error.failure)
    except _LeaseLost:
        _release_withdrawn(job)
    else:
        _complete(job, provider_voice)


def _due() -> QuerySet[CloneJob]:
    waiting = Q(status=Status.PENDING) & (Q(next_attempt_at=None) | Q(next_attempt_at__lte=Now()))
    abandoned = Q(status=Status.UPLOADING, lease_until__lte=Now())
    # No join: with a join PostgreSQL does not check again a row that another worker has just claimed.
    is_erased = Exists(Patient.objects.filter(pk=OuterRef("patient")).exclude(erases_at=None, erased_at=None))
    return CloneJob.objects.filter(waiting | abandoned, ~is_erased, attempts__lt=F("last_attempt"))


def _owned(job: CloneJob) -> QuerySet[CloneJob]:
    """Returns a queryset with the row of this job if this attempt still owns the job.

    Otherwise the queryset is empty.
    """
    return CloneJob.objects.filter(pk=job.pk, status=Status.UPLOADING, attempts=job.attempts)


def _make_voice(job: CloneJob) -> ProviderVoice:
    """Finds or creates the voice at the provider. Raises ProviderError, _AttemptFailed or _LeaseLost."""
    with provider_voices.account_client() as client:
        provider_voice = provider_voices.find_existing(client, job)
        if provider_voice is not None:
            return provider_voice
        subscription = provider_voices.read_subscription(client)
    if subscription is not None:
        plan_limits.update_incident(subscription)
        failure = plan_limits.blocking_limit(subscription)
        if failure is not None:
            raise _AttemptFailed(failure)
    try:
        with job.open_sample() as file:
            recording = file.read()
    except FileNotFoundError as error:
        raise _AttemptFailed(CloneFailure.from_code("sample_gone")) from error
    except Exception as error:  # libraries of storages raise exceptions of many types
        log.warning("cloning.storage_unavailable", job=str(job.pk), error=type(error).__name__)
        raise _AttemptFailed(CloneFailure.from_code("storage_unavailable", retryable=True)) from error
    return provider_voices.create_voice(job, recording, partial(_renew_lease, job))


def _renew_lease(job: CloneJob) -> None:
    if not _owned(job).update(lease_until=Now() + UPLOAD_LEASE):
        raise _LeaseLost


def _retry_or_fail(job: CloneJob, failure: CloneFailure) -> None:
    """Ends an attempt that has not created a voice.

    The next attempt is scheduled if a retry can help and not all attempts are used up. Otherwise the job fails.
    """
    if failure.retryable and job.attempts < job.last_attempt:
        delay_s = RETRY_DELAYS_S[job.attempts - job.last_attempt] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
        ended = _owned(job).update(
            status=Status.PENDING,
            lease_until=None,
            next_attempt_at=Now() + timedelta(seconds=delay_s),
            error_code=failure.code,
            error_message=failure.message,
        )
    else:
        ended = _fail(_owned(job), failure)
    if not ended:
        _release_withdrawn(job)


@transaction.atomic
def _fail(jobs: QuerySet[CloneJob], failure: CloneFailure) -> int:
    keys = list(jobs.select_for_update().order_by("pk").values_list("pk", flat=True))
    failed = CloneJob.objects.filter(pk__in=keys)
    failed.update(
        status=Status.FAILED,
        lease_until=None,
        ended_at=Now(),
        error_code=failure.code,
        error_message=failure.message,
    )
    events.emit(EventType.CLONE_FAILED, _webhook_subjects(failed))
    return len(keys)


def _release_withdrawn(job: CloneJob) -> None:
    """Ends the lease of a job that was withdrawn during this attempt, so that the withdrawal can start.

    The withdrawal waits for this, because the attempt could still create a voice. Does nothing if the job was not
    withdrawn.
    """
    withdrawn = CloneJob.objects.filter(pk=job.pk, status=Status.WITHDRAWING, attempts=job.attempts)
    if withdrawn.update(lease_until=None):
        task_queue.enqueue_on_commit(task_names.WITHDRAW_CLONE, job.pk)


def _complete(job: CloneJob, provider_voice: ProviderVoice) -> None:
    """Writes the outcome of a successful attempt in one transaction: the voice, the job, and the patient's new voice.

    If the provider must first verify the owner of the voice, the patient keeps the previous voice. Writes nothing if
    this attempt no longer owns the job.
    """
    with transaction.atomic():
        is_owned = _owned(job).select_for_update().first() is not None
        if is_owned:
            _owned(job).update(
                status=Status.READY,
                voice=activation.upsert_voice(job, provider_voice),
                lease_until=None,
                ended_at=Now(),
                requires_verification=provider_voice.requires_verification,
                error_code="",
                error_message="",
            )
            job.refresh_from_db()
            if provider_voice.requires_verification:
                failure = CloneFailure.from_code("verification_required")
                CloneJob.objects.filter(pk=job.pk).update(error_code=failure.code, error_message=failure.message)
            else:
                activation.activate(job)
                events.emit(EventType.CLONE_READY, _webhook_subjects(CloneJob.objects.filter(pk=job.pk)))
    if not is_owned:
        _release_withdrawn(job)


def complete_verification(job: CloneJob) -> None:
    """Makes the voice the patient's voice, after the provider has verified its owner. Idempotent."""
    with transaction.atomic():
        waiting = CloneJob.objects.filter(pk=job.pk, status=Status.READY, requires_verification=True)
        if waiting.update(requires_verification=False, error_code="", error_message=""):
            activation.activate(job)
            events.emit(EventType.CLONE_READY, _webhook_subjects(CloneJob.objects.filter(pk=job.pk)))


def _webhook_subjects(jobs: QuerySet[CloneJob]) -> Iterator[Subject]:
    """What integrators get to know about these jobs (docs/webhooks.md)."""
    for job in jobs.order_by("pk"):
        data = {
            "id": job.pk,
            "voice": job.voice_id,
            "status": job.status,
            "code": job.error_code,
            "created_at": job.created_at,
            "ended_at": job.ended_at,
        }
        yield Subject(job.pk, job.patient_id, data)


def retry(job: CloneJob) -> CloneJob:
    """Restarts a failed job, or a job whose voice the provider has lost. Returns the same `job`, with its new state.

    A lost voice keeps its row in the database. Raises NotRetryable.
    """
    lost = Q(status=Status.READY, voice__state=Voice.State.GONE)
    failed = CloneJob.objects.filter(lost | Q(status=Status.FAILED), pk=job.pk).exclude(sample="")
    try:
        with transaction.atomic():
            restarted = failed.update(
                status=Status.PENDING,
                next_attempt_at=None,
                last_attempt=F("attempts") + MAX_ATTEMPTS,
                ended_at=None,
                error_code="",
                error_message="",
            )
            if not restarted:
                raise NotRetryable("There is nothing to retry. The clone has not failed, or its recording is deleted.")
            task_queue.enqueue_on_commit(task_names.RUN_CLONE_JOB, job.pk)
    except IntegrityError as error:
        raise NotRetryable("Another clone of the same recording is already in progress.") from error
    job.refresh_from_db()
    return job
