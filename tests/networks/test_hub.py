"""The Hugging Face hub, played by a server in this process."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from dcai_ray.networks import hub

COMMIT = "1" * 40
FILES = {"config.json": b"{}", "model.safetensors": b"w" * 3_000_000, "README.md": b"text"}
NEEDED = (("config.json",), ("model.safetensors", "pytorch_model.bin"))


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download takes."""

    def do_GET(self):
        self.server.requests.append(self.path)
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/some/net/tree"):
            tree = [
                {"type": "file", "path": name, "size": len(FILES[name]), "oid": name}
                for name in FILES
            ]
            self.answer(json.dumps(tree).encode())
        elif path.startswith("/api/models/some/net"):
            files = [{"rfilename": name, "size": len(FILES[name])} for name in FILES]
            self.answer(json.dumps({"id": "some/net", "sha": COMMIT, "siblings": files}).encode())
        elif path.startswith("/some/net/resolve/"):
            self.answer(FILES[path.rpartition("/")[2]], path.rpartition("/")[2])
        else:
            self.send_error(401 if "private" in path else 404)

    do_HEAD = do_GET

    def answer(self, content, name="json"):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{name}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.requests = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server
        server.shutdown()
        thread.join()


def test_what_is_needed_is_downloaded_with_a_word_and_found_again_without_a_request(
    server, tmp_path, capsys
):
    folder = hub.fetched_folder("some/net", NEEDED, "hf:some/net")
    with open(f"{folder}/model.safetensors", "rb") as file:
        assert file.read() == FILES["model.safetensors"]
    said = capsys.readouterr().err
    assert said == (
        f"downloading hf:some/net (3 MB) from the Hugging Face hub to {tmp_path / 'cache'}\n"
    )
    assert not any("README" in path for path in server.requests)
    server.requests.clear()
    assert hub.fetched_folder("some/net", NEEDED, "hf:some/net") == folder
    assert not server.requests


@pytest.mark.parametrize(
    ("repository", "needed", "message"),
    [
        ("some/absent", NEEDED, "/api/models/some/absent: it does not exist; check the name"),
        ("some/private", NEEDED, "it does not exist or is private; .* set HF_TOKEN"),
        ("some/net", [["spm.model"]], "the repository some/net has no spm.model"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(repository, needed, message, server):
    with pytest.raises(ValueError, match=f"^hf:x: .*{message}") as caught:
        hub.fetched_folder(repository, needed, "hf:x")
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 1


def test_offline_by_choice_asks_nobody(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        hub.fetched_folder("some/net", NEEDED, "hf:some/net")
    assert not server.requests
