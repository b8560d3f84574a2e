"""The shipped configurations of nginx and Caddy as child processes on free ports.

Only addresses, ports, paths and the certificate differ from the files in deploy/. `ca` is the file with the authority
that clients must trust. `log_files` are all files that the proxy writes about requests.
"""

import os
import socket
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.server import ROOT, free_port
from tests.services import Service, binary

NGINX = """
daemon off;
user root;
pid nginx.pid;
error_log nginx.log crit;
events {}
http {
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include voicecare.conf;
}
"""


def adapt(text: str, changes: dict[str, str]) -> str:
    """Replaces each key by its value. A key that does not occur is an error: the shipped file has changed."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


class Proxy(Service):
    ca: Path

    def __init__(self, *upstreams: str) -> None:
        """`upstreams` are the web processes, as address and port. Caddy uses the first one only."""
        self.upstreams = upstreams
        self.http_port = free_port()
        super().__init__()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def ping(self) -> None:
        tls = ssl.create_default_context(cafile=self.ca)  # Caddy makes its certificates after its start
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            tls.wrap_socket(connection, server_hostname="localhost").close()

    def logged(self) -> str:
        files = [path for path in self.folder.iterdir() if path.suffix == ".log" or path.name == "log"]
        return "\n".join(path.read_text(errors="replace") for path in files)


class NginxProxy(Proxy):
    def prepare(self) -> Sequence[str]:
        nginx = binary("nginx", Path("/usr/sbin"))
        self.ca = self.folder / "certificate.pem"
        key = self.folder / "key.pem"
        create = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(self.ca)]
        subprocess.run([*create, *names], check=True, capture_output=True)
        others = self.upstreams[1:] or (f"127.0.0.1:{free_port()}",)  # a web process that is down
        changes = {
            "listen [::]:80;": "",
            "listen [::]:443 ssl;": "",
            "listen 80;": f"listen 127.0.0.1:{self.http_port};",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "server 127.0.0.1:8000 ": f"server {self.upstreams[0]} ",
            "server 127.0.0.1:8001 max_fails=0;": "\n".join(f"server {other} max_fails=0;" for other in others),
            "/etc/letsencrypt/live/voice.example.org/fullchain.pem": str(self.ca),
            "/etc/letsencrypt/live/voice.example.org/privkey.pem": str(key),
            "/var/log/nginx/": f"{self.folder}/",
        }
        shipped = (ROOT / "deploy/nginx/voicecare.conf").read_text()
        (self.folder / "voicecare.conf").write_text(adapt(shipped, changes))
        (self.folder / "nginx.conf").write_text(NGINX)
        return [nginx, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), "-e", "nginx.log"]


class CaddyProxy(Proxy):
    def prepare(self) -> Sequence[str]:
        caddy = binary("caddy")
        self.ca = self.folder / "caddy/pki/authorities/local/root.crt"
        host, _, port = self.upstreams[0].rpartition(":")
        options = f"http_port {self.http_port}\n\thttps_port {self.port}\n\tadmin off\n\tskip_install_trust"
        changes = {
            "\n{\n\tlog {": f"\n{{\n\t{options}\n\tlog {{",
            "{$DOMAIN:localhost}": "localhost",
            "{$WEB_HOST:127.0.0.1}": host,
            "{$WEB_PORT:8000}": port,
        }
        config = self.folder / "Caddyfile"
        config.write_text(adapt((ROOT / "deploy/caddy/Caddyfile").read_text(), changes))
        home = ("env", f"XDG_DATA_HOME={self.folder}", f"XDG_CONFIG_HOME={self.folder}", f"HOME={self.folder}")
        return [*home, f"PATH={os.environ['PATH']}", caddy, "run", "--config", str(config), "--adapter", "caddyfile"]
