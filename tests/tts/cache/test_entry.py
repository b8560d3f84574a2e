"""An entry is accepted only if it is exactly what was packed under its key."""

import pytest

from tts.cache.entry import Entry, pack, unpack

KEY = "ab" * 32
ENTRY = Entry(bytes(range(256)) * 40, 1_800_000_000.25)


@pytest.mark.parametrize("audio", [b"", b"\0", bytes(600_000)], ids=["none", "a byte", "much"])
@pytest.mark.parametrize("expires_at", [0.0, -1.5, 1_800_000_000.25, 1e300])
def test_unpacking_returns_the_packed_entry(audio: bytes, expires_at: float):
    assert unpack(KEY, pack(KEY, Entry(audio, expires_at))) == Entry(audio, expires_at)


@pytest.mark.parametrize("length", [0, 1, 47, 48, 49, 1000, -1])
def test_a_truncated_entry_is_invalid(length: int):
    assert unpack(KEY, pack(KEY, ENTRY)[:length]) is None


def test_an_entry_with_trailing_bytes_is_invalid():
    assert unpack(KEY, pack(KEY, ENTRY) + b"\0") is None


@pytest.mark.parametrize("place", [*range(48), 48, 1000, -1])
@pytest.mark.parametrize("bit", [1, 64, 128])
def test_an_entry_with_a_flipped_bit_is_invalid(place: int, bit: int):
    damaged = bytearray(pack(KEY, ENTRY))
    damaged[place] ^= bit
    assert unpack(KEY, bytes(damaged)) is None


def test_an_entry_of_another_key_is_invalid():
    assert unpack("cd" * 32, pack(KEY, ENTRY)) is None


def test_the_entry_contains_neither_key_nor_text():
    assert KEY.encode() not in pack(KEY, ENTRY)
