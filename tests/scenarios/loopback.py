"""A server on loopback that serves weights: whole, slowly, cut off, or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import torch


class WeightsServer(ThreadingHTTPServer):
    """Answers every request as `how` says: whole, cut, stalls, drops, chunked-cut, or with a code such as 404."""

    daemon_threads = True

    def __init__(self, content: bytes, how: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.how = content, how
        self.asked = 0
        self.half_is_sent, self.go_on = threading.Event(), threading.Event()

    def handle_error(self, *_: object) -> None:
        """Stay quiet where the client has left."""


class _Handler(BaseHTTPRequestHandler):
    server: WeightsServer

    def do_GET(self) -> None:
        how, content = self.server.how, self.server.content
        self.server.asked += 1
        if how == "drops":
            return
        if how.isdigit():
            self.send_error(int(how))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.server.half_is_sent.set()
        if how == "stalls":
            self.server.go_on.wait(60)
        if how != "cut":
            self.wfile.write(content[len(content) // 2 :])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(content: bytes, how: str = "whole") -> Iterator[WeightsServer]:
    """Serve until the end of `with`."""
    with WeightsServer(content, how) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.shutdown()
            thread.join()


def url_of(server: HTTPServer, content: bytes) -> str:
    """Give the address of a file whose name promises this content's hash."""
    return f"http://127.0.0.1:{server.server_port}/resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"


def saved(value: Any) -> bytes:
    """Give what torch.save writes."""
    buffer = BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
