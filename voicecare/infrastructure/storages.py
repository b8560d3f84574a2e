"""File storages for audio, as values for Django's setting STORAGES: folders on this machine or in an S3 bucket."""

from pathlib import Path
from typing import Any


def bucket_storage(name: str, endpoint: str, folder: str) -> dict[str, Any]:
    """Returns a storage in a folder of the bucket `name`. `endpoint` is the URL of the S3 server, empty for AWS.

    No ACL is set, because objects are private by default, and newer buckets reject ACLs.
    """
    # boto3 is slow to import, so only installations with a bucket import it.
    from boto3.s3.transfer import TransferConfig  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]

    config = Config(
        signature_version="s3v4",
        connect_timeout=2,
        read_timeout=5,
        retries={"max_attempts": 2, "mode": "standard"},
        request_checksum_calculation="when_required",  # S3 servers of other vendors reject the newer checksums
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    options = {
        "bucket_name": name,
        "endpoint_url": endpoint or None,
        "location": folder,
        "client_config": config,
        "transfer_config": TransferConfig(use_threads=False),
        "access_key": None,  # boto3 finds all credentials itself. django-storages would drop a session token.
        "secret_key": None,
    }
    return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}


def atomic_file_storage(folder: Path) -> dict[str, Any]:
    """Returns a storage in a folder of this machine. Its files are replaced atomically."""
    return {"BACKEND": "tts.cache.stores.AtomicFileStorage", "OPTIONS": {"location": folder}}


def private_file_storage(folder: Path) -> dict[str, Any]:
    """Returns a storage in a folder of this machine that only the operating-system user of this process can read.

    Its files have no URL.
    """
    options = {
        "location": folder,
        "base_url": None,
        "file_permissions_mode": 0o600,
        "directory_permissions_mode": 0o700,
    }
    return {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": options}
