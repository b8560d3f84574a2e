"""Runs work that consists of many rows or steps, so that one failing row or step does not stop the others."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import structlog
from django.db import InterfaceError, OperationalError
from django.db.models import Model

Key = TypeVar("Key")

log = structlog.get_logger(__name__)


class RowsFailed(Exception):
    """Some rows could not be processed. The log has an event `row.failed` for each of them."""


def process_each(work: str, keys: Iterable[Key], process: Callable[[Key], object]) -> int:
    """Calls `process` for each of the `keys`, which are ids or rows. Returns how many calls returned a true value.

    If a call fails, the error is logged, and the other keys are processed. Then RowsFailed is raised at the end, so
    that the task counts as failed. `work` is the name of the work in the log. An error of the connection to the
    database is raised immediately, because no other call could succeed.
    """
    processed, failed = 0, 0
    for key in keys:
        try:
            processed += bool(process(key))
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:  # any defect of one row must not stop the work on the others
            failed += 1
            row = key.pk if isinstance(key, Model) else key  # the text of a row may be a name
            log.error("row.failed", work=work, row=str(row), error=type(error).__name__)
    if failed:
        raise RowsFailed(f"{work}: {failed} rows failed. See row.failed in the log.")
    return processed


def run_steps(*steps: Callable[[], object]) -> None:
    """Calls all steps in order, even if one of them fails.

    At the end raises the error of the first step that failed. Each failed step is logged with the name of its function.
    """
    errors = []
    for step in steps:
        try:
            step()
        except Exception as error:  # the steps do not depend on each other
            function: Any = step.func if isinstance(step, partial) else step
            name = f"{function.__module__}.{function.__qualname__}"
            log.error("step.failed", step=name, error=type(error).__name__)
            errors.append(error)
    if errors:
        raise errors[0]
