"""From a recording to a voice: the claim and the outcomes. What comes in is in `submission`, what is asked of the
provider in `gateway.provider_voices`.

Every transition is one conditional UPDATE; `attempts` only grows and is the fence: whoever ends an attempt must still
be in it. A worker that dies leaves its lease, and when that is over the sweep goes on: it finds at the provider what
the dead one has made. So a lease is longer than anything that a worker may still have under way there.
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

RETRY_DELAYS_S = (5, 15, 60)  # before the second attempt, the third, the fourth and last
MAX_ATTEMPTS = len(RETRY_DELAYS_S) + 1
JITTER = 0.2
LOOKUP_LEASE = timedelta(seconds=90)
# An upload may take 60 s to connect, 60 to send, 120 to the answer and 60 for that; the provider then knows of it.
UPLOAD_LEASE = timedelta(seconds=320)
SWEEP_TIME_LIMIT_S = 60.0  # then the next sweep goes on; well below Celery's limit for a task

Status = CloneJob.Status

log = structlog.get_logger(__name__)


class NotRetryable(VoicecareError):
    """There is nothing to retry: it has not failed, or its recording is deleted. REST: 409."""

    code = "not_retryable"


class _AttemptFailed(Exception):
    """This attempt makes no voice."""

    def __init__(self, failure: CloneFailure) -> None:
        super().__init__(failure.code)
        self.failure = failure


class _LeaseLost(Exception):
    """The job is not this attempt's any more: withdrawn meanwhile, or its lease was over."""


def sweep() -> None:
    """Runs what is due and what a dead worker has left. Idempotent; any number of processes may do it at once."""
    overdue = CloneJob.objects.filter(status=Status.UPLOADING, lease_until__lte=Now(), attempts__gte=F("last_attempt"))
    _fail(overdue, CloneFailure.from_code("interrupted"))
    deadline = time.monotonic() + SWEEP_TIME_LIMIT_S
    for job_id in _due().values_list("pk", flat=True).order_by("created_at"):
        if time.monotonic() > deadline:
            return
        run(job_id)


def run(job_id: uuid.UUID) -> None:
    """One attempt, if it is due and nobody else is in one. The outcome is in the row; what cannot be is raised."""
    claimed = {"status": Status.UPLOADING, "attempts": F("attempts") + 1, "lease_until": Now() + LOOKUP_LEASE}
    with transaction.atomic():  # nobody takes it between the two statements
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
    # No join: PostgreSQL would then not look again at a row that another worker has just taken.
    is_erased = Exists(Patient.objects.filter(pk=OuterRef("patient"), erased_at__isnull=False))
    return CloneJob.objects.filter(waiting | abandoned, ~is_erased, attempts__lt=F("last_attempt"))


def _owned(job: CloneJob) -> QuerySet[CloneJob]:
    """The fence: empty once anybody else has changed the row's state."""
    return CloneJob.objects.filter(pk=job.pk, status=Status.UPLOADING, attempts=job.attempts)


def _make_voice(job: CloneJob) -> ProviderVoice:
    """Raises ProviderError, _Refused or _Lost."""
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
    return provider_voices.create_voice(job, _read_sample(job), partial(_renew_lease, job))


def _read_sample(job: CloneJob) -> bytes:
    try:
        with job.open_sample() as file:
            data: bytes = file.read()
            return data
    except FileNotFoundError as error:
        raise _AttemptFailed(CloneFailure.from_code("sample_gone")) from error
    except Exception as error:  # whatever the storage's library raises
        log.warning("cloning.storage_unavailable", job=str(job.pk), error=type(error).__name__)
        raise _AttemptFailed(CloneFailure.from_code("storage_unavailable", retryable=True)) from error


def _renew_lease(job: CloneJob) -> None:
    if not _owned(job).update(lease_until=Now() + UPLOAD_LEASE):
        raise _LeaseLost


def _retry_or_fail(job: CloneJob, failure: CloneFailure) -> None:
    """The attempt has made no voice: another one later, if that can help, or none."""
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
    """A withdrawal waits until this worker has nothing under way at the provider any more: now."""
    withdrawn = CloneJob.objects.filter(pk=job.pk, status=Status.WITHDRAWING, attempts=job.attempts)
    if withdrawn.update(lease_until=None):
        task_queue.enqueue_on_commit(task_names.WITHDRAW_CLONE, job.pk)


def _complete(job: CloneJob, provider_voice: ProviderVoice) -> None:
    """The voice, the patient's choice and the job in one transaction: who dies before it has changed nothing here."""
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
    """The provider lets it speak now."""
    with transaction.atomic():
        waiting = CloneJob.objects.filter(pk=job.pk, status=Status.READY, requires_verification=True)
        if waiting.update(requires_verification=False, error_code="", error_message=""):
            activation.activate(job)


def retry(job: CloneJob) -> CloneJob:
    """Has it made once more, in the same voice of ours: after a failure, or when the provider has lost it.

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
                raise NotRetryable("There is nothing to retry: it has not failed, or its recording is deleted.")
            task_queue.enqueue_on_commit(task_names.RUN_CLONE_JOB, job.pk)
    except IntegrityError as error:
        raise NotRetryable("The same recording is being made into a voice already.") from error
    job.refresh_from_db()
    return job
