"""Single files on a store that speaks S3: names, pages, interruptions, errors."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save

from dcai_ray.cli import main
from dcai_ray.errors import StorageError, UserError
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location
from dcai_ray.storage.model_files import read_notes
from dcai_ray.storage.object_store import explained, open_store
from tests.support.object_store import ACCESS_KEY, SECRET_KEY, SlowWay

NASTY = (
    *("two words", 'it\'s "quoted"', "Käse 犬", "<script>", "100% a#b", "why?", "a&b=c+d"),
    *("é%20", "a\\b", "[x]; $(touch y)", "tab\t", "a..b"),
)
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def bucket(object_store):
    return object_store.bucket("files")


def test_any_key_is_written_listed_and_read(bucket, object_store):
    folder = Location(f"{bucket}/odd names")
    for name in NASTY:
        (folder / name / f"{name}.png").write_bytes(name.encode())
    keys = [f"{name}/{name}.png" for name in NASTY]
    assert object_store.objects(str(folder)).keys() == set(keys)  # as boto3 sees them
    assert [key for key, _ in folder.walk()] == sorted(keys)
    assert folder.folders() == sorted(NASTY)
    for key, name in zip(keys, NASTY, strict=True):
        assert (folder / key).read_bytes() == name.encode()
        assert (folder / key).exists()


@pytest.mark.slow
def test_more_objects_than_a_page_holds_are_listed(bucket, object_store):
    names = [f"cat/{i:04d}" for i in range(1005)]  # a page: 1,000
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: object_store.put(f"{bucket}/many/{name}", b"x"), names))
    folder = Location(f"{bucket}/many")
    assert list(folder.walk()) == [(name, 1) for name in names]
    assert folder.is_folder()  # though no object marks it
    assert folder.folders() == ["cat"]


@pytest.mark.parametrize("key", ["train/cat/../../../x.png", "a//b.png", "./x.png"])
def test_a_key_that_is_no_path_is_named(bucket, object_store, key):
    """HTTP clients resolve dots: such a key would be asked for under another name."""
    object_store.put(f"{bucket}/{len(key)}/{key}", b"x")
    with pytest.raises(ValueError, match=r"is not a valid path; rename it"):
        list(Location(f"{bucket}/{len(key)}").walk())
    object_store.client.delete_object(Bucket="files", Key=f"{len(key)}/{key}")


@pytest.mark.parametrize("size", [0, 1, 12 * MEGABYTE])
def test_an_object_comes_back_whole(bucket, object_store, size):
    content = os.urandom(size)
    file = Location(f"{bucket}/sized-{size}")
    file.write_bytes(content)
    assert file.read_bytes() == content
    assert object_store.objects(str(file)) == {"": content}
    file.delete()
    assert not file.exists()


@pytest.fixture
def way(object_store, bucket):
    """A way that counts, and a folder of the bucket behind it."""
    way = SlowWay(object_store.endpoint)
    options = f"?endpoint_override={way.endpoint.removeprefix('http://')}&scheme=http"
    folder = Location(f"{bucket}/counted{options}")
    assert not (folder / "the connection is made").exists()
    way.reset()
    return way, folder


def test_a_fingerprint_takes_two_requests_and_a_few_kilobytes_of_a_large_file(way):
    counted, folder = way
    file = folder / "large.parquet"
    x = np.random.default_rng(0).normal(size=MEGABYTE)
    parquet.write_table(file, pa.table({"x": x}), "made")
    counted.reset()
    assert parquet.fingerprint_of(file) == "made"
    assert counted.requests == 2
    assert counted.received < 8192


def test_the_fingerprint_of_an_absent_file_takes_one_request(way):
    counted, folder = way
    assert parquet.fingerprint_of(folder / "nowhere.parquet") == ""
    assert counted.requests == 1


def test_the_notes_of_a_model_take_two_requests_and_its_head_alone(way):
    counted, folder = way
    file = folder / "model.safetensors"
    file.write_bytes(save({"x": np.zeros(MEGABYTE, np.float32)}, {"fingerprint": "made"}))
    counted.reset()
    assert read_notes(file) == {"fingerprint": "made"}
    assert counted.requests == 2
    assert counted.received < 80_000
    assert read_notes(folder / "nowhere.safetensors") == {}


@pytest.mark.parametrize("read", [parquet.fingerprint_of, read_notes])
def test_a_store_that_refuses_a_footer_or_a_header_is_named_in_one_line(object_store, read):
    file = Location("s3://absent-bucket/x")
    assert not read(file)  # as an absent file: a HEAD says no more than 404
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Refusing.code = "AccessDenied"
    file = Location(f"s3://bucket/x?endpoint_override=127.0.0.1:{server.server_port}&scheme=http")
    with pytest.raises(OSError, match="access denied") as caught:
        read(file)
    server.shutdown()
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


WRITE = """
import sys
from dcai_ray.storage.location import Location
from dcai_ray.storage.object_store import explained, open_store
print("ready", flush=True)
Location(sys.argv[1]).write_bytes(b"new" * int(sys.argv[2]))
"""


@pytest.mark.parametrize("count", [10, 5 * MEGABYTE])  # one request, and a multipart upload
def test_a_writer_killed_in_a_request_leaves_the_old_object_or_the_new(bucket, object_store, count):
    uri = f"{bucket}/written-{count}"
    object_store.put(uri, b"old")
    way = SlowWay(object_store.endpoint, delay_s=0.3)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, uri, str(count)],
        env={**os.environ, "AWS_ENDPOINT_URL": way.endpoint},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout.readline() == b"ready\n"
    while not way.sent:
        time.sleep(0.001)
    process.kill()
    assert process.wait(60) != 0
    time.sleep(0.1)  # the store may still be at work on what it got
    assert object_store.objects(uri)[""] in (b"old", b"new" * count)


def test_ctrl_c_just_after_opening_leaves_the_new_object(bucket, object_store, monkeypatch):
    """pyarrow completes an upload that an exception ends: the object would be there, and empty."""
    file = Location(f"{bucket}/interrupted")
    filesystem, root = open_store(bucket)

    class Interrupted:
        def open_output_stream(self, path):
            stream = filesystem.open_output_stream(path)
            signal.raise_signal(signal.SIGINT)
            return stream

    monkeypatch.setattr("dcai_ray.storage.location.open_store", lambda uri: (Interrupted(), root))
    with pytest.raises(KeyboardInterrupt):
        file.write_bytes(b"new")
    for thread in threading.enumerate():  # Ctrl-C may come before the pool knows its own thread
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join()
    assert object_store.objects(str(file)) == {"": b"new"}


class Refusing(http.server.BaseHTTPRequestHandler):
    code = ""

    def do_GET(self):
        text = f"<Error><Code>{self.code}</Code><Message>{SECRET_KEY}</Message></Error>".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_HEAD = do_PUT = do_GET

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("AccessDenied", "access denied"),
        ("SignatureDoesNotMatch", "does not accept these credentials"),
        ("InvalidAccessKeyId", "does not know these credentials"),
        ("ExpiredToken", "the credentials have expired"),
    ],
)
def test_a_refusal_is_one_line_that_names_the_uri(object_store, code, meaning, capfd):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Refusing.code = code
    options = f"?endpoint_override=127.0.0.1:{server.server_port}&scheme=http"
    file = Location(f"s3://bucket/x{options}")
    with pytest.raises(OSError, match=meaning) as read:
        list(file.walk())
    with pytest.raises(OSError, match=meaning) as written:
        file.write_bytes(b"x")
    for error in (read, written):
        assert str(error.value).startswith(f"{file}: ")
        assert "\n" not in str(error.value)
    assert main(["audit", str(file)]) == 1
    server.shutdown()
    said = capfd.readouterr()
    assert len(said.err.splitlines()) == 1
    assert "s3://bucket/x" in said.err
    assert not any(secret in said.err + said.out for secret in (ACCESS_KEY, SECRET_KEY))


def test_an_absent_bucket_is_one_line(object_store, capfd):
    assert main(["audit", "s3://absent-bucket/data", "--backbone", "resnet18"]) == 1
    assert capfd.readouterr().err == "dcai-ray: s3://absent-bucket/data: no such folder\n"
    with pytest.raises(OSError, match=r"^s3://absent-bucket/run/x: no such bucket$"):
        Location("s3://absent-bucket/run/x").write_bytes(b"x")


@pytest.mark.timeout(60)
def test_a_store_that_does_not_answer_is_given_up(capfd):
    uri = "s3://bucket/data?endpoint_override=127.0.0.1:9&scheme=http"
    assert main(["audit", uri]) == 1
    assert capfd.readouterr().err == (
        f"dcai-ray: {uri}: the store does not answer; check AWS_ENDPOINT_URL and the network\n"
    )


@pytest.mark.parametrize(("option", "wanted"), [("", False), ("&anonymous=true", True)])
def test_public_buckets_are_read_without_credentials_if_asked_to(option, wanted):
    store, _ = open_store(f"s3://public?region=eu-west-1{option}")
    assert store.__reduce__()[1][0]["anonymous"] is wanted
    for scheme in ("s3", "gs"):
        with pytest.raises(UserError, match=r"^\w+://public: anonymous must be true or false"):
            open_store(f"{scheme}://public?anonymous=yes")


def test_a_google_store_that_does_not_answer_is_given_up_in_one_line(monkeypatch):
    monkeypatch.setattr("dcai_ray.storage.object_store._GIVE_UP_S", 1.0)
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        place = f"endpoint_override=127.0.0.1:{taken.getsockname()[1]}&scheme=http&anonymous=true"
        start = time.monotonic()
        with pytest.raises(StorageError, match=r"^gs://bucket/file[^\n]*$"):
            Location(f"gs://bucket/file?{place}").read_bytes()
    assert time.monotonic() - start < 30  # pyarrow's own limit is 15 minutes


def test_a_store_that_needs_another_package_is_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"^hf://datasets: needs: pip install 'dcai_ray\[hf\]'"):
        open_store("hf://datasets/nobody/x")


@pytest.fixture
def no_proxy(monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def nobody():
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


def test_azure_needs_an_account_and_takes_it_from_uri_or_environment(monkeypatch, no_proxy, nobody):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(UserError, match=r"^az://set: which account\? Set AZURE_STORAGE_ACCOUNT"):
        Location("az://set/cats").exists()
    here = f"endpoint_override={nobody}&scheme=http"
    for uri in (f"az://set/cats?account_name=mine&{here}", f"abfs://set@mine.x.net/cats?{here}"):
        with pytest.raises(StorageError, match=rf"^\w+://\S+: {nobody} does not answer"):
            Location(uri).exists()
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "mine")
    with pytest.raises(StorageError, match="does not answer"):
        Location(f"az://set/cats?{here}").exists()


def test_azure_is_asked_with_the_key_of_the_environment(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "mine")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "c2VjcmV0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"127.0.0.1:{server.getsockname()[1]}"
        store, path = open_store(f"az://set?endpoint_override={here}&scheme=http")
    arguments = store.__reduce__()[1][0]
    assert path == "set"
    assert (arguments["account_name"], arguments["account_key"]) == ("mine", "c2VjcmV0")
    assert arguments["blob_storage_authority"] == arguments["dfs_storage_authority"] == here


def test_a_hub_that_is_not_there_is_one_line(monkeypatch, no_proxy, nobody):
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", f"http://{nobody}")
    open_store.cache_clear()
    with pytest.raises(StorageError, match=rf"^hf://datasets: {nobody} does not answer \([^\n]*$"):
        Location("hf://datasets/someone/cats").exists()


def test_errors_of_an_http_client_are_one_line():
    httpx = pytest.importorskip("httpx")
    told = pytest.raises(StorageError, match=r"^hf://datasets/a: timed out$")
    with told, explained("hf://datasets/a"):
        raise httpx.ReadTimeout("timed out")
    with pytest.raises(ZeroDivisionError), explained("hf://datasets/a"):
        raise ZeroDivisionError
