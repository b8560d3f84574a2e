"""Where sound lies: folders of this machine, or of a bucket (entries of Django's STORAGES)."""

from pathlib import Path
from typing import Any


def bucket_storage(name: str, endpoint: str, folder: str) -> dict[str, Any]:
    """A folder of our bucket. There is no ACL: objects are private without, and newer buckets refuse every ACL."""
    # Slow to import, and only for those who use it.
    from boto3.s3.transfer import TransferConfig  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]

    config = Config(
        signature_version="s3v4",
        connect_timeout=2,
        read_timeout=5,
        retries={"max_attempts": 2, "mode": "standard"},
        request_checksum_calculation="when_required",  # servers other than AWS' refuse the newer checksums
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    options = {
        "bucket_name": name,
        "endpoint_url": endpoint or None,
        "location": folder,
        "client_config": config,
        "transfer_config": TransferConfig(use_threads=False),
        "access_key": None,  # boto3 finds all credentials itself; django-storages would lose a session token
        "secret_key": None,
    }
    return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}


def atomic_file_storage(folder: Path) -> dict[str, Any]:
    return {"BACKEND": "tts.cache.stores.AtomicFileStorage", "OPTIONS": {"location": folder}}


def private_file_storage(folder: Path) -> dict[str, Any]:
    """They have no address of their own, and nobody else on this machine may read them."""
    options = {
        "location": folder,
        "base_url": None,
        "file_permissions_mode": 0o600,
        "directory_permissions_mode": 0o700,
    }
    return {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": options}
