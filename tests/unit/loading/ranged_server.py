"""A tiny web server with byte ranges and index pages, for tests of remote reading; it counts what it is asked for."""

import html
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote


class Server(ThreadingHTTPServer):
    """Serves a folder. `misbehave(handler, path)` may answer itself (True); `ranges` False: whole files only."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.ranges = True
        self.misbehave: Callable[[Handler, str], bool] = lambda handler, path: False
        self.requests: list[tuple[str, str, int]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def bytes_sent(self) -> int:
        return sum(count for _, _, count in self.requests)

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that a test breaks off is no news."""

    def note(self, method: str, path: str, count: int) -> None:
        with self.lock:
            self.requests.append((method, path, count))


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of files and folders."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        if self.server.misbehave(self, path):
            return
        place = self.server.root / path.lstrip("/")
        if place.is_dir():
            names = [p.name + "/" * p.is_dir() for p in sorted(place.iterdir())]
            links = "".join(f'<li><a href="{quote(n, safe="/")}">{html.escape(n)}</a></li>' for n in ["../", *names])
            self.send(200, f"<html><body><a href='?C=N;O=D'>Name</a>{links}</body></html>".encode(), "text/html", body)
        elif place.is_file():
            self.file(place, body)
        else:
            self.send(404, b"no such file", "text/plain", body)

    def file(self, place: Path, body: bool) -> None:
        status = place.stat()
        size = status.st_size
        tags = {"ETag": f'"{status.st_mtime_ns:x}-{size:x}"'}
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found is None or not self.server.ranges:
            self.send(200, place.read_bytes(), "application/octet-stream", body, tags)
            return
        start, stop = int(found[1]), min(int(found[2]) + 1, size)
        if start >= size:
            self.send(416, b"", "text/plain", body, {**tags, "Content-Range": f"bytes */{size}"})
            return
        with place.open("rb") as file:
            file.seek(start)
            part = file.read(stop - start)
        tags["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self.send(206, part, "application/octet-stream", body, tags)

    def send(self, code: int, content: bytes, kind: str, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.server.note(self.command, self.path, len(content) if body else 0)
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    server = Server(root)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
