"""Reads the sample of a voice that the provider publishes. It is free, and needs no API key."""

from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from voicecare.providers.elevenlabs.account import read_chunks, to_provider_error
from voicecare.providers.elevenlabs.error_mapping import error_from_response
from voicecare.providers.errors import NotAudio

_PROVIDER_DOMAIN = "elevenlabs.io"
_STORAGE = ("storage.googleapis.com", "/eleven-public-prod/")  # the host and folder of most samples
_TIMEOUT_S = (2.0, 3.0)  # connect, read
_TOTAL_TIMEOUT_S = 10.0
_MAX_BYTES = 3_000_000  # samples are below 1 MB


def trusted_address(preview_url: str, base_url: str) -> str | None:
    """Returns the address of a sample, or None if it is not one of the provider's.

    The request is made inside our network, so an address from a response must not lead anywhere else. Accepted are
    https addresses on the provider's hosts, and addresses on the host of the API itself (`base_url`, for example the
    sandbox). The address is built again from its parts, so that no other parser can find another host in it.
    """
    try:
        parts, api = urlsplit(preview_url), urlsplit(base_url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    is_api = (parts.scheme, host, port) == (api.scheme, api.hostname, api.port)
    is_storage = host == _STORAGE[0] and parts.path.startswith(_STORAGE[1])
    is_known_host = is_storage or host == _PROVIDER_DOMAIN or host.endswith(f".{_PROVIDER_DOMAIN}")
    is_provider = is_known_host and parts.scheme == "https" and port in (None, 443)
    if not (is_api or is_provider) or not parts.path or ".." in parts.path:
        return None
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}{query}"


def read(address: str) -> bytes:
    """Returns the audio of a sample, at most 3 MB. `address` is the result of `trusted_address`.

    Redirects are not followed. Proxies of the environment and .netrc are not used. Raises ProviderError.
    """
    with requests.Session() as session:
        session.trust_env = False
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        try:
            with session.get(address, stream=True, timeout=_TIMEOUT_S, allow_redirects=False) as response:
                if response.status_code != 200:
                    raise error_from_response(response.status_code, response.headers, b"")
                if not response.headers.get("Content-Type", "").startswith("audio/"):
                    raise NotAudio(status=200)
                return b"".join(read_chunks(response, _MAX_BYTES, _TOTAL_TIMEOUT_S))
        except (requests.RequestException, HTTPError) as error:
            raise to_provider_error(error) from error
