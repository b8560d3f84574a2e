"""Large uploads leave no file in the temporary folder, not even while the request runs."""

import tempfile
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.handlers.wsgi import WSGIRequest
from django.test import RequestFactory

SIZES = [10, 3_000_000]  # in memory, and in a file


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def post(data: bytes) -> WSGIRequest:
    return RequestFactory().post("/", {"sample": SimpleUploadedFile("voice.mp3", data, "audio/mpeg"), "name": "Anna"})


@pytest.mark.parametrize("size", SIZES)
def test_an_upload_has_no_name_in_the_temporary_folder(size: int, temporary_folder: Path):
    data = bytes(range(256)) * (size // 256 + 1)
    request = post(data)
    upload = request.FILES["sample"]
    assert list(temporary_folder.iterdir()) == []
    assert (upload.read(), upload.size, upload.name, upload.content_type) == (
        data,
        len(data),
        "voice.mp3",
        "audio/mpeg",
    )
    assert b"".join(upload.chunks()) == data
    assert request.POST["name"] == "Anna"
    request.close()
    assert upload.closed


def test_an_interrupted_upload_leaves_nothing(temporary_folder: Path):
    body = RequestFactory().post("/", {"sample": SimpleUploadedFile("voice.mp3", b"x" * 3_000_000)})
    cut = body.read()[:2_900_000]
    request = RequestFactory().generic("POST", "/", cut, content_type=body.META["CONTENT_TYPE"])
    assert len(request.FILES) <= 1
    assert list(temporary_folder.iterdir()) == []
