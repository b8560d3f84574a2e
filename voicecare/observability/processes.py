"""What web, worker and beat do when they start. Management commands do none of it."""

from django.conf import settings

from voicecare.observability import logs, reports, traces


def set_up() -> None:
    logs.log_uncaught_errors()
    reports.set_up(settings.SENTRY_DSN)
    traces.set_up(settings.OTEL_EXPORTER_OTLP_ENDPOINT)
