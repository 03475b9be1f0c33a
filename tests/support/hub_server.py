"""A server of weights on loopback, which can be slow, cut off, lie or say nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = 8192  # bytes that a slow server sends at once


class HubServer(ThreadingHTTPServer):
    """Answers every request in the way that `manner` says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.manner = b"", "whole"
        self.requests = 0
        self.over = threading.Event()
        self.goes_on = threading.Event()  # after a stall

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing where the client has left."""


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_GET(self) -> None:
        self.server.requests += 1
        content, manner = self.server.content, self.server.manner
        if manner.isdigit():
            self.send_error(int(manner))
        elif manner == "hangs up":
            return
        elif manner == "no HTTP":
            self.wfile.write(b"weights? what weights?\r\n")
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self._send(content, manner)

    def _send(self, content: bytes, manner: str) -> None:
        if manner == "silent":
            self.server.over.wait()
        elif manner == "stalls":
            self.wfile.write(content[: len(content) // 2])
            self.server.goes_on.wait()
            self.wfile.write(content[len(content) // 2 :])
        elif manner == "slow":
            for start in range(0, len(content), PIECE):
                self.wfile.write(content[start : start + PIECE])
                self.server.over.wait(0.001)
        else:
            sent = {"cut": content[: len(content) // 2], "lies": bytes(len(content))}
            self.wfile.write(sent.get(manner, content))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet."""


@contextmanager
def serving() -> Iterator[HubServer]:
    """Serve on a thread, until the end."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.goes_on.set()
            server.shutdown()
            thread.join()
