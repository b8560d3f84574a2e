"""The error rates on a part of the corpus. `python -m tests.cloning.samples.corpus` judges all of it."""

import pytest

from tests.cloning.samples.corpus import cases, judged, synthetic_voices


@pytest.mark.timeout(600)  # on a busy machine
def test_recordings_are_judged_rightly():
    results = [judged(case) for case in list(cases(synthetic_voices(2)))[::2]]
    assert len(results) >= 9
    assert [result.case.name for result in results if result.case.is_good and result.codes] == []
    bad = [result for result in results if not result.case.is_good]
    assert [result.case.name for result in bad if not (result.codes or result.warnings)] == []
    assert sum(not result.codes for result in bad) <= 1
    compared = [result for result in results if result.case.snr_db is not None]
    assert [(r.case.name, r.snr_db) for r in compared if abs(r.snr_db - r.case.snr_db) > 3] == []
