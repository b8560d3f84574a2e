"""`make install-test`: installs voicecare on an empty Debian 12 with the lines of docs/install.md, and speaks once.

The commands are read from the section "Without containers" and run as they stand there, in one shell, in a new Debian
that debootstrap makes in a temporary folder. It has namespaces of its own, so its PostgreSQL, Redis and nginx do not
meet those of this machine. slirp4netns connects it to the network. Two programs have stand-ins in
tests/deploy/stand_ins: systemctl, because no systemd runs there, and certbot, because nobody can reach the domain.

Prints the seconds of each step. Ends with 1 if something does not hold, or if all steps take over ten minutes. Needs
root, debootstrap and slirp4netns; without them, it says so and ends with 0. DEBIAN_MIRROR is the
mirror, if it is not debootstrap's own.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.server import ROOT
from tests.waiting import until

PAGE = ROOT / "docs/install.md"
SECTION = "Without containers"
MAX_SECONDS = 600
MARK, END = "@@ step ", "end"
HOST_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
NAMESERVER = "10.0.2.3"  # slirp4netns answers there
OUTPUT = "/root/output"
TOKEN = "sed -n 's/^The token of the device is //p' " + OUTPUT
# User name and password of the administrator, patient, companion, language, whether a test alert is sent.
ANSWERS = ("chief", *["correct horse battery staple"] * 2, "Ada Lind", "Clara", "en", "no")
ENTER = """
mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && mount -t tmpfs shm "$0/dev/shm"
exec chroot "$0" /bin/bash /root/install
"""


class Step(NamedTuple):
    title: str
    lines: str


def steps() -> Iterator[Step]:
    """Yields the commands of each numbered heading. What has no number is an alternative."""
    section = PAGE.read_text().split(f"\n## {SECTION}\n")[1].split("\n## ")[0]
    for part in section.split("\n### ")[1:]:
        title = part.partition("\n")[0]
        if title[0].isdigit():
            yield Step(title, "".join(re.findall(r"^```sh\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)))


def script() -> str:
    """Returns the shell script for the new machine. The person at the keyboard is a file with answers."""
    parts = [
        "until grep -q tap0 /proc/net/route; do sleep 0.1; done",
        f"exec > >(tee {OUTPUT}) 2>&1 </dev/null",
    ]
    for step in steps():
        lines = step.lines.replace("manage setup\n", "manage setup </root/answers\n")
        lines = lines.replace("--token TOKEN", f'--token "$({TOKEN})"')
        parts.append(f"echo '{MARK}{step.title}'\n{lines}")
    parts.append(f"echo '{MARK}{END}'; sleep infinity")  # the services go on until this test has read everything
    return "\n".join(parts)


def make_machine(root: Path) -> None:
    mirror = list(filter(None, [os.environ.get("DEBIAN_MIRROR")]))
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", str(root), *mirror], check=True, stdout=sys.stderr)
    checkout = root / "opt/voicecare"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, checkout / name)
    for program in ("systemctl", "certbot"):
        shutil.copy2(ROOT / "tests/deploy/stand_ins" / program, root / "usr/local/bin")
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 0\n")  # packages start their services, as they do with systemd
    policy.chmod(0o755)
    (root / "root/install").write_text(script())
    (root / "root/answers").write_text("".join(f"{answer}\n" for answer in ANSWERS))
    (root / "etc/resolv.conf").write_text(f"nameserver {NAMESERVER}\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost voice.example.org\n")
    shutil.copy2(HOST_CERTIFICATES, root / "root/host-certificates.pem")
    if Path("/etc/pip.conf").exists():  # the package index of this machine
        shutil.copy2("/etc/pip.conf", root / "etc/pip.conf")


def environment() -> dict[str, str]:
    """The variables of a root login, and how this machine reaches mirrors and package indexes."""
    network = {name: value for name, value in os.environ.items() if re.match(r"(?i)(https?|no)_proxy$|PIP_", name)}
    network["PIP_CERT"] = "/root/host-certificates.pem"
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive", "TERM": "dumb", **network}


def start(root: Path, stack: ExitStack) -> "subprocess.Popen[str]":
    """Starts the script in namespaces of its own. Everything in them ends with the stack."""
    namespaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    machine = subprocess.Popen(
        [*namespaces, "sh", "-euc", ENTER, str(root)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # without a terminal, passwords are read from standard input
    )
    stack.callback(machine.wait)
    stack.callback(machine.kill)
    own = os.readlink("/proc/self/ns/net")
    until(lambda: os.readlink(f"/proc/{machine.pid}/ns/net"), wanted=lambda found: found != own)
    command = ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", str(machine.pid), "tap0"]
    network = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(network.wait)
    stack.callback(network.terminate)
    return machine


def run(machine: "subprocess.Popen[str]") -> tuple[dict[str, float], str]:
    """Passes the output on. Returns the seconds of each step, and the output of the last one."""
    seconds: dict[str, float] = {}
    title, began, output = "", time.monotonic(), ""
    for line in machine.stdout or ():
        sys.stderr.write(line)
        if not line.startswith(MARK):
            output += line
            continue
        if title:
            seconds[title] = time.monotonic() - began
        title, began = line.removeprefix(MARK).strip(), time.monotonic()
        if title == END:
            return seconds, output
        output = ""
    raise AssertionError(f"the shell has ended in {title}")


def main() -> None:
    missing = [program for program in ("debootstrap", "slirp4netns", "unshare") if not shutil.which(program)]
    if os.geteuid() != 0:
        missing.append("to be root")
    if missing:
        print(f"skipped: it needs {', '.join(missing)}")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left behind
    with ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="voicecare-install-"))
        stack.callback(subprocess.run, ["rm", "-rf", "--one-file-system", str(root)], check=True)
        root.chmod(0o755)
        make_machine(root)
        seconds, output = run(start(root, stack))
        total = sum(seconds.values())
        for title, took in seconds.items():
            print(f"{took:6.1f} s  {title}")
        print(f"{total:6.1f} s  from the first line to the first greeting", flush=True)
        assert re.search(r"\(greeting\)\n +(live|cache), voice .* bytes of sound written", output, re.DOTALL), output
        assert total < MAX_SECONDS, "over ten minutes"


if __name__ == "__main__":
    main()
