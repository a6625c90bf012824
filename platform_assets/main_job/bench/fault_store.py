"""An S3-compatible store that can be told to fail: `python -m platform_assets.main_job.bench.fault_store PORT FILE`.

moto's server in memory; what the file holds is its mood: `ok`, `500` for each request, or `slow`, which keeps each waiting.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

SLOW_SECONDS = 8.0
_SORRY = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>InternalError</Code><Message>We are in trouble.</Message></Error>'


def serve(port: int, mood: Path) -> None:
    """Serve on loopback until it is ended."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import run_simple

    inner = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        found = mood.read_text().strip()
        if found == "slow":
            time.sleep(SLOW_SECONDS)
        elif found == "500":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # or the client meets a closed connection
            start_response("500 Internal Server Error", [("Content-Type", "application/xml"), ("Content-Length", str(len(_SORRY)))])
            return [_SORRY]
        return inner(environ, start_response)

    run_simple("127.0.0.1", port, answer, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
