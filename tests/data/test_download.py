import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from zoo.data.download import fetch


class Page(BaseHTTPRequestHandler):
    """Answers with the page asked for: whole, cut off, or never."""

    def do_GET(self):
        if self.path == "/silent":
            self.server.leave.wait()
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello" if self.path == "/whole" else b"hel")
        if self.path == "/stalled":
            self.wfile.flush()
            self.server.leave.wait()

    def log_message(self, *args):
        pass


@pytest.fixture
def site(monkeypatch):
    """Address of a server on this machine."""
    monkeypatch.setenv("no_proxy", "*")
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        server.leave = threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.leave.set()
        server.shutdown()
        thread.join()


def test_a_page_arrives_whole(site):
    assert fetch(f"{site}/whole", patience=5.0) == b"hello"


@pytest.mark.parametrize(
    ("page", "reason"),
    [("missing", "404"), ("cut", "broke off"), ("silent", "no answer|timed out"), ("stalled", "no answer")],
)
def test_a_page_that_does_not_arrive_is_an_error(site, page, reason):
    start = time.monotonic()
    with pytest.raises(OSError, match=reason):
        fetch(f"{site}/{page}", patience=0.2)
    assert time.monotonic() - start < 5


def test_a_name_server_that_hangs_is_waited_for_no_longer_than_for_anything_else(monkeypatch):
    release = threading.Event()

    def hang(*args, **kwargs):
        release.wait()
        raise socket.gaierror("released")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer in 0\.2 seconds"):
        fetch("http://mirror.invalid/file", patience=0.2)
    assert time.monotonic() - start < 5
    release.set()


def test_a_name_that_does_not_exist_is_an_error(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(OSError, match="not known"):
        fetch("http://mirror.invalid/file", patience=5.0)
