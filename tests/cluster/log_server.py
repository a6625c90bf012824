"""Where the API server asks for the logs of pods: a kubelet's own port, for all nodes of this machine."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cluster.kubelet import Machine
from throw_away_ca import Authority

_PATH = re.compile(r"^/containerLogs/([^/]+)/([^/]+)/[^/?]+(?:\?.*)?$")


@contextmanager
def serve_logs(machine: Machine, authority: Authority) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = _PATH.match(self.path)
            file = machine.log(*found.groups()) if found else None
            text = file.read_bytes() if file is not None and file.exists() else b""
            self.send_response(200 if found else 404)
            self.send_header("content-type", "text/plain")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("kubelet", host="127.0.0.1"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    machine.log_port = server.server_port
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
