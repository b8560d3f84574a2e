"""The rows of the phrase cache, and the deletion of rows and objects. test_phrase_cache.py tests the whole cache."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from tests.conftest import Member
from tests.tts.cache.stores import file_store
from tts.cache import index
from tts.cache.stores import StoreError
from tts.models import Clip, Phrase

pytestmark = pytest.mark.django_db


def digest(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def clip(alice: Member) -> Callable[..., Clip]:
    """Returns a function that builds an unsaved clip."""

    def make(number: int = 0, **changes: object) -> Clip:
        fields = {
            "digest": digest(number),
            "voice": alice.patient.voice,
            "language": "en",
            "speed": 1.0,
            "format": "mp3_44100_128",
            "characters": 9,
            "size": 100,
            "expires_at": timezone.now() + timedelta(days=7),
        }
        return Clip(**{**fields, **changes})

    return make


class FailingStore:
    """A store whose calls all fail. It counts reads and deletions."""

    is_local = True

    def __init__(self, *keys: str) -> None:
        self.names = keys
        self.calls = 0

    def read(self, key: str) -> bytes | None:
        self.calls += 1
        raise StoreError("failed")

    def write(self, key: str, entry: bytes) -> None:
        raise StoreError("failed")

    def delete(self, key: str) -> None:
        self.calls += 1
        raise StoreError("failed")

    def keys(self) -> Iterator[str]:
        yield from self.names


@pytest.mark.parametrize(
    ("language", "text", "found"),
    [
        ("en", "I see.", True),
        ("en", " I  see.\n", True),
        ("en", "i see.", False),
        ("en", "I see", False),
        ("de", "I see.", False),
    ],
)
def test_a_clip_is_linked_to_the_phrase_with_its_text(
    clip: Callable[..., Clip], phrases: None, language: str, text: str, found: bool
):
    index.upsert(clip(language=language), text)
    expected = Phrase.objects.get(text="I see.") if found else None
    assert Clip.objects.get().phrase == expected


def test_upsert_takes_two_statements(clip: Callable[..., Clip], phrases: None, django_assert_num_queries: Callable):
    one = clip()
    with django_assert_num_queries(2):
        index.upsert(one, "I see.")


def test_existing_returns_the_digests_with_a_row_for_any_number(clip: Callable[..., Clip]):
    Clip.objects.bulk_create([clip(number) for number in (3, index.BATCH_SIZE, 2 * index.BATCH_SIZE)])
    asked = [digest(number) for number in range(2 * index.BATCH_SIZE + 1)]
    assert index.existing(asked) == {digest(3), digest(index.BATCH_SIZE), digest(2 * index.BATCH_SIZE)}
    assert index.existing([]) == set()


def test_hits_are_added_to_each_row_for_any_number(clip: Callable[..., Clip]):
    count = index.BATCH_SIZE + 2
    Clip.objects.bulk_create([clip(number, hits=1) for number in range(count)])
    index.add_hits({digest(number): number for number in range(1, count)})
    hits = dict(Clip.objects.values_list("digest", "hits"))
    assert hits == {digest(number): number + 1 for number in range(count)}
    assert Clip.objects.filter(used_at=None).get().digest == digest(0)


def test_deleting_stops_after_three_failures_in_a_row(clip: Callable[..., Clip]):
    Clip.objects.bulk_create([clip(number) for number in range(20)])
    store = FailingStore()
    assert index.delete(Clip.objects.all(), store) == []
    assert store.calls == index.MAX_CONSECUTIVE_FAILURES
    assert Clip.objects.count() == 20


def test_deleting_orphans_stops_after_three_failed_reads():
    store = FailingStore(*map(digest, range(20)))
    assert index.delete_orphans(store, time.time(), 60) == 0
    assert store.calls == index.MAX_CONSECUTIVE_FAILURES


def test_one_call_deletes_a_limited_number_and_the_next_call_continues(clip: Callable[..., Clip], tmp_path: Path):
    store = file_store(tmp_path)
    count = index.PRUNE_LIMIT + 5
    long_ago = timezone.now() - timedelta(days=1)
    Clip.objects.bulk_create([clip(number, expires_at=long_ago) for number in range(count)])
    assert len(index.delete_expired(store, time.time())) == index.PRUNE_LIMIT
    assert len(index.delete_expired(store, time.time())) == 5
    assert not Clip.objects.exists()


def test_objects_with_a_row_are_not_read(clip: Callable[..., Clip]):
    Clip.objects.bulk_create([clip(number) for number in range(20)])
    store = FailingStore(*map(digest, range(20)))
    assert index.delete_orphans(store, time.time(), 60) == 0
    assert store.calls == 0
