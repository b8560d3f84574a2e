"""Withdraws voice clones: removes their data everywhere, and checks that the data is gone.

The reason is a withdrawn consent, a replaced voice or an erased patient. First the voices of the job are deleted at the
provider, where they are found by the name and the id that the job has stored. Then the recording is deleted, then the
cached speech. All of this is repeated until a check finds no data. Only then does the job get the status `withdrawn`.
Its row remains as the record of the consent and its end. The requests in the provider's history are deleted
independently of that (`usage.provider_history`).
"""

import random
import time
import uuid
from datetime import timedelta
from itertools import takewhile

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from cloning.gateway import provider_voices
from cloning.gateway.failures import CloneFailure
from cloning.models import CloneJob, sample_storage
from usage.alerts import lost_voices
from usage.provider_history import deletion
from voicecare.core import task_names, task_queue
from voicecare.core.batches import process_each
from voicecare.patients.models import Patient, Voice
from voicecare.providers.errors import ProviderError

RETRY_INTERVAL_S = 15  # between two attempts; their number is not limited
LEASE = timedelta(seconds=120)
SWEEP_TIME_LIMIT_S = 60.0

Status = CloneJob.Status

log = structlog.get_logger(__name__)


def withdraw(job: CloneJob, by: User | None = None) -> CloneJob:
    """Ends the use of the voice immediately. Its data is removed in the background. Idempotent.

    `by` is the user who withdraws the consent, or None if the patient is erased. Returns the same `job`, with its new
    state.
    """
    _start_withdrawal(job, by)
    job.refresh_from_db()
    return job


def withdraw_replaced(job: CloneJob) -> None:
    """Withdraws the clone job of an old voice, because its patient has newer voices.

    Called in the transaction that activates the newest voice.
    """
    if _start_withdrawal(job, None):
        CloneJob.objects.filter(pk=job.pk).update(replaced=True)


@transaction.atomic
def _start_withdrawal(job: CloneJob, by: User | None) -> bool:
    """Starts the withdrawal. Returns False if it has already been started.

    The lease of a worker on this job is not ended. While the worker may still upload the recording, the voice may not
    exist yet at the provider, so it would be too early to search for it there.
    """
    started = (
        CloneJob.objects.withdrawable()
        .filter(pk=job.pk)
        .update(status=Status.WITHDRAWING, withdrawn_by=by, next_attempt_at=None, error_code="", error_message="")
    )
    if started:
        voice = Voice.objects.filter(clone_job=job.pk)
        Patient.objects.filter(voice__in=voice).update(voice=None)
        Patient.objects.filter(backup_voice__in=voice).update(backup_voice=None)
        voice.update(state=Voice.State.WITHDRAWN)
        deletion.delete_for_voices(voice)
        task_queue.enqueue_on_commit(task_names.REMOVE_AUDIO)
        task_queue.enqueue_on_commit(task_names.WITHDRAW_CLONE, job.pk)
    return bool(started)


def sweep() -> None:
    """Makes an attempt for each withdrawal that is due. Idempotent. Several processes may call this in parallel.

    If an attempt fails unexpectedly, the other withdrawals are still attempted. Then RowsFailed is raised.
    """
    deadline = time.monotonic() + SWEEP_TIME_LIMIT_S
    due = _due().values_list("pk", flat=True).order_by("created_at")
    process_each("clones.withdraw", takewhile(lambda _: time.monotonic() < deadline, due), run)


def _due() -> QuerySet[CloneJob]:
    unleased = Q(lease_until=None) | Q(lease_until__lte=Now())
    return CloneJob.objects.filter(
        unleased, Q(next_attempt_at=None) | Q(next_attempt_at__lte=Now()), status=Status.WITHDRAWING
    )


def run(job_id: uuid.UUID) -> None:
    """Makes one attempt to remove all data of a job.

    If some data still exists afterwards, or the provider fails, another attempt is scheduled. Does nothing if no
    attempt is due, or if another worker owns the job.
    """
    with transaction.atomic():
        if not _due().filter(pk=job_id).update(attempts=F("attempts") + 1, lease_until=Now() + LEASE):
            return
        job = CloneJob.objects.select_related("voice").get(pk=job_id)
    try:
        remaining = _delete_everything(job)
    except ProviderError as error:
        provider_voices.report_error(error)
        remaining = CloneFailure.from_error(error)
    if remaining is not None:
        log.warning("cloning.withdrawal_delayed", job=str(job.pk), remaining=remaining.code)
        delay = timedelta(seconds=RETRY_INTERVAL_S * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
        _owned(job).update(
            lease_until=None, next_attempt_at=Now() + delay, error_code=remaining.code, error_message=remaining.message
        )
    elif _owned(job).update(
        status=Status.WITHDRAWN, withdrawn_at=Now(), sample="", lease_until=None, error_code="", error_message=""
    ):
        log.info("cloning.withdrawal_completed", job=str(job.pk))


def _owned(job: CloneJob) -> QuerySet[CloneJob]:
    return CloneJob.objects.filter(pk=job.pk, status=Status.WITHDRAWING, attempts=job.attempts)


def _delete_everything(job: CloneJob) -> CloneFailure | None:
    """Deletes the data of the job. Returns a failure that names what still exists, or None if everything is deleted.

    Raises ProviderError.
    """
    with provider_voices.account_client() as client:
        for voice in provider_voices.find_voices_of_job(client, job):
            provider_voices.delete_voice(client, voice.voice_id)
        sample_remains = False
        if job.sample:
            try:
                sample_storage().delete(job.sample)
                sample_remains = sample_storage().exists(job.sample)
            except Exception as error:  # libraries of storages raise exceptions of many types
                log.warning("cloning.storage_unavailable", job=str(job.pk), error=type(error).__name__)
                sample_remains = True
        # A key of another workspace does not show the voice, although it still exists in ours.
        if provider_voices.find_voices_of_job(client, job) or lost_voices.is_other_workspace_known():
            return CloneFailure.from_code("voice_left")
    if sample_remains:
        return CloneFailure.from_code("sample_left")
    if job.voice and job.voice.clips.exists():  # the phrase cache deletes them; a row exists as long as its audio does
        task_queue.enqueue_on_commit(task_names.REMOVE_AUDIO)
        return CloneFailure.from_code("sound_left")
    return None
