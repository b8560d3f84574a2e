"""`python manage.py check_ports PORT...` fails if a port is in use. `make run` calls it first."""

import socket
from argparse import ArgumentParser
from collections.abc import Sequence

from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Fail with advice if one of these ports is in use."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("ports", nargs="+", type=int, metavar="PORT")
        parser.add_argument("--host", default="127.0.0.1", help="the address on which a server is to listen")

    def handle(self, *, ports: Sequence[int], host: str, **options: object) -> None:
        _check_host(host)
        for port in ports:
            if not 0 < port < 65536:
                raise CommandError(
                    f"{port} is not a port. Ports are from 1 to 65535. Example: PORT=9000 make run (the sandbox takes "
                    "the next port, or SANDBOX_PORT)."
                )
            with socket.socket() as probe:
                # As the servers do, so that a recently closed port is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError:
                    raise CommandError(
                        f"Port {port} is in use, perhaps by another `make run`. Choose another port: PORT=9000 make "
                        "run (the sandbox takes the next port, or SANDBOX_PORT)."
                    ) from None


def _check_host(host: str) -> None:
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            raise CommandError(
                f"{host} is no IPv4 address of this machine. HOST=0.0.0.0 make run listens on all of them, and "
                "HOST=127.0.0.1 make run on one that no other machine can reach."
            ) from None
