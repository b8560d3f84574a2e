"""The address of this machine in its network, for devices in the same room."""

import ipaddress
import socket

ANY = "0.0.0.0"  # noqa: S104 - compared, not listened on
_ELSEWHERE = ("192.0.2.1", 9)  # an address for documentation; nothing is sent there


def lan_address(host: str) -> str | None:
    """Return the address under which other machines reach a server that listens on `host`. None if none can."""
    if host == ANY:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(_ELSEWHERE)  # only chooses the interface
            except OSError:
                return None
            address: str = probe.getsockname()[0]
            return address
    return None if _is_loopback(host) else host


def lan_hosts(host: str) -> list[str]:
    """Return the names of a server that listens on `host` for other machines: its address and the machine's names."""
    address = lan_address(host)
    if address is None:
        return []
    name = socket.gethostname().lower()
    return [address, name, f"{name.partition('.')[0]}.local"]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
