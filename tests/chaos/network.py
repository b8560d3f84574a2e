"""Machines as network namespaces, and partitions between them in which packets vanish.

The hub is the namespace of the test itself. It has the services, each with an address of its own, and the devices. Each
host is a namespace with one address and a link to the hub. Needs root and `ip` (Linux).

`run_isolated()` comes first: it starts the program again in its own namespaces, so the network of this machine is not
touched, and everything vanishes when the program ends.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.server import Place

POSTGRES, REDIS, PROVIDER = (f"10.77.0.{number}" for number in (1, 2, 3))
EVERYTHING = "0.0.0.0/0"
_ISOLATED = "VOICECARE_ISOLATED"
_OWN_NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def missing_tool() -> str | None:
    """Return why there can be no such network here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "unshare"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if subprocess.run([*_OWN_NAMESPACES, "true"], check=False, capture_output=True).returncode:
        return "this machine does not allow network namespaces"
    return None


def run_isolated() -> None:
    """Replace this process by one in its own namespaces, and return there. Mounts and processes end with it."""
    if _ISOLATED not in os.environ:
        os.environ[_ISOLATED] = "1"
        os.execvp(_OWN_NAMESPACES[0], [*_OWN_NAMESPACES, *sys.orig_argv])
    os.makedirs("/run/netns", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/netns"], check=True)


@dataclass(frozen=True)
class Host:
    """A machine: the name of its namespace, and its address."""

    name: str
    address: str

    @property
    def place(self) -> Place:
        return Place(address=self.address, prefix=("ip", "netns", "exec", self.name))

    def kill_processes(self) -> None:
        listed = subprocess.run(["ip", "netns", "pids", self.name], check=True, capture_output=True, text=True)
        for pid in map(int, listed.stdout.split()):
            os.kill(pid, signal.SIGKILL)


def create_network(names: tuple[str, ...]) -> list[Host]:
    """Turn this namespace into the hub, and create a host for each name."""
    _ip("link", "set", "lo", "up")
    for address in (POSTGRES, REDIS, PROVIDER):
        _ip("address", "add", f"{address}/32", "dev", "lo")
    _make_rules_first(())
    return [_create_host(name, number) for number, name in enumerate(names, start=1)]


@contextmanager
def partition(host: Host, *addresses: str) -> Iterator[None]:
    """Drop all packets between the host and these addresses during the block, in both directions and silently."""
    rules = [((), "from", host.address, "to", address) for address in addresses] + [
        (("-n", host.name), "from", address, "to", host.address) for address in addresses
    ]
    for namespace, *packets in rules:
        _ip(*namespace, "rule", "add", "pref", "10", *packets, "blackhole")
    try:
        yield
    finally:
        for namespace, *packets in rules:
            _ip(*namespace, "rule", "del", "pref", "10", *packets, "blackhole")


def _create_host(name: str, number: int) -> Host:
    inside = ("-n", name)
    _ip("netns", "add", name)
    _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("address", "add", f"10.77.{number}.1/24", "dev", name)
    _ip("link", "set", name, "up")
    _ip(*inside, "link", "set", "lo", "up")
    _ip(*inside, "address", "add", f"10.77.{number}.2/24", "dev", "eth0")
    _ip(*inside, "link", "set", "eth0", "up")
    _ip(*inside, "route", "add", "default", "via", f"10.77.{number}.1")
    _make_rules_first(inside)
    return Host(name, f"10.77.{number}.2")


def _make_rules_first(inside: tuple[str, ...]) -> None:
    """Let the rules of a partition come before the one for local addresses, which is the first by default."""
    _ip(*inside, "rule", "add", "pref", "100", "lookup", "local")
    _ip(*inside, "rule", "del", "pref", "0")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
