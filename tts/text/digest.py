"""Keyed digests of texts, by which the ledger counts how often a text was paid for without storing the text."""

import hashlib
import hmac

from tts.text.segmenter import normalise

_DIGEST_BYTES = 16


def text_digest(text: str, language: str, secret: str) -> str:
    """Return the digest of a text in a language: 32 hexadecimal digits, the same for all who hear the text.

    `language` is a code without a region. Texts with the same normal form have the same digest, as they match the same
    phrase. The key is derived from `secret` for this purpose only, so a digest is no key of a clip. Without the secret
    it cannot be found out which text a digest belongs to, not even by trying texts.
    """
    key = hashlib.sha256(f"repeated texts:{secret}".encode()).digest()
    shaped_by = repr((language, normalise(text))).encode()
    return hmac.digest(key, shaped_by, "sha256")[:_DIGEST_BYTES].hex()
