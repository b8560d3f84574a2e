"""`make image-test`: builds the container image, runs all processes from it, and speaks once.

Needs Docker, a PostgreSQL server (DATABASE_URL, whose user may create databases) and a Redis server (REDIS_URL), both
reachable from this machine. The containers use the network of the host. DATABASE_URL and REDIS_URL may have any
content: the test has a database of its own, and Redis is used as a broker only. Ends with 1 if something does not hold.
"""

import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress

import psycopg
from psycopg import sql
from yarl import URL

from tests.free_processors import FREE_SHARE, free_processor_share
from tests.server import ROOT, free_port
from tests.waiting import until

IMAGE = os.environ.get("IMAGE", "voicecare:test")
MAX_BYTES = 600_000_000
MAX_START_S = 5.0
NAME = f"voicecare-image-test-{os.getpid()}"
UNWANTED = "gcc cc make pip pip3 git curl wget"


def docker(*arguments: str) -> str:
    process = subprocess.run(["docker", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return process.stdout.strip()


def report(line: str) -> None:
    print(f"ok   {line}", flush=True)


def create_database(server: URL, stack: ExitStack) -> str:
    """Creates a database for this run, which is dropped at the end of the stack. Returns its URL."""
    name = NAME.replace("-", "_")
    with psycopg.connect(str(server), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def drop() -> None:
        with psycopg.connect(str(server), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    stack.callback(drop)
    return str(server.with_path(f"/{name}"))


class Containers:
    """Containers of the image as compose.yaml runs them: read-only, without capabilities, one data volume."""

    def __init__(self, settings: dict[str, str], stack: ExitStack) -> None:
        docker("volume", "create", NAME)
        stack.callback(docker, "volume", "rm", NAME)
        environment = [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]
        self._options = ["--network", "host", "--read-only", "--tmpfs", "/tmp", "--volume", f"{NAME}:/data"]
        self._options += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", *environment]
        self._stack = stack

    def run(self, *command: str) -> str:
        """Runs a command in a new container until it ends. Returns its output."""
        return docker("run", "--rm", *self._options, IMAGE, *command)

    def start(self, name: str, *command: str, check_health: bool = False) -> str:
        """Starts a container that keeps running. Returns its name."""
        name = f"{NAME}-{name}"
        options = [*self._options, "--init"] if check_health else [*self._options, "--init", "--no-healthcheck"]
        docker("create", "--name", name, *options, IMAGE, *command)
        self._stack.callback(docker, "rm", "--force", "--volumes", name)
        docker("start", name)
        return name


def answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=5):
        return True
    return False


def has_all_processes(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=5) as reply:
        return not {"worker", "beat", "offline_voice", "provider"} & set(json.load(reply)["degraded"])
    return False


def check_image() -> None:
    image = json.loads(docker("image", "inspect", IMAGE))[0]
    assert image["Size"] < MAX_BYTES, f"{image['Size']:,} bytes"
    report(f"the image has {image['Size'] / 1e6:.0f} MB")
    inside = ["run", "--rm", "--entrypoint", "sh", IMAGE, "-c"]
    assert docker(*inside, "id -u") != "0"
    found = docker(*inside, f"for name in {UNWANTED}; do command -v $name; done; true")
    assert not found, found
    report("its user is not root, and it has no build tools")


def check_start_time(start: Callable[[], str], url: str) -> str:
    began = time.monotonic()
    web = start()
    until(lambda: answers(f"{url}/healthz"), 60)
    seconds = time.monotonic() - began
    share = free_processor_share()
    if seconds > MAX_START_S and share < FREE_SHARE:
        print(
            f"skip web has served {seconds:.1f} s after its start, but a process gets {share:.0%} of a processor only"
        )
        return web
    assert seconds < MAX_START_S, f"web has served after {seconds:.1f} s"
    report(f"web has served {seconds:.1f} s after its start")
    return web


def main() -> None:
    server, redis = URL(os.environ["DATABASE_URL"]), os.environ["REDIS_URL"]
    subprocess.run(["docker", "build", "--network", "host", "--tag", IMAGE, "."], cwd=ROOT, check=True)
    check_image()
    port, sandbox_port = free_port(), free_port()
    with ExitStack() as stack:
        settings = {
            "SECRET_KEY": "only for this test",
            "ALLOWED_HOSTS": "127.0.0.1",
            "DATABASE_URL": create_database(server, stack),
            "REDIS_URL": redis,
            "PORT": str(port),
            "SANDBOX_PORT": str(sandbox_port),
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
            "ADMIN_EMAILS": "image-test@example.org",
            "EMAIL_URL": "console:",
        }
        containers = Containers(settings, stack)
        containers.run("python", "manage.py", "migrate", "--noinput")
        report("the database is migrated")
        sandbox = containers.start("sandbox", "python", "manage.py", "sandbox", "--port", str(sandbox_port))
        until(lambda: answers(f"http://127.0.0.1:{sandbox_port}/"), 60)
        url = f"http://127.0.0.1:{port}"
        web = check_start_time(lambda: containers.start("web", "web", check_health=True), url)
        worker, beat = containers.start("worker", "worker"), containers.start("beat", "beat")
        until(lambda: has_all_processes(f"{url}/readyz"), 120)
        report("web, worker, beat, the offline voice and the sandbox work with a read-only file system")
        manage = ["exec", web, "python", "manage.py"]
        setup = docker(*manage, "setup", "--no-input", "--patient", "Ada Lind", "--companion", "Clara")
        token = re.search(r"--token (\S+)", setup)
        assert token, setup
        spoken = docker(*manage, "talk", "--token", token[1], "--out", "/tmp/speech.mp3", "Good morning")
        assert "live" in spoken, spoken
        report("`talk` has heard:\n     " + spoken.replace("\n", "\n     "))
        until(lambda: docker("inspect", "--format", "{{.State.Health.Status}}", web) == "healthy", 60)
        report("the health check of the image says healthy")
        for name in (web, worker, beat, sandbox):
            docker("stop", "--time", "60", name)
            code = docker("inspect", "--format", "{{.State.ExitCode}}", name)
            assert code == "0", f"{name} ended with {code}:\n{docker('logs', '--tail', '40', name)}"
        report("all processes end with exit code 0 after SIGTERM")


if __name__ == "__main__":
    main()
