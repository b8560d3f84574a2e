"""Consent withdrawn, a voice replaced, a patient erased: nothing of a copied voice is left, and that is looked for.

What the provider has under the job's name or id, the recording, and the sound in that voice are removed, in that
order, as often as it takes; only what was looked for again and not found is `withdrawn`. The row stays: that it was,
who had consented, and when it ended.
"""

import random
import time
import uuid
from datetime import timedelta

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from cloning.gateway import provider_voices
from cloning.gateway.failures import CloneFailure
from cloning.models import CloneJob, sample_storage
from voicecare.core import task_names, task_queue
from voicecare.patients.models import Patient, Voice
from voicecare.providers.errors import ProviderError

RETRY_INTERVAL_S = 15  # between two tries, of which there is no last one
LEASE = timedelta(seconds=120)
SWEEP_TIME_LIMIT_S = 60.0

Status = CloneJob.Status

log = structlog.get_logger(__name__)


def withdraw(job: CloneJob, by: User | None = None) -> CloneJob:
    """From now on nobody is spoken to in it; its voice, recording and sound are removed in the background. Idempotent;
    returns the row as it is now.
    """
    _start_withdrawal(job, by)
    job.refresh_from_db()
    return job


def withdraw_replaced(job: CloneJob) -> None:
    """The same, because the patient has newer voices. Inside the transaction that brings the newest."""
    if _start_withdrawal(job, None):
        CloneJob.objects.filter(pk=job.pk).update(replaced=True)


@transaction.atomic
def _start_withdrawal(job: CloneJob, by: User | None) -> bool:
    """A lease stays: while a worker may have an upload under way, looking for the voice would be too early."""
    started = (
        CloneJob.objects.withdrawable()
        .filter(pk=job.pk)
        .update(status=Status.WITHDRAWING, withdrawn_by=by, next_attempt_at=None, error_code="", error_message="")
    )
    if started:
        voice = Voice.objects.filter(clone_job=job.pk)
        Patient.objects.filter(voice__in=voice).update(voice=None)
        voice.update(state=Voice.State.WITHDRAWN)
        task_queue.enqueue_on_commit(task_names.REMOVE_AUDIO)
        task_queue.enqueue_on_commit(task_names.WITHDRAW_CLONE, job.pk)
    return bool(started)


def sweep() -> None:
    """Goes on with what is due. Idempotent; any number of processes may do it at once."""
    deadline = time.monotonic() + SWEEP_TIME_LIMIT_S
    for job_id in _due().values_list("pk", flat=True).order_by("created_at"):
        if time.monotonic() > deadline:
            return
        run(job_id)


def _due() -> QuerySet[CloneJob]:
    unleased = Q(lease_until=None) | Q(lease_until__lte=Now())
    return CloneJob.objects.filter(
        unleased, Q(next_attempt_at=None) | Q(next_attempt_at__lte=Now()), status=Status.WITHDRAWING
    )


def run(job_id: uuid.UUID) -> None:
    """Removes and looks again, if that is due and nobody else does it."""
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
        log.warning("cloning.not_withdrawn_yet", job=str(job.pk), remaining=remaining.code)
        delay = timedelta(seconds=RETRY_INTERVAL_S * random.uniform(0.8, 1.2))  # noqa: S311
        _owned(job).update(
            lease_until=None, next_attempt_at=Now() + delay, error_code=remaining.code, error_message=remaining.message
        )
    elif _owned(job).update(
        status=Status.WITHDRAWN, withdrawn_at=Now(), sample="", lease_until=None, error_code="", error_message=""
    ):
        log.info("cloning.withdrawn", job=str(job.pk))


def _owned(job: CloneJob) -> QuerySet[CloneJob]:
    return CloneJob.objects.filter(pk=job.pk, status=Status.WITHDRAWING, attempts=job.attempts)


def _delete_everything(job: CloneJob) -> CloneFailure | None:
    """What is left, as the clinician is told; None if nothing was found any more."""
    with provider_voices.account_client() as client:
        for voice in provider_voices.find_voices_of_job(client, job):
            provider_voices.delete_voice(client, voice.voice_id)
        sample_remains = _delete_sample(job)
        if provider_voices.find_voices_of_job(client, job):
            return CloneFailure.from_code("voice_left")
    if sample_remains:
        return CloneFailure.from_code("sample_left")
    if job.voice and job.voice.clips.exists():  # the cache removes them; a row stays as long as its sound does
        task_queue.enqueue_on_commit(task_names.REMOVE_AUDIO)
        return CloneFailure.from_code("sound_left")
    return None


def _delete_sample(job: CloneJob) -> bool:
    """Whether it is still there."""
    if not job.sample:
        return False
    try:
        sample_storage().delete(job.sample)
        return sample_storage().exists(job.sample)
    except Exception as error:  # whatever the storage's library raises
        log.warning("cloning.storage_unavailable", job=str(job.pk), error=type(error).__name__)
        return True
