"""Work on many rows: a row that fails does not stop the others."""

from functools import partial

import pytest
from django.db import IntegrityError, OperationalError
from structlog.testing import capture_logs

from voicecare.core.batches import RowsFailed, process_each, run_steps


def fail_for(bad: int, error: type[Exception]):
    def process(row: int) -> bool:
        if row == bad:
            raise error("an error")
        processed.append(row)
        return row > 1

    processed: list[int] = []
    return process, processed


def test_it_counts_the_true_results():
    process, processed = fail_for(0, ValueError)
    assert process_each("work", [1, 2, 3], process) == 2
    assert processed == [1, 2, 3]


@pytest.mark.parametrize("error", [IntegrityError, ValueError, KeyError])
def test_the_rows_after_a_failed_one_are_processed_and_the_failure_is_logged(error: type[Exception]):
    process, processed = fail_for(2, error)
    with capture_logs() as logs, pytest.raises(RowsFailed, match="work: 1 rows"):
        process_each("work", [1, 2, 3], process)
    assert processed == [1, 3]
    assert logs == [{"event": "row.failed", "log_level": "error", "work": "work", "row": "2", "error": error.__name__}]


def test_an_unavailable_database_ends_the_work():
    process, processed = fail_for(2, OperationalError)
    with pytest.raises(OperationalError):
        process_each("work", [1, 2, 3], process)
    assert processed == [1]


def test_all_steps_run_and_the_first_error_is_raised():
    process, processed = fail_for(2, ValueError)
    with capture_logs() as logs, pytest.raises(ValueError, match="an error"):
        run_steps(*(partial(process, number) for number in (1, 2, 3)))
    assert processed == [1, 3]
    step = f"{__name__}.fail_for.<locals>.process"
    assert logs == [{"event": "step.failed", "log_level": "error", "step": step, "error": "ValueError"}]
