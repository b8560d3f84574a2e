"""Keeps large uploads in temporary files that disappear with the process."""

from tempfile import TemporaryFile
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler


class UnnamedFileUploadHandler(FileUploadHandler):
    """Writes an upload to a temporary file without a name, which the operating system deletes with the process.

    The files of Django's own handler stay in the temporary folder if the process is killed. Uploads are recordings of
    voices, which must not stay there.
    """

    def new_file(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Django's signature
        super().new_file(*args, **kwargs)
        self._upload = UploadedFile(
            TemporaryFile(),  # noqa: SIM115 - closed by Django at the end of the request
            self.file_name,
            self.content_type,
            0,
            self.charset,
            self.content_type_extra,
        )

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self._upload.write(raw_data)

    def file_complete(self, file_size: int) -> UploadedFile:
        self._upload.seek(0)
        self._upload.size = file_size
        return self._upload

    def upload_interrupted(self) -> None:
        if hasattr(self, "_upload"):
            self._upload.close()
