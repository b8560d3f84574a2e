"""Checks of the stores of audio and of the disk. They write something, read it, and delete it again."""

import secrets
import shutil
from typing import Any

from django.conf import settings
from django.core.files.base import ContentFile

from cloning.models import sample_storage
from tts.cache.stores import StoreError, create_store
from voicecare.health import parts
from voicecare.health.parts import Part

CONTENT = b"voicecare doctor"
DISK_WARNING_SHARE = 0.1
DISK_FAILURE_BYTES = 200 * 1024 * 1024
WRONG_CONTENT = "it returned something else than was written"


def check_phrase_store() -> Part:
    """Writes, reads, lists and deletes an entry of the phrase store, which nothing else uses."""
    key = secrets.token_hex(32)
    try:
        store = create_store(settings)
        store.write(key, CONTENT)
        found = store.read(key)
        next(iter(store.keys()), None)
        store.delete(key)
    except StoreError as error:
        return parts.phrase_store(works=False, problem=_explain(error.__cause__ or error))
    return parts.phrase_store(works=found == CONTENT, problem="" if found == CONTENT else WRONG_CONTENT)


def check_recordings() -> Part:
    """Writes, reads and deletes a file in the storage of recordings."""
    title = "Recordings"
    place = settings.AWS_STORAGE_BUCKET_NAME or settings.DATA_DIR / "samples"
    advice = (
        "Recordings for clones cannot be kept. Check the place, and what this user or these credentials may do there."
    )
    storage = sample_storage()
    try:
        name = storage.save(f"doctor-{secrets.token_hex(16)}", ContentFile(CONTENT))
        with storage.open(name) as file:
            found = file.read()
        storage.delete(name)
    except Exception as error:  # storage libraries raise exceptions of many types
        return Part("recordings", title, False, f"{place} fails ({_explain(error)})", advice)
    if found != CONTENT:
        return Part("recordings", title, False, f"{place}: {WRONG_CONTENT}", advice)
    return Part("recordings", title, True, f"{place} can be written, read and cleared")


def check_disk() -> Part:
    """Checks the free space of the data directory, which has at least the journals of provider requests."""
    usage = shutil.disk_usage(settings.DATA_DIR)
    state = f"{usage.free / 1e9:,.1f} of {usage.total / 1e9:,.1f} GB are free in {settings.DATA_DIR}"
    advice = "Make room: without it nothing is recorded, neither in the journals nor in an SQLite database."
    is_low = usage.free < DISK_WARNING_SHARE * usage.total
    return Part("disk", "Disk space", usage.free > DISK_FAILURE_BYTES, state, advice, warns=is_low)


def _explain(error: BaseException) -> str:
    """Returns the code of an S3 server, such as AccessDenied, or the name of the exception. Never a URL or a key."""
    response: dict[str, Any] = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code") or type(error).__name__)
