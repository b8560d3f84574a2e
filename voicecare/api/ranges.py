"""HTTP range responses, so that a player can seek in a recording (RFC 9110, section 14)."""

import re

from django.core.files import File
from django.http import HttpResponse

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def range_response(recording: File, content_type: str, range_header: str) -> HttpResponse:
    """Returns a response with the whole recording (200), or with the part that the header `Range` requests (206).

    The status is 416 if the range starts after the end of the recording. If the header is invalid or has several
    ranges, the response has the whole recording, as the standard allows. `recording` is read into memory, at most 10
    MB.
    """
    size = recording.size
    requested = _requested_range(range_header, size)
    if requested is None:
        response = HttpResponse(recording.read(), content_type=content_type)
    elif not requested:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    else:
        recording.seek(requested.start)
        response = HttpResponse(recording.read(len(requested)), status=206, content_type=content_type)
        response["Content-Range"] = f"bytes {requested.start}-{requested.stop - 1}/{size}"
    response["Accept-Ranges"] = "bytes"
    response["Cache-Control"] = "private, no-store"
    return response


def _requested_range(range_header: str, size: int) -> range | None:
    """Returns the requested positions in a recording of `size` bytes, or None if the whole recording is to be sent.

    The range is empty if it starts after the end of the recording.
    """
    match = _RANGE.fullmatch(range_header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return range(max(size - int(last), 0), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1 if last else size, size))
