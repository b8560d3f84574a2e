"""Runs clone jobs: claims a job, creates its voice at the provider, and writes the outcome.

Every transition is one conditional UPDATE. `attempts` only grows and is the fencing token: a worker can end an attempt
only while `attempts` has not changed. The lease of a dead worker expires. Then the sweep starts a new attempt, which
finds the voice that the dead worker may have created. So a lease must be longer than any request of a worker.
"""

import random
import time
import uuid
from datetime import timedelta
from functools import partial

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
from voicecare.core.errors import VoicecareError
from voicecare.patients.models import Patient, Voice
from voicecare.providers.errors import ProviderError

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
    """The job has not failed, or its recording is deleted. REST status 409."""

    code = "not_retryable"


class _AttemptFailed(Exception):
    """This attempt cannot create a voice."""

    def __init__(self, failure: CloneFailure) -> None:
        super().__init__(failure.code)
        self.failure = failure


class _LeaseLost(Exception):
    """This attempt no longer owns the job. The job was withdrawn, or the lease has expired."""


def sweep() -> None:
    """Runs all jobs that are due, and jobs of dead workers. Idempotent. Several processes may run it in parallel."""
    overdue = CloneJob.objects.filter(status=Status.UPLOADING, lease_until__lte=Now(), attempts__gte=F("last_attempt"))
    _fail(overdue, CloneFailure.from_code("interrupted"))
    deadline = time.monotonic() + SWEEP_TIME_LIMIT_S
    for job_id in _due().values_list("pk", flat=True).order_by("created_at"):
        if time.monotonic() > deadline:
            return
        run(job_id)


def run(job_id: uuid.UUID) -> None:
    """Makes one attempt, if it is due and no other worker owns the job. Writes the outcome to the row.

    Raises only unexpected errors.
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
    is_erased = Exists(Patient.objects.filter(pk=OuterRef("patient"), erased_at__isnull=False))
    return CloneJob.objects.filter(waiting | abandoned, ~is_erased, attempts__lt=F("last_attempt"))


def _owned(job: CloneJob) -> QuerySet[CloneJob]:
    """The job if this attempt still owns it. Otherwise empty."""
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
    """Ends an attempt without a voice. Schedules the next attempt if a retry can help. Otherwise the job has failed."""
    if failure.retryable and job.attempts < job.last_attempt:
        delay_s = RETRY_DELAYS_S[job.attempts - job.last_attempt] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
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


def _fail(jobs: QuerySet[CloneJob], failure: CloneFailure) -> int:
    return jobs.update(
        status=Status.FAILED,
        lease_until=None,
        ended_at=Now(),
        error_code=failure.code,
        error_message=failure.message,
    )


def _release_withdrawn(job: CloneJob) -> None:
    """Releases the lease of a withdrawn job. The withdrawal has waited until this worker has no request under way."""
    withdrawn = CloneJob.objects.filter(pk=job.pk, status=Status.WITHDRAWING, attempts=job.attempts)
    if withdrawn.update(lease_until=None):
        task_queue.enqueue_on_commit(task_names.WITHDRAW_CLONE, job.pk)


def _complete(job: CloneJob, provider_voice: ProviderVoice) -> None:
    """Writes the voice, the patient's new voice and the job in one transaction."""
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
    if not is_owned:
        _release_withdrawn(job)


def complete_verification(job: CloneJob) -> None:
    """Activates the voice after the provider has verified its owner."""
    with transaction.atomic():
        waiting = CloneJob.objects.filter(pk=job.pk, status=Status.READY, requires_verification=True)
        if waiting.update(requires_verification=False, error_code="", error_message=""):
            activation.activate(job)


def retry(job: CloneJob) -> CloneJob:
    """Restarts a failed job, or a job whose voice the provider has lost. The row of the voice stays the same.

    Raises NotRetryable.
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
