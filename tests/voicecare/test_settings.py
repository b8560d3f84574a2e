"""Settings that depend on environment variables."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_with_environment(name: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return run_code(f"from django.conf import settings; print(settings.{name})", **env)


def run_code(code: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code in a process with the settings that result from these environment variables."""
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "voicecare.settings", "SECRET_KEY": "s", **env}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, text=True, capture_output=True, check=False)


def setting(name: str, **env: str) -> str:
    process = run_with_environment(name, **env)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_the_sandbox_and_the_provider_use_different_phrase_secrets():
    assert setting("PHRASE_SECRET") != setting("PHRASE_SECRET", ELEVENLABS_API_KEY="key")


@pytest.mark.parametrize("address", ["", "localhost:9000", "http://", "ftp://provider", "http://provider:99999"])
def test_an_invalid_provider_url_stops_the_start_with_an_error_message(address: str):
    """Otherwise every patient would hear the offline voice."""
    process = run_with_environment("ELEVENLABS_BASE_URL", ELEVENLABS_BASE_URL=address)
    assert process.returncode != 0
    assert "ELEVENLABS_BASE_URL" in process.stderr
    assert "It must be an address like https://host.example.org." in process.stderr


@pytest.mark.parametrize("address", ["https://api.elevenlabs.io/", "http://127.0.0.1:8001", "http://sand_box/a/prefix"])
def test_a_valid_provider_url_is_accepted(address: str):
    assert setting("ELEVENLABS_BASE_URL", ELEVENLABS_BASE_URL=address) == address


def test_the_sandbox_is_the_provider_without_a_key():
    sandbox = {"SANDBOX_HOST": "sandbox", "SANDBOX_PORT": "9001"}
    assert setting("ELEVENLABS_BASE_URL", **sandbox) == "http://sandbox:9001"
    assert setting("ELEVENLABS_BASE_URL", **sandbox, ELEVENLABS_API_KEY="key") == "https://api.elevenlabs.io"


@pytest.mark.parametrize(("name", "value"), [("LOG_FORMAT", "xml"), ("LOG_LEVEL", "loud")])
def test_an_unknown_log_format_or_level_stops_the_start_with_an_error_message(name: str, value: str):
    process = run_with_environment(name, **{name: value})
    assert process.returncode != 0
    assert name in process.stderr
    assert "Must be one of" in process.stderr


@pytest.mark.parametrize(
    "origin", ["tablet.example.org", "https://tablet.example.org/", "https://", "*", "https://a@b"]
)
def test_an_invalid_device_origin_stops_the_start_with_an_error_message(origin: str):
    process = run_with_environment("DEVICE_ORIGINS", DEVICE_ORIGINS=f"https://other.example.org,{origin}")
    assert process.returncode != 0
    assert "DEVICE_ORIGINS" in process.stderr
    assert f"{origin} is no origin" in process.stderr


def test_device_origins_are_kept_in_lower_case():
    origins = "https://Tablet.example.org:8443,capacitor://localhost,file://,null"
    assert setting("DEVICE_ORIGINS", DEVICE_ORIGINS=origins) == str(origins.lower().split(","))


@pytest.mark.parametrize(("address", "secure"), [("https://voices.example", "True"), ("http://localhost", "False")])
def test_cookies_are_secure_if_the_public_url_uses_tls(address: str, secure: str):
    for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE"):
        assert setting(name, PUBLIC_URL=address) == secure


@pytest.mark.parametrize(
    ("redis_url", "broker_url"),
    [
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("rediss://:p%40ss@host/0", "rediss://:p%40ss@host/0?ssl_cert_reqs=required"),
        ("rediss://host/0?ssl_ca_certs=/ca.pem", "rediss://host/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required"),
        ("rediss://host/0?ssl_cert_reqs=none", "rediss://host/0?ssl_cert_reqs=none"),
    ],
)
def test_celery_verifies_the_certificate_of_redis(redis_url: str, broker_url: str):
    assert setting("CELERY_BROKER_URL", REDIS_URL=redis_url) == broker_url


def test_postgresql_may_be_behind_a_pooler():
    name = "DATABASES['default']['DISABLE_SERVER_SIDE_CURSORS']"
    assert setting(name, DATABASE_URL="postgres://user@host/name") == "True"


def test_a_key_and_a_key_file_together_stop_the_start_with_an_error_message():
    process = run_with_environment("USE_SANDBOX", ELEVENLABS_API_KEY="key", ELEVENLABS_API_KEY_FILE="/run/key")
    assert process.returncode != 0
    assert "Set ELEVENLABS_API_KEY or ELEVENLABS_API_KEY_FILE, not both." in process.stderr


def test_with_a_key_file_the_provider_is_used():
    assert setting("USE_SANDBOX", ELEVENLABS_API_KEY_FILE="/run/key") == "False"


def test_an_empty_name_of_the_key_file_is_no_key_file():
    assert setting("USE_SANDBOX", ELEVENLABS_API_KEY_FILE="") == "True"


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"DEBUG": "x", "QUOTA_POLL_S": "abc"}, "DEBUG: Not a valid boolean. QUOTA_POLL_S: Not a valid number."),
        ({"DEBUG": "0", "SECRET_KEY": ""}, "SECRET_KEY is not set."),
        ({"DATABASE_URL": "nonsense"}, "DATABASE_URL: Not a valid database URL."),
        ({"DATABASE_URL": "postgres://user@host:port/name"}, "DATABASE_URL: Not a valid database URL."),
        ({"REDIS_URL": "foo://host"}, "REDIS_URL: It must be an address like redis://host:6379/0"),
        ({"REDIS_URL": "redis://host:99999/0"}, "REDIS_URL: It must be an address like redis://host:6379/0"),
        ({"ELEVENLABS_MODEL_ID": "scribe_v2"}, "ELEVENLABS_MODEL_ID: This model does not speak texts."),
        ({"ELEVENLABS_MODEL_ID": "flash v2"}, "ELEVENLABS_MODEL_ID: It must be the id of a model"),
        ({"PUBLIC_URL": "voice.example.org"}, "PUBLIC_URL: It must be an address"),
        ({"EMAIL_URL": "mail.example.org"}, "EMAIL_URL must begin with smtp:"),
        ({"PHRASE_STORE": "redis", "REDIS_URL": ""}, "PHRASE_STORE=redis needs REDIS_URL"),
        ({"VOICECARE_DATA_DIR": "/proc/voicecare"}, "VOICECARE_DATA_DIR: the folder /proc/voicecare cannot be created"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("manage.py", "migrate"),
        ("-m", "celery", "-A", "voicecare", "worker"),
        ("-m", "daphne", "-p", "0", "voicecare.asgi:application"),
    ],
    ids=lambda command: command[-1],
)
def test_a_wrong_variable_ends_every_process_with_one_line(
    command: tuple[str, ...], variables: dict[str, str], problem: str
):
    env = {**os.environ, "SECRET_KEY": "s", **variables}
    process = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, text=True, capture_output=True, check=False, timeout=120
    )
    assert process.returncode == 1
    assert process.stderr.startswith(f"voicecare cannot start. {problem}")
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize("url", ["postgres://user:sesame@127.0.0.1:1/voicecare", "sqlite:////proc/voicecare.sqlite3"])
def test_a_database_that_cannot_be_reached_ends_a_command_with_one_line(url: str):
    env = {**os.environ, "SECRET_KEY": "s", "DATABASE_URL": url}
    process = subprocess.run(
        [sys.executable, "manage.py", "migrate"], cwd=ROOT, env=env, text=True, capture_output=True, check=False
    )
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert line.startswith("The database of DATABASE_URL fails: ")
    assert "sesame" not in line


# The documentation of the variables

READ_BY_BOTO3 = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"}
NOT_FOR_OPERATORS = {"DJANGO_SETTINGS_MODULE"}
ONLY_FOR_ONE_COMMAND = {"DJANGO_SUPERUSER_PASSWORD"}  # a secret that no process should keep in its environment
ROW = re.compile(r"^\| (?P<names>`[A-Z][A-Z0-9_]+`[^|]*) \| (?P<default>[^|]*) \|", re.MULTILINE)
LINE = re.compile(r"^(?P<mark>#?)(?P<name>[A-Z][A-Z0-9_]+)=(?P<value>.*)$", re.MULTILINE)


def variables_of(source: str) -> Iterator[str]:
    """Yield the names of the variables that a module reads, from `env` of environs or from `os.environ`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="env") | ast.Attribute(attr="environ"), attr=method),
                args=[ast.Constant(value=str(name)), *_],
            ) if method != "setdefault":
                yield name
            case ast.Subscript(value=ast.Attribute(attr="environ"), slice=ast.Constant(value=str(name))):
                yield name
            case ast.Call(func=ast.Attribute(attr="getenv"), args=[ast.Constant(value=str(name)), *_]):
                yield name


def variables_of_code() -> set[str]:
    modules = [path for package in ("voicecare", "tts", "usage", "cloning") for path in (ROOT / package).rglob("*.py")]
    assert len(modules) > 100
    return {name for path in modules for name in variables_of(path.read_text())}


def documented_variables() -> dict[str, str]:
    """Return the defaults of the tables in docs/operation.md, by name of the variable."""
    rows = ROW.finditer((ROOT / "docs/operation.md").read_text())
    return {name: row["default"] for row in rows for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", row["names"])}


def example_variables(*, with_defaults: bool) -> dict[str, str]:
    """Return the variables of .env.example. The lines with # are the defaults."""
    lines = LINE.finditer((ROOT / ".env.example").read_text())
    return {line["name"]: "".join(shlex.split(line["value"])) for line in lines if with_defaults or not line["mark"]}


def values(variables: dict[str, str], data_dir: Path) -> dict[str, object]:
    """Return the values of all variables in a process that has only these."""
    code = "import json; from voicecare.settings import env; print(json.dumps(env.dump(), default=str))"
    env = {"PATH": os.environ["PATH"], "SECRET_KEY": "s", **variables, "VOICECARE_DATA_DIR": str(data_dir)}
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, check=True).stdout
    read: dict[str, object] = json.loads(output)
    return read


@pytest.mark.parametrize(
    "source",
    [
        'env.float("NAME", 1.0)',
        'os.environ.get("NAME") or 8000',
        'os.environ["NAME"]',
        'os.getenv("NAME", "")',
        "f(f\"{env.int('NAME', 8000)}\")",
    ],
)
def test_variables_of_finds_every_way_to_read_one(source: str):
    assert list(variables_of(source)) == ["NAME"]


def test_the_settings_tables_have_every_variable_and_no_other():
    assert documented_variables().keys() == (variables_of_code() | READ_BY_BOTO3) - NOT_FOR_OPERATORS


def test_the_example_of_an_environment_has_every_variable_and_no_other():
    assert example_variables(with_defaults=True).keys() == documented_variables().keys() - ONLY_FOR_ONE_COMMAND


def test_the_example_of_an_environment_shows_the_defaults(tmp_path: Path):
    needed = {**example_variables(with_defaults=False), "SECRET_KEY": "s", "ELEVENLABS_API_KEY": "key"}
    everything = {**example_variables(with_defaults=True), **needed}
    assert values(everything, tmp_path) == values(needed, tmp_path)


def test_the_settings_tables_show_the_defaults(tmp_path: Path):
    found = values({}, tmp_path)
    words = {"on": True, "off": False, "none": None}
    compared = 0
    for name, default in documented_variables().items():
        literal = re.match(r"(?P<number>[\d.]+)|(?P<word>on|off|none)\b|`(?P<text>[\w. -]+)`$", default)
        if literal is None or name not in found:
            continue  # a description, such as "an SQLite file in the data directory"
        compared += 1
        expected = literal["text"] or (float(literal["number"]) if literal["number"] else words[literal["word"]])
        assert (found[name] if found[name] not in ("", []) else None) == expected, name
    assert compared > 35
