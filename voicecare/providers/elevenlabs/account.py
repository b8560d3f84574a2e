"""Calls about the account: quota, voices, models, history. Synchronous, for Celery tasks and commands.

Every failure is raised as a `ProviderError` of `providers/errors.py`, as in the async client. This module never
retries: the caller decides whether a call may be repeated.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import BinaryIO, TypeVar
from urllib.parse import urlencode

import requests
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError

from voicecare.providers.elevenlabs.analytics import AnalyticsTable
from voicecare.providers.elevenlabs.error_mapping import MAX_BODY_BYTES, error_from_response
from voicecare.providers.elevenlabs.requests import path_segment, request_headers
from voicecare.providers.elevenlabs.responses import (
    AddedVoice,
    CharacterStats,
    HistoryItem,
    HistoryPage,
    Model,
    Subscription,
    Voice,
    VoicePage,
    invalid_response,
    models_from_json,
    parse_json,
)
from voicecare.providers.errors import ConnectionBroken, NoFirstByte, ProviderError, Stalled, Unreachable

SampleFile = tuple[str, bytes | BinaryIO, str]
"""A recording to clone from: file name, content, content type."""

_MAX_RESPONSE_BYTES = 16 * 1024 * 1024  # enough for a page of 1,000 history items with 5,000 characters each
_RESPONSE_TIMEOUT_S = 60.0  # for the whole body: the read timeout restarts with every byte
_CLONING_TIMEOUT_S = 120.0  # the provider analyses the samples before it responds
_MAX_PAGES = 1000
_TRANSPORT_ERRORS = (requests.RequestException, HTTPError)
T = TypeVar("T")


class AccountClient:
    """A client for calls about the account.

    Use it in one thread only, because sessions of requests are not thread-safe. `timeout` is (connect, read) in
    seconds. Redirects are not followed, because the API key would be sent to the new address. Cookies are not kept.
    Proxies of the environment and .netrc are not used. The constructor raises ValueError for a key that cannot be sent
    in a header. All methods raise ProviderError.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout: tuple[float, float] = (3.05, 20.0)) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout = timeout
        self.responded_at: datetime | None = None
        """The provider's time in the header `Date` of the last response, in whole seconds. None without a valid one."""
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update(request_headers(api_key))
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def close(self) -> None:
        self._session.close()

    def subscription(self) -> Subscription:
        """Returns the plan with its quota.

        The request is free, but needs the permission `user_read`, which a key may not have.
        """
        return Subscription.from_json(self._get_json("/v1/user/subscription"))

    def models(self) -> list[Model]:
        return models_from_json(self._get_json("/v1/models"))

    def voice(self, voice_id: str) -> Voice:
        """Returns the voice with this id.

        Raises VoiceUnavailable if it cannot be read. The `cause` of the error is VOICE_MISSING if it does not exist.
        """
        voice = Voice.from_json(self._get_json(f"/v1/voices/{path_segment(voice_id)}"))
        if voice.voice_id != voice_id:
            raise invalid_response("another voice than the one asked for")
        return voice

    def voices(self) -> Iterator[Voice]:
        """Yields all voices of the workspace. Requests them page by page.

        Raises ProviderError if any page is invalid, so that an incomplete list is never taken for a complete one.
        """

        def page(token: str | None) -> tuple[Sequence[Voice], str | None]:
            reply = self._get_json("/v2/voices", page_size=100, include_total_count="false", next_page_token=token)
            found = VoicePage.from_json(reply)
            return found.voices, found.next_token

        return _iterate_pages(page)

    def add_voice(
        self,
        name: str,
        files: Sequence[SampleFile],
        *,
        remove_background_noise: bool = False,
        description: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> AddedVoice:
        """Creates an instant voice clone from recordings.

        There is no idempotency key. After an error other than a rejection by the provider, the voice may exist. Only
        the list of `voices` shows whether it does.
        """
        form = {"name": name, "remove_background_noise": str(remove_background_noise).lower()}
        form |= {"description": description} if description else {}
        form |= (
            {"labels": json.dumps(dict(labels))} if labels else {}
        )  # JSON text in one field, as in the provider's own SDK
        body = self._request("POST", "/v1/voices/add", form=form, files=[("files", sample) for sample in files])
        return AddedVoice.from_json(parse_json(body))

    def delete_voice(self, voice_id: str) -> None:
        """Deletes a voice. Raises VoiceUnavailable if there is no such voice."""
        self._request("DELETE", f"/v1/voices/{path_segment(voice_id)}")

    def character_stats(self, start_ms: int, end_ms: int, *, metric: str) -> CharacterStats:
        """Returns the usage of each hour between two times. `metric` is `credits` or `tts_characters`.

        The times are Unix times in milliseconds, although the provider's parameters have names with `_unix`. Hours are
        requested, because the days of any time zone can be summed from them.
        """
        times = {"start_unix": start_ms, "end_unix": end_ms}
        reply = self._get_json("/v1/usage/character-stats", metric=metric, aggregation_interval="hour", **times)
        return CharacterStats.from_json(reply)

    def usage_by_product(self, start_ms: int, end_ms: int, *, time_zone: str) -> AnalyticsTable:
        """Returns the credits of each hour between two times, for a workspace that is billed in credits.

        The times are Unix times in milliseconds, both included. Hours start as clocks in `time_zone` (IANA) show it.
        """
        hours = {"start_time": start_ms, "end_time": end_ms, "interval_seconds": 3600}
        return self._analytics("query/usage-by-product-over-time", {**hours, "time_zone": time_zone})

    def cost(self, start_ms: int, end_ms: int) -> AnalyticsTable:
        """Returns the cost of each UTC day between two times in milliseconds, for a workspace billed in money."""
        return self._analytics("usage", {"start_time": start_ms, "end_time": end_ms, "interval_seconds": 86_400})

    def request_list(self, start_ms: int, end_ms: int, *, limit: int = 1000) -> AnalyticsTable:
        """Returns the oldest requests between two times in milliseconds, at most `limit`."""
        return self._analytics("requests", {"start_time": start_ms, "end_time": end_ms, "limit": limit, "sort": "asc"})

    def history(
        self, after_unix: int | None = None, before_unix: int | None = None, *, voice_id: str | None = None
    ) -> Iterator[HistoryItem]:
        """Yields the speech requests between two Unix times in seconds, or all, newest first.

        `voice_id` limits them to a voice. The provider may ignore these limits, so the caller must check the items.
        Nothing is yielded if the provider keeps no history for this account.
        """

        def page(after: str | None) -> tuple[Sequence[HistoryItem], str | None]:
            limits = {"date_after_unix": after_unix, "date_before_unix": before_unix, "voice_id": voice_id}
            reply = self._get_json("/v1/history", page_size=1000, start_after_history_item_id=after, **limits)
            found = HistoryPage.from_json(reply)
            return found.items, found.next_after

        return _iterate_pages(page)

    def delete_history_item(self, item_id: str) -> None:
        """Deletes a speech request from the history, with its text and its audio.

        Raises ProviderError with the code `history_item_not_found` if there is no such item.
        """
        self._request("DELETE", f"/v1/history/{path_segment(item_id)}")

    def _analytics(self, call: str, query: Mapping[str, str | int]) -> AnalyticsTable:
        reply = self._request("POST", f"/v1/workspace/analytics/{call}", query=query)
        return AnalyticsTable.from_json(parse_json(reply))

    def _get_json(self, path: str, **query: str | int | None) -> object:
        given = {name: value for name, value in query.items() if value is not None}
        return parse_json(self._request("GET", f"{path}?{urlencode(given)}" if given else path))

    def _request(
        self,
        method: str,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        files: Sequence[tuple[str, SampleFile]] | None = None,
        query: Mapping[str, str | int] | None = None,
    ) -> bytes:
        connect_s, read_s = self._timeout
        timeout = (connect_s, max(read_s, _CLONING_TIMEOUT_S) if files else read_s)
        try:
            request = self._session.prepare_request(
                requests.Request(method, self._base_url, data=form, files=files, json=query)
            )
            request.url = self._base_url + path  # set afterwards, because requests would undo the quoting of dots
            with self._session.send(request, stream=True, timeout=timeout, allow_redirects=False) as response:
                self.responded_at = _date(response.headers.get("Date", ""))
                if 200 <= response.status_code < 300:
                    return b"".join(read_chunks(response, _MAX_RESPONSE_BYTES))
                reads: list[bytes] = []
                with suppress(HTTPError, ProviderError):  # the error is made from as much of the body as arrives
                    reads.extend(read_chunks(response, MAX_BODY_BYTES))
                raise error_from_response(response.status_code, response.headers, b"".join(reads))
        except _TRANSPORT_ERRORS as error:
            raise to_provider_error(error) from error


def _date(header: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _iterate_pages(page: Callable[[str | None], tuple[Sequence[T], str | None]]) -> Iterator[T]:
    token: str | None = None
    seen: set[str] = set()
    while True:
        items, token = page(token)
        yield from items
        if token is None:
            return
        if token in seen or len(seen) >= _MAX_PAGES:
            raise invalid_response("endless pages")
        seen.add(token)


def read_chunks(response: requests.Response, limit: int, timeout_s: float = _RESPONSE_TIMEOUT_S) -> Iterator[bytes]:
    """Yields the body of the response, as much as each network read brings.

    Raises ServerError for more than `limit` bytes, and Stalled after `timeout_s` seconds. `iter_content` of requests
    waits until a block is full, so a slow body could take hours.
    """
    until = time.monotonic() + timeout_s
    size = 0
    while chunk := response.raw.read1(65536, decode_content=True):
        size += len(chunk)
        if size > limit:
            raise invalid_response("too long")
        if time.monotonic() > until:
            raise Stalled(status=response.status_code)
        yield chunk


def to_provider_error(error: Exception) -> ProviderError:
    """Returns the ProviderError for an exception of requests or urllib3.

    requests raises ConnectionError both for a refused connection and for a broken one. The exception inside
    distinguishes them. Bodies are read through urllib3, so its ReadTimeoutError always means a pause in the middle of a
    body.
    """
    cause = error.args[0] if error.args else None
    reason = getattr(cause, "reason", cause)
    never_sent = isinstance(error, requests.ConnectTimeout | requests.exceptions.SSLError | ValueError)
    if never_sent or isinstance(reason, NewConnectionError):
        return Unreachable()
    if isinstance(error, requests.ReadTimeout):
        return NoFirstByte()
    return Stalled() if isinstance(error, ReadTimeoutError) else ConnectionBroken()
