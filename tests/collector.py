"""A small server that takes error reports (Sentry) and traces (OTLP over HTTP) and keeps every byte of them."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """Runs on a free port inside a `with` block. `environment` has the variables that send everything to it."""

    def __init__(self) -> None:
        self.headers: list[str] = []
        self.bodies: list[tuple[str, bytes]] = []  # path, uncompressed body
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.headers.append(str(self.headers))
                collector.bodies.append((self.path, body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        address = f"127.0.0.1:{self._server.server_address[1]}"
        self.environment = {
            "SENTRY_DSN": f"http://public@{address}/1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}",
            "OTEL_BSP_SCHEDULE_DELAY": "200",  # milliseconds
        }

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def everything(self) -> str:
        """Return all headers, paths and bodies. Strings inside of protobuf messages are readable."""
        bodies = (f"{path}\n{body.decode(errors='replace')}" for path, body in self.bodies)
        return "\n".join([*self.headers, *bodies])

    def reports(self) -> list[dict[str, Any]]:
        """Return the error reports. An envelope has a line for its header, and two lines for each item."""
        found = []
        for path, body in list(self.bodies):
            lines = body.splitlines() if path.endswith("/envelope/") else []
            for header, payload in zip(lines[1::2], lines[2::2], strict=True):
                if json.loads(header)["type"] == "event":
                    found.append(json.loads(payload))
        return found

    def spans(self) -> list[Span]:
        messages = [
            ExportTraceServiceRequest.FromString(body) for path, body in list(self.bodies) if path == "/v1/traces"
        ]
        return [
            span
            for message in messages
            for one in message.resource_spans
            for scope in one.scope_spans
            for span in scope.spans
        ]


def attributes(span: Span) -> dict[str, Any]:
    """Return the attributes of a span as Python values."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value") for item in span.attributes}
