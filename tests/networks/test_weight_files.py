"""Downloads from a server in this process: what is said, and what a broken one leaves."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from dcai_ray.networks import weight_files
from dcai_ray.networks.weight_files import fetched_file

CONTENT = b"weights" * 300_000  # 2.1 MB
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]


class Server(BaseHTTPRequestHandler):
    """Gives the content, cut short where the name asks for it."""

    def do_GET(self):
        self.server.requests.append(self.path)
        if "absent" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if "stalled" in self.path:
            self.server.released.wait(20)
        self.wfile.write(CONTENT[:1000] if "short" in self.path else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        server.requests, server.released = [], threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def test_a_download_is_announced_with_its_size_and_place_and_done_once(server, tmp_path, capsys):
    url = f"{server.url}/net-{DIGITS}.pth"
    place = tmp_path / f"hub/checkpoints/net-{DIGITS}.pth"
    for _ in range(2):
        assert fetched_file(url, "net") == str(place)
    assert place.read_bytes() == CONTENT
    assert server.requests == [f"/net-{DIGITS}.pth"]
    said = capsys.readouterr().err
    assert said == f"downloading the weights of net (2 MB) from {url} to {place}\n"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (f"short-{DIGITS}.pth", "1000 of 2100000 bytes came|IncompleteRead"),
        ("other-00000000.pth", "its SHA-256 does not begin with 00000000"),
        (f"absent-{DIGITS}.pth", "404"),
        (f"stalled-{DIGITS}.pth", "timed out"),
    ],
)
def test_a_download_that_fails_leaves_nothing_and_says_where_to_put_the_file(
    file, reason, server, tmp_path, monkeypatch
):
    monkeypatch.setattr(weight_files, "REACH_S", 0.3)
    with pytest.raises(ValueError, match=f"no weights for net: .*cannot be .*({reason})") as caught:
        fetched_file(f"{server.url}/{file}", "net")
    folder = tmp_path / "hub/checkpoints"
    assert f"put it at {folder / file}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not folder.exists() or not list(folder.iterdir())
