"""Django settings. All values come from environment variables.

Without any variable, everything runs on this machine: SQLite, the built-in sandbox, and a folder as Celery's broker.
docs/operation.md lists the public variables with their defaults.
"""

import os
import re
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NoReturn, cast
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from environs import Env, EnvValidationError, ValidationError, validate
from yarl import URL

from voicecare.core.lan import lan_hosts
from voicecare.infrastructure import storages
from voicecare.infrastructure.schedule import SCHEDULE
from voicecare.observability import logs
from voicecare.providers.elevenlabs import models

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env(eager=False)  # seal() reports all invalid variables together


def _refuse(problem: str) -> NoReturn:
    """Ends the process with one line. Whoever sets variables needs no traceback, in none of the processes."""
    sys.exit(f"voicecare cannot start. {problem}")


def _redis_address(address: str) -> None:
    try:
        is_valid = not address or (urlsplit(address).scheme in ("redis", "rediss") and urlsplit(address).port != 0)
    except ValueError:  # a port that is no number or out of range
        is_valid = False
    if not is_valid:
        raise ValidationError("It must be an address like redis://host:6379/0, or rediss:// for TLS.")


DATA_DIR = env.path("VOICECARE_DATA_DIR", BASE_DIR / "var")
DEBUG = env.bool("DEBUG", True)
SECRET_KEY = env.str("SECRET_KEY", "")
HOST = env.str("HOST", "127.0.0.1")  # where `make run` listens
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]", *lan_hosts(HOST)] if DEBUG else [])


def _origins(origins: list[str]) -> None:
    for origin in origins:
        if not re.fullmatch(r"null|file://|[a-z][a-z0-9+.-]*://[^/@?#\s]+", origin):
            raise ValidationError(f"{origin} is no origin, such as https://tablet.example.org, file:// or null.")


_device_origins: list[str] = env.list("DEVICE_ORIGINS", [], validate=_origins) or []  # None if `seal` reports it
DEVICE_ORIGINS = [origin.lower() for origin in _device_origins]
_database = env.dj_db_url(
    "DATABASE_URL", f"sqlite:///{DATA_DIR / 'voicecare.sqlite3'}", conn_max_age=60, conn_health_checks=True
)
REDIS_URL = env.str("REDIS_URL", "", validate=_redis_address)

ELEVENLABS_API_KEY = env.str("ELEVENLABS_API_KEY", "")
ELEVENLABS_API_KEY_FILE = env.str("ELEVENLABS_API_KEY_FILE", "")
USE_SANDBOX = not (ELEVENLABS_API_KEY or ELEVENLABS_API_KEY_FILE)
SANDBOX_HOST = env.str("SANDBOX_HOST", "127.0.0.1")  # where the sandbox listens, and where it is found
SANDBOX_PORT = env.int("SANDBOX_PORT", 8001)


def _http_address(address: str) -> None:
    try:
        url = URL(address)
    except ValueError:  # a port out of range, half a bracket
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ValidationError("It must be an address like https://host.example.org.")


def _optional_http_address(address: str) -> None:
    if address:
        _http_address(address)


ELEVENLABS_BASE_URL = env.str(
    "ELEVENLABS_BASE_URL",
    f"http://{SANDBOX_HOST}:{SANDBOX_PORT}" if USE_SANDBOX else "https://api.elevenlabs.io",
    validate=_http_address,
)


def _speech_model(model_id: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", model_id):
        raise ValidationError("It must be the id of a model, such as eleven_flash_v2_5.")
    if not models.is_for_speech(model_id):
        raise ValidationError("This model does not speak texts. Take one such as eleven_flash_v2_5.")


ELEVENLABS_MODEL_ID = env.str("ELEVENLABS_MODEL_ID", "eleven_flash_v2_5", validate=_speech_model)
ELEVENLABS_ZERO_RETENTION = env.bool("ELEVENLABS_ZERO_RETENTION", False)
ZERO_RETENTION_CHECK = env.bool("ZERO_RETENTION_CHECK", True)
ELEVENLABS_REGIONS: list[str] = env.list("ELEVENLABS_REGIONS", [])
DEFAULT_VOICE_ID = env.str("DEFAULT_VOICE_ID", "")

_seconds = validate.Range(min=0.05, max=600)
FIRST_CHUNK_TIMEOUT_S = env.float("FIRST_CHUNK_TIMEOUT_S", 1.5, validate=_seconds)
STALL_TIMEOUT_S = env.float("STALL_TIMEOUT_S", 2.0, validate=_seconds)
HEDGE_SHARE = env.float("HEDGE_SHARE", 0.03, validate=validate.Range(min=0, max=1))
BUSY_WAIT_S = env.float("BUSY_WAIT_S", 5.0, validate=_seconds)
QUOTA_POLL_S = env.float("QUOTA_POLL_S", 15.0, validate=_seconds)
DRAIN_TIMEOUT_S = env.float("DRAIN_TIMEOUT_S", 10.0, validate=_seconds)
DEVICE_CHARACTERS_PER_MINUTE = env.int("DEVICE_CHARACTERS_PER_MINUTE", 6000, validate=validate.Range(min=1))

# A recording below one of these limits is rejected (cloning/samples/acceptance.py).
CLONE_MIN_SNR_DB = env.float("CLONE_MIN_SNR_DB", 11.0, validate=validate.Range(min=0, max=60))
CLONE_MIN_SPEECH_S = env.float("CLONE_MIN_SPEECH_S", 24.0, validate=validate.Range(min=0, max=300))

PHRASE_STORE = env.str("PHRASE_STORE", "file", validate=validate.OneOf(["file", "redis", "s3"]))
AWS_STORAGE_BUCKET_NAME = env.str("AWS_STORAGE_BUCKET_NAME", "")
AWS_S3_ENDPOINT_URL = env.str("AWS_S3_ENDPOINT_URL", "")  # boto3 reads the other AWS_ variables itself
PHRASE_TTL_S = 7 * 24 * 3600  # a product requirement: cached audio is kept for seven days


def _known_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValidationError("There is no such time zone: take a name like Europe/Berlin.") from error


_days = validate.Range(min=0, max=36_500)
ERASURE_GRACE_DAYS = env.int("ERASURE_GRACE_DAYS", 7, validate=_days)  # an erasure can be undone for so long
TEXT_RETENTION_DAYS = env.int("TEXT_RETENTION_DAYS", 90, validate=_days)
CLONE_SAMPLE_RETENTION_DAYS = env.int("CLONE_SAMPLE_RETENTION_DAYS", 30, validate=_days)
AUDIT_RETENTION_DAYS = env.int("AUDIT_RETENTION_DAYS", 1096, validate=_days)  # three years; 0 keeps entries forever
WEBHOOK_RETENTION_DAYS = env.int("WEBHOOK_RETENTION_DAYS", 30, validate=_days)  # events and the log of deliveries
WEBHOOK_ALLOW_PRIVATE = env.bool("WEBHOOK_ALLOW_PRIVATE", DEBUG)
DEVICE_OFFLINE_AFTER_S = env.float("DEVICE_OFFLINE_AFTER_S", 300.0, validate=validate.Range(min=1, max=43_200))

ADMIN_EMAILS: list[str] = env.list("ADMIN_EMAILS", [])
STATEMENT_EMAILS: list[str] = env.list("STATEMENT_EMAILS", [])
ALERT_WEBHOOK_URL = env.str("ALERT_WEBHOOK_URL", "")
ALERT_WEBHOOK_SECRET = env.str("ALERT_WEBHOOK_SECRET", "")
PUBLIC_URL = env.str("PUBLIC_URL", f"http://localhost:{env.int('PORT', 8000)}", validate=_http_address)
_mail = env.dj_email_url("EMAIL_URL", "console:" if DEBUG else "smtp://localhost")
METRICS_TOKEN = env.str("METRICS_TOKEN", "")
LOG_FORMAT = env.str("LOG_FORMAT", "plain", validate=validate.OneOf(["plain", "json"]))
SENTRY_DSN = env.str("SENTRY_DSN", "", validate=_optional_http_address)
OTEL_EXPORTER_OTLP_ENDPOINT = env.str("OTEL_EXPORTER_OTLP_ENDPOINT", "", validate=_optional_http_address)
LOG_LEVEL = env.str("LOG_LEVEL", "info", validate=validate.OneOf(["debug", "info", "warning", "error"]))
REQUIRE_TWO_FACTOR = env.str("REQUIRE_TWO_FACTOR", "off", validate=validate.OneOf(["off", "administrators", "staff"]))
OIDC_ISSUER = env.str("OIDC_ISSUER", "")  # login with OpenID Connect (voicecare/accounts/oidc.py)
OIDC_CLIENT_ID = env.str("OIDC_CLIENT_ID", "")
OIDC_CLIENT_SECRET = env.str("OIDC_CLIENT_SECRET", "")
OIDC_CLIENT_SECRET_FILE = env.str("OIDC_CLIENT_SECRET_FILE", "")
OIDC_NAME = env.str("OIDC_NAME", "single sign-on")
OIDC_SCOPES = env.str("OIDC_SCOPES", "openid profile email")
OIDC_USERNAME_CLAIM = env.str("OIDC_USERNAME_CLAIM", "preferred_username")
OIDC_GROUPS_CLAIM = env.str("OIDC_GROUPS_CLAIM", "")
OIDC_CREATE_USERS = env.bool("OIDC_CREATE_USERS", False)
OIDC_COUNTS_AS_TWO_FACTOR = env.bool("OIDC_COUNTS_AS_TWO_FACTOR", False)
USAGE_TIME_ZONE = env.str("USAGE_TIME_ZONE", "UTC", validate=_known_zone)
PRICE_CURRENCY = env.str(
    "PRICE_CURRENCY", "USD", validate=validate.Regexp("^[A-Z]{3}$", error="It must be a code of ISO 4217, like EUR.")
)
try:
    env.seal()
except EnvValidationError as error:
    _found = cast(Mapping[str, list[str]], error.error_messages)
    _refuse(" ".join(f"{name}: {' '.join(problems)}" for name, problems in _found.items()))

try:
    DATA_DIR.mkdir(parents=True, exist_ok=True)
except OSError as error:
    _refuse(f"VOICECARE_DATA_DIR: the folder {DATA_DIR} cannot be created ({error.strerror}).")
if not os.access(DATA_DIR, os.W_OK | os.X_OK):
    _refuse(f"VOICECARE_DATA_DIR: this user cannot write to the folder {DATA_DIR}.")

if not SECRET_KEY:
    if not DEBUG:
        _refuse(
            "SECRET_KEY is not set. With DEBUG off, set it to a long random text and keep it secret, for example "
            "SECRET_KEY=$(python -c 'import secrets; print(secrets.token_urlsafe(50))')."
        )
    # Created at the first start and then kept, so that sessions and cached phrases can be used after a restart.
    _secret_path = DATA_DIR / "secret_key"
    try:
        with suppress(FileExistsError), _secret_path.open("x") as _secret_file:
            _secret_path.chmod(0o600)
            _secret_file.write(secrets.token_urlsafe(50))
    except OSError as _error:  # such as a full disk; an empty file would be taken for the key at the next start
        _secret_path.unlink(missing_ok=True)
        _refuse(f"VOICECARE_DATA_DIR: {_secret_path} cannot be written: {_error.strerror}.")
    SECRET_KEY = _secret_path.read_text()
PHRASE_SECRET = f"{'sandbox' if USE_SANDBOX else 'provider'}:{SECRET_KEY}"  # never play sandbox audio as a real voice

if ELEVENLABS_API_KEY and ELEVENLABS_API_KEY_FILE:
    _refuse("Set ELEVENLABS_API_KEY or ELEVENLABS_API_KEY_FILE, not both.")
if PHRASE_STORE == "redis" and not REDIS_URL:
    _refuse("PHRASE_STORE=redis needs REDIS_URL: set it, or leave PHRASE_STORE at file.")
if PHRASE_STORE == "s3" and not AWS_STORAGE_BUCKET_NAME:
    _refuse("PHRASE_STORE=s3 needs AWS_STORAGE_BUCKET_NAME, the bucket that keeps the phrases.")


_bucket = partial(storages.bucket_storage, AWS_STORAGE_BUCKET_NAME, AWS_S3_ENDPOINT_URL)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "phrases": _bucket("phrases") if PHRASE_STORE == "s3" else storages.atomic_file_storage(DATA_DIR / "phrases"),
    "samples": _bucket("samples") if AWS_STORAGE_BUCKET_NAME else storages.private_file_storage(DATA_DIR / "samples"),
}

LOGGING = logs.configuration(LOG_FORMAT, LOG_LEVEL)
logs.configure_structlog(LOG_FORMAT)

INSTALLED_APPS = [
    "daphne",
    "voicecare.apps.VoicecareAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "voicecare.apps.ApiTokensConfig",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "channels",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "voicecare",
    "voicecare.accounts",
    "voicecare.audit",
    "voicecare.patients",
    "voicecare.webhooks",
    "usage",
    "tts",
    "cloning",
]
MIDDLEWARE = [
    "voicecare.health.probes.answer_health_checks",
    "voicecare.api.middleware.ApiErrorMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "voicecare.admin.time_zone.AdminTimeZoneMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
]
# Pages run scripts of this server only and send requests to this server only, even if someone injects code into a page.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "media-src": ["'self'", "data:"],  # the samples of a trial of models, which are not stored
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}
# The proxy that ends TLS redirects to https: and sends HSTS. For the cookies voicecare.W004 says what to set.
SILENCED_SYSTEM_CHECKS = ["security.W004", "security.W008", "security.W012", "security.W016"]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https:")
ROOT_URLCONF = "voicecare.urls"
ASGI_APPLICATION = "voicecare.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "voicecare.admin.context_processors.sandbox_provider",
            ]
        },
    }
]

# A named cursor needs a connection for several transactions. A pooler in transaction mode (pgbouncer) does not keep it.
_database["DISABLE_SERVER_SIDE_CURSORS"] = True
DATABASES = {"default": _database}
if _database["ENGINE"].endswith("sqlite3"):
    # A deferred transaction that starts to write fails immediately if another one writes. An immediate one waits.
    _database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 10,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
    _database["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}  # a file, because tests start other processes
elif _database["ENGINE"].endswith("postgresql"):
    _database["ENGINE"] = "voicecare.infrastructure.postgresql"  # the server notices clients that are gone
    # A server that disappears closes no connection. Without these options the kernel would notice only after hours.
    _vanished = {
        "connect_timeout": 5,
        "tcp_user_timeout": 10_000,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
    }
    _database["OPTIONS"] = {**_vanished, **_database.get("OPTIONS", {})}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LOGIN_URL = "admin:login"
PASSWORD_RESET_TIMEOUT = 3600  # seconds
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

if "EMAIL_BACKEND" not in _mail:
    _refuse("EMAIL_URL must begin with smtp:, submission:, console: or file:.")
EMAIL_BACKEND = _mail["EMAIL_BACKEND"]
# The default is no server that anybody has chosen, and a link to set a password must not get into the output.
CAN_RESET_PASSWORDS = bool(os.environ.get("EMAIL_URL")) and not EMAIL_BACKEND.endswith("console.EmailBackend")
EMAIL_HOST, EMAIL_PORT = _mail["EMAIL_HOST"] or "localhost", _mail["EMAIL_PORT"] or 25
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail["EMAIL_HOST_USER"] or "", _mail["EMAIL_HOST_PASSWORD"] or ""
EMAIL_USE_TLS, EMAIL_USE_SSL = _mail["EMAIL_USE_TLS"], _mail["EMAIL_USE_SSL"]
EMAIL_FILE_PATH = f"/{_mail['EMAIL_FILE_PATH']}"
EMAIL_TIMEOUT = 5  # seconds, for each reply of the mail server
DEFAULT_FROM_EMAIL = _mail.get("DEFAULT_FROM_EMAIL", f"voicecare@{urlsplit(PUBLIC_URL).hostname or 'localhost'}")

FILE_UPLOAD_HANDLERS = [
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "voicecare.infrastructure.uploads.UnnamedFileUploadHandler",
]

LANGUAGE_CODE = "en"
FORMAT_MODULE_PATH = "voicecare.admin.formats"
USE_THOUSAND_SEPARATOR = True  # of numbers in templates and in the lists and pages of the admin
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
WHITENOISE_USE_FINDERS = DEBUG

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["voicecare.api.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["voicecare.patients.access.CallPermission"],
    "DEFAULT_PARSER_CLASSES": ["voicecare.api.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "voicecare.api.pagination.PageNumberPagination",
    "DEFAULT_SCHEMA_CLASS": "voicecare.api.schema.CallSchema",
    "EXCEPTION_HANDLER": "voicecare.api.errors.exception_handler",
    "URL_FORMAT_OVERRIDE": None,
}
KNOX_TOKEN_MODEL = "knox.AuthToken"  # noqa: S105 - the name of a model
REST_KNOX = {"AUTH_HEADER_PREFIX": "Bearer", "TOKEN_TTL": timedelta(hours=12)}
SPECTACULAR_SETTINGS = {
    "TITLE": "voicecare",
    "DESCRIPTION": "For clinicians: their patients, devices and voices, and what was said.",
    "VERSION": "1",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "voicecare.api.schema.add_errors",
    ],
    "ENUM_NAME_OVERRIDES": {
        "UtteranceStatus": "tts.models.STATE_CHOICES",
        "CloneStatus": "cloning.models.CloneJob.Status",
        "DeliveryStatus": "voicecare.webhooks.models.WebhookDelivery.Status",
        "EventType": "voicecare.webhooks.models.EventType",
        "VoiceSource": "voicecare.patients.models.Voice.Source",
    },
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None},  # the default sends requests to another host
}
OTP_TOTP_ISSUER = "voicecare"
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 5000},  # figures have an entry for each day, and a range has up to 366 days
    },
}

# Celery. Database rows are the queue, so there is no result backend. Without Redis, a folder is the broker. Worker and
# beat are separate processes in both cases, as in production.
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_TIME_LIMIT = 600
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULER = "voicecare.infrastructure.scheduler:Scheduler"
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "beat-schedule")
CELERY_BEAT_SCHEDULE = SCHEDULE
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, str | float]
if REDIS_URL:
    CELERY_BROKER_URL = REDIS_URL
    if REDIS_URL.startswith("rediss:") and "ssl_cert_reqs=" not in REDIS_URL:
        # Unlike redis-py, Celery checks no certificate by default.
        CELERY_BROKER_URL = str(URL(REDIS_URL, encoded=True).update_query(ssl_cert_reqs="required"))
    CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 1, "socket_connect_timeout": 1}
else:
    CELERY_BROKER_URL = "folder://localhost"  # voicecare/infrastructure/filesystem_broker.py
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(DATA_DIR / "broker" / "queue"),
        "data_folder_out": str(DATA_DIR / "broker" / "queue"),
        "processed_folder": str(DATA_DIR / "broker" / "processed"),
        "control_folder": str(DATA_DIR / "broker" / "control"),
        "polling_interval": 0.05,
    }
    for _folder in ("queue", "processed", "control"):
        (DATA_DIR / "broker" / _folder).mkdir(parents=True, exist_ok=True)
