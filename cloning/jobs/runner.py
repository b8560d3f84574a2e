"""From a recording to a voice: the claim and the outcomes. What comes in is in `submission.py`, what is asked of the
provider in `provider.py`.

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
from cloning.gateway.failures import Refusal
from cloning.gateway.provider_voices import Made
from cloning.jobs import activation
from cloning.jobs.activation import back_to_former_voice
from cloning.jobs.submission import submit
from cloning.models import CloneJob
from voicecare.core import task_names, task_queue
from voicecare.core.errors import VoicecareError
from voicecare.patients.models import Patient, Voice
from voicecare.providers.errors import ProviderError

__all__ = ["NotRetryable", "back_to_former_voice", "retry", "run", "submit", "sweep", "verified"]

PAUSES_S = (5, 15, 60)  # before the second attempt, the third, the fourth and last
ATTEMPTS = len(PAUSES_S) + 1
JITTER = 0.2
LOOK_LEASE = timedelta(seconds=90)
# An upload may take 60 s to connect, 60 to send, 120 to the answer and 60 for that; the provider then knows of it.
UPLOAD_LEASE = timedelta(seconds=320)
SWEEP_S = 60.0  # then the next sweep goes on; well below Celery's limit for a task

Status = CloneJob.Status

log = structlog.get_logger(__name__)


class NotRetryable(VoicecareError):
    """There is nothing to retry: it has not failed, or its recording is deleted. REST: 409."""

    code = "not_retryable"


class _Refused(Exception):
    """This attempt makes no voice."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


class _Lost(Exception):
    """The job is not this attempt's any more: withdrawn meanwhile, or its lease was over."""


def sweep() -> None:
    """Runs what is due and what a dead worker has left. Idempotent; any number of processes may do it at once."""
    overdue = CloneJob.objects.filter(status=Status.UPLOADING, lease_until__lte=Now(), attempts__gte=F("last_attempt"))
    _fail(overdue, Refusal.named("interrupted"))
    until = time.monotonic() + SWEEP_S
    for key in _due().values_list("pk", flat=True).order_by("created_at"):
        if time.monotonic() > until:
            return
        run(key)


def run(job_id: uuid.UUID) -> None:
    """One attempt, if it is due and nobody else is in one. The outcome is in the row; what cannot be is raised."""
    taken = {"status": Status.UPLOADING, "attempts": F("attempts") + 1, "lease_until": Now() + LOOK_LEASE}
    with transaction.atomic():  # nobody takes it between the two statements
        if not _due().filter(pk=job_id).update(**taken, next_attempt_at=None):
            return
        job = CloneJob.objects.select_related("voice").get(pk=job_id)
    try:
        made = _make(job)
    except ProviderError as error:
        provider_voices.report(error)
        _end(job, Refusal.of(error))
    except _Refused as error:
        _end(job, error.refusal)
    except _Lost:
        _let_go(job)
    else:
        _ready(job, made)


def _due() -> QuerySet[CloneJob]:
    waits = Q(status=Status.PENDING) & (Q(next_attempt_at=None) | Q(next_attempt_at__lte=Now()))
    left = Q(status=Status.UPLOADING, lease_until__lte=Now())
    # No join: PostgreSQL would then not look again at a row that another worker has just taken.
    is_erased = Exists(Patient.objects.filter(pk=OuterRef("patient"), erased_at__isnull=False))
    return CloneJob.objects.filter(waits | left, ~is_erased, attempts__lt=F("last_attempt"))


def _held(job: CloneJob) -> QuerySet[CloneJob]:
    """The fence: empty once anybody else has changed the row's state."""
    return CloneJob.objects.filter(pk=job.pk, status=Status.UPLOADING, attempts=job.attempts)


def _make(job: CloneJob) -> Made:
    """Raises ProviderError, _Refused or _Lost."""
    with provider_voices.account() as client:
        made = provider_voices.existing(client, job)
        if made is not None:
            return made
        subscription = provider_voices.subscription(client)
    if subscription is not None:
        plan_limits.note(subscription)
        refusal = plan_limits.refusal(subscription)
        if refusal is not None:
            raise _Refused(refusal)
    return provider_voices.add(job, _recording(job), partial(_hold, job))


def _recording(job: CloneJob) -> bytes:
    try:
        with job.open_sample() as file:
            recording: bytes = file.read()
            return recording
    except FileNotFoundError as error:
        raise _Refused(Refusal.named("sample_gone")) from error
    except Exception as error:  # whatever the storage's library raises
        log.warning("cloning.storage_unavailable", job=str(job.pk), error=type(error).__name__)
        raise _Refused(Refusal.named("storage_unavailable", retryable=True)) from error


def _hold(job: CloneJob) -> None:
    if not _held(job).update(lease_until=Now() + UPLOAD_LEASE):
        raise _Lost


def _end(job: CloneJob, refusal: Refusal) -> None:
    """The attempt has made no voice: another one later, if that can help, or none."""
    if refusal.retryable and job.attempts < job.last_attempt:
        pause = PAUSES_S[job.attempts - job.last_attempt] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
        ended = _held(job).update(
            status=Status.PENDING,
            lease_until=None,
            next_attempt_at=Now() + timedelta(seconds=pause),
            error_code=refusal.code,
            error_message=refusal.message,
        )
    else:
        ended = _fail(_held(job), refusal)
    if not ended:
        _let_go(job)


def _fail(jobs: QuerySet[CloneJob], refusal: Refusal) -> int:
    return jobs.update(
        status=Status.FAILED,
        lease_until=None,
        ended_at=Now(),
        error_code=refusal.code,
        error_message=refusal.message,
    )


def _let_go(job: CloneJob) -> None:
    """A withdrawal waits until this worker has nothing under way at the provider any more: now."""
    withdrawn = CloneJob.objects.filter(pk=job.pk, status=Status.WITHDRAWING, attempts=job.attempts)
    if withdrawn.update(lease_until=None):
        task_queue.enqueue_on_commit(task_names.WITHDRAW_CLONE, job.pk)


def _ready(job: CloneJob, made: Made) -> None:
    """The voice, the patient's choice and the job in one transaction: who dies before it has changed nothing here."""
    with transaction.atomic():
        won = _held(job).select_for_update().first() is not None
        if won:
            _held(job).update(
                status=Status.READY,
                voice=activation.voice_for(job, made),
                lease_until=None,
                ended_at=Now(),
                requires_verification=made.requires_verification,
                error_code="",
                error_message="",
            )
            job.refresh_from_db()
            if made.requires_verification:
                wanted = Refusal.named("verification_required")
                CloneJob.objects.filter(pk=job.pk).update(error_code=wanted.code, error_message=wanted.message)
            else:
                activation.put_to_use(job)
    if not won:
        _let_go(job)


def verified(job: CloneJob) -> None:
    """The provider lets it speak now."""
    with transaction.atomic():
        waits = CloneJob.objects.filter(pk=job.pk, status=Status.READY, requires_verification=True)
        if waits.update(requires_verification=False, error_code="", error_message=""):
            activation.put_to_use(job)


def retry(job: CloneJob) -> CloneJob:
    """Has it made once more, in the same voice of ours: after a failure, or when the provider has lost it.

    Raises NotRetryable.
    """
    lost = Q(status=Status.READY, voice__state=Voice.State.GONE)
    failed = CloneJob.objects.filter(lost | Q(status=Status.FAILED), pk=job.pk).exclude(sample="")
    try:
        with transaction.atomic():
            again = failed.update(
                status=Status.PENDING,
                next_attempt_at=None,
                last_attempt=F("attempts") + ATTEMPTS,
                ended_at=None,
                error_code="",
                error_message="",
            )
            if not again:
                raise NotRetryable("There is nothing to retry: it has not failed, or its recording is deleted.")
            task_queue.enqueue_on_commit(task_names.RUN_CLONE_JOB, job.pk)
    except IntegrityError as error:
        raise NotRetryable("The same recording is being made into a voice already.") from error
    job.refresh_from_db()
    return job
