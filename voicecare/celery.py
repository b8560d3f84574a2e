"""The Celery application. Task messages contain ids only.

The work itself is in database rows (docs/architecture.md).
"""

import logging
import os
from typing import Any

from celery import Celery, signals

import voicecare.infrastructure.filesystem_broker  # noqa: F401 - registers the `folder://` transport
from voicecare.observability import processes

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voicecare.settings")

app = Celery("voicecare")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.setup_logging.connect
def set_up_logging(loglevel: int, **kwargs: Any) -> None:  # noqa: ANN401
    """Keep the logging of the settings. Without a receiver, worker and beat would add their own handlers.

    Worker and beat send the signal when they start, with the level of `--loglevel`. Celery's messages of level debug
    have the arguments of tasks, so they are never logged.
    """
    logging.getLogger("celery").setLevel(max(loglevel, logging.INFO))
    processes.set_up()
