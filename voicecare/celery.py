"""The Celery application. Task messages contain ids only.

The work itself is in database rows (docs/architecture.md).
"""

import os

from celery import Celery

import voicecare.infrastructure.filesystem_broker  # noqa: F401 - registers the `folder://` transport

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voicecare.settings")

app = Celery("voicecare")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
