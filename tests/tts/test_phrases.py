"""The phrase cache: found again by all that shapes the sound, and by nothing else; whole, young, or not there."""

import struct
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tts.examples import OWN_VOICE, RENDERING
from tts.phrases import PhraseCache
from tts.rendering import Rendering

TEXT = "That's wonderful!"
SOUND = bytes(range(256)) * 40


@pytest.fixture
def cache(tmp_path: Path) -> PhraseCache:
    return PhraseCache(tmp_path / "phrases", "secret", ttl_s=60)


@pytest.fixture
def key(cache: PhraseCache) -> str:
    return cache.key(RENDERING, TEXT)


@pytest.fixture
def entry(cache: PhraseCache, key: str, tmp_path: Path) -> Path:
    """The file of a clip that was put into the cache."""
    cache.put(key, SOUND)
    (path,) = files(tmp_path)
    return path


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# Keys


@pytest.mark.parametrize(
    "other",
    [
        replace(RENDERING, voice=replace(OWN_VOICE, provider_id="another")),
        replace(RENDERING, voice=replace(OWN_VOICE, revision=2)),
        replace(RENDERING, model="eleven_v3"),
        replace(RENDERING, language="de"),
        replace(RENDERING, speed=0.9),
        replace(RENDERING, format="pcm_16000"),
    ],
    ids=["voice", "revision", "model", "language", "speed", "format"],
)
def test_whatever_shapes_the_sound_changes_the_key(cache: PhraseCache, key: str, other: Rendering):
    assert cache.key(other, TEXT) != key


@pytest.mark.parametrize(
    "text", ["That's wonderful", "that's wonderful!", "Thats wonderful!", "That's  wonder ful!", ""]
)
def test_another_text_has_another_key(cache: PhraseCache, key: str, text: str):
    assert cache.key(RENDERING, text) != key


@pytest.mark.parametrize("text", ["That’s wonderful!", "  That's wonderful!\n", "That's \t  wonderful!"])
def test_one_text_has_one_key_however_it_was_typed(cache: PhraseCache, key: str, text: str):
    assert cache.key(RENDERING, text) == key


def test_composed_and_decomposed_letters_are_the_same(cache: PhraseCache):
    assert cache.key(RENDERING, "Cafe\u0301?") == cache.key(RENDERING, "Caf\u00e9?")


def test_the_name_of_a_voice_does_not_shape_its_sound(cache: PhraseCache, key: str):
    assert cache.key(replace(RENDERING, voice=replace(OWN_VOICE, name="Ann")), TEXT) == key


def test_neighbouring_fields_cannot_run_into_one_another(cache: PhraseCache):
    one = replace(RENDERING, voice=replace(OWN_VOICE, provider_id="a', 1, 'b"))
    other = replace(RENDERING, voice=replace(OWN_VOICE, provider_id="a"), model="b")
    assert cache.key(one, TEXT) != cache.key(other, TEXT)


def test_the_key_cannot_be_guessed_without_the_secret(cache: PhraseCache, key: str, tmp_path: Path):
    assert PhraseCache(tmp_path / "phrases", "another secret", 60).key(RENDERING, TEXT) != key


def test_processes_with_one_secret_share_their_clips(cache: PhraseCache, key: str, tmp_path: Path):
    cache.put(key, SOUND)
    assert PhraseCache(tmp_path / "phrases", "secret", 60).get(key) == SOUND


# In and out


@pytest.mark.parametrize("sound", [SOUND, b"\0", b"", bytes(600_000)], ids=["some", "one byte", "none", "much"])
def test_a_clip_comes_out_as_it_went_in(cache: PhraseCache, key: str, sound: bytes):
    cache.put(key, sound)
    assert cache.get(key) == sound


def test_what_was_never_put_in_is_a_miss(cache: PhraseCache, key: str):
    assert cache.get(key) is None


def test_a_clip_put_in_again_replaces_the_former(cache: PhraseCache, key: str, entry: Path):
    cache.put(key, b"new")
    assert cache.get(key) == b"new"
    assert files(entry.parent) == [entry]


def test_names_of_files_show_no_text_no_name_and_no_voice(cache: PhraseCache, tmp_path: Path):
    cache.put(cache.key(RENDERING, "Hello Alice Archer."), SOUND)
    (path,) = files(tmp_path)
    parts = path.relative_to(tmp_path / "phrases").parts
    assert all(set(part) <= set("0123456789abcdef") for part in parts)
    assert b"Alice" not in path.read_bytes()


# Age


def test_a_clip_that_is_too_old_is_a_miss(key: str, tmp_path: Path):
    cache = PhraseCache(tmp_path / "phrases", "secret", ttl_s=-1)
    cache.put(key, SOUND)
    assert cache.get(key) is None


def test_a_clip_is_kept_for_as_long_as_it_was_told(cache: PhraseCache, entry: Path):
    assert cache.prune(time.time() + 59) == 0
    assert cache.prune(time.time() + 61) == 1
    assert not entry.exists()


# Damage


@pytest.mark.parametrize("length", [0, 1, 47, 48, 49, 1000, -1])
def test_a_truncated_clip_is_a_miss(cache: PhraseCache, key: str, entry: Path, length: int):
    entry.write_bytes(entry.read_bytes()[:length])
    assert cache.get(key) is None


def test_a_clip_with_something_behind_it_is_a_miss(cache: PhraseCache, key: str, entry: Path):
    entry.write_bytes(entry.read_bytes() + b"\0")
    assert cache.get(key) is None


@pytest.mark.parametrize("place", [*range(48), 48, 1000, -1])
@pytest.mark.parametrize("bit", [1, 64, 128])
def test_a_single_flipped_bit_is_a_miss(cache: PhraseCache, key: str, entry: Path, place: int, bit: int):
    damaged = bytearray(entry.read_bytes())
    damaged[place] ^= bit
    entry.write_bytes(damaged)
    assert cache.get(key) is None


@pytest.mark.parametrize("content", [b"ID3" + bytes(5000), b"x" * 48, struct.pack(">4sdI32s", b"VCP2", 1e300, 0, b"")])
def test_a_foreign_file_is_a_miss(cache: PhraseCache, key: str, entry: Path, content: bytes):
    entry.write_bytes(content)
    assert cache.get(key) is None


def test_a_clip_under_another_clips_name_is_a_miss(cache: PhraseCache, entry: Path):
    other = cache.key(RENDERING, "I see.")
    (entry.parent.parent / other[:2]).mkdir(exist_ok=True)
    (entry.parent.parent / other[:2] / other).write_bytes(entry.read_bytes())
    assert cache.get(other) is None


def test_a_damaged_clip_is_mended_by_the_next_one_put_in(cache: PhraseCache, key: str, entry: Path):
    entry.write_bytes(b"damaged")
    cache.put(key, SOUND)
    assert cache.get(key) == SOUND


def test_where_a_file_cannot_be_read_there_is_a_miss(cache: PhraseCache, key: str, entry: Path):
    entry.unlink()
    entry.mkdir()
    assert cache.get(key) is None


# Pruning


def test_pruning_removes_what_is_old_or_damaged_and_keeps_the_rest(cache: PhraseCache, tmp_path: Path):
    keys = [cache.key(RENDERING, f"Phrase {number}.") for number in range(4)]
    for each in keys[:3]:
        cache.put(each, SOUND)
    PhraseCache(tmp_path / "phrases", "secret", ttl_s=-1).put(keys[3], SOUND)
    (tmp_path / "phrases" / keys[0][:2] / keys[0]).write_bytes(b"damaged")
    assert cache.prune(time.time()) == 2
    assert [cache.get(each) is not None for each in keys] == [False, True, True, False]


@pytest.mark.parametrize(("age_s", "left"), [(0, True), (3500, True), (3700, False)])
def test_pruning_removes_what_a_killed_writer_left_once_nobody_can_be_writing_it(
    cache: PhraseCache, entry: Path, age_s: int, left: bool
):
    half_written = entry.parent / ".tmp1234"
    half_written.write_bytes(b"half")
    cache.prune(time.time() + age_s)
    assert half_written.exists() is left


def test_pruning_an_empty_cache_is_nothing(cache: PhraseCache):
    assert cache.prune(time.time()) == 0


# The disk


def test_a_disk_that_refuses_says_so_and_nothing_is_left_behind(cache: PhraseCache, key: str, tmp_path: Path):
    target = tmp_path / "phrases" / key[:2] / key
    target.mkdir(parents=True)
    with pytest.raises(OSError, match=key):
        cache.put(key, SOUND)
    assert files(tmp_path) == []
    assert cache.get(key) is None


def test_a_cache_whose_folder_is_gone_misses_and_says_so_when_written(cache: PhraseCache, key: str, tmp_path: Path):
    (tmp_path / "phrases").rmdir()
    (tmp_path / "phrases").write_bytes(b"a file")
    assert cache.get(key) is None
    with pytest.raises(OSError, match="phrases"):
        cache.put(key, SOUND)


def test_while_two_write_a_reader_hears_one_of_them_whole_or_nothing(cache: PhraseCache, key: str):
    sounds = [bytes([number]) * 50_000 for number in (1, 2)]
    done = threading.Event()

    def write(sound: bytes) -> None:
        for _ in range(50):
            cache.put(key, sound)
        done.set()

    writers = [threading.Thread(target=write, args=(sound,)) for sound in sounds]
    for writer in writers:
        writer.start()
    heard = set()
    while not done.is_set():
        heard.add(cache.get(key))
    for writer in writers:
        writer.join()
    assert heard <= {None, *sounds}
    assert cache.get(key) in sounds
