"""An object store that speaks S3, in a process of its own, and its standard variables."""

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

ACCESS_KEY = "AKIASENTINELACCESSKEY"
SECRET_KEY = "sentinel/secret+key"
_START_S = 60.0
_REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) \S+ HTTP/1\.1\r\n")


class ObjectStore:
    """A running store: its endpoint, and boto3's client, which is no part of ours, to look in."""

    def __init__(self, endpoint: str) -> None:
        import boto3

        self.endpoint = endpoint
        self.variables = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )

    def bucket(self, name: str) -> str:
        """A new bucket's URI."""
        self.client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def put(self, uri: str, content: bytes) -> None:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        self.client.put_object(Bucket=bucket, Key=key, Body=content)

    def objects(self, uri: str) -> dict[str, bytes]:
        """Everything below a URI, by the rest of its key."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        return {
            key[len(prefix) :].lstrip("/"): self.read(bucket, key)
            for key in self._entries(bucket, prefix)
            if not key.endswith("/")  # an empty object by which stores mark a folder
        }

    def read(self, bucket: str, key: str) -> bytes:
        return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def written(self, uri: str) -> dict[str, object]:
        """When each of them was written."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        return {key: entry["LastModified"] for key, entry in self._entries(bucket, prefix).items()}

    def _entries(self, bucket: str, prefix: str) -> dict[str, dict[str, object]]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {entry["Key"]: entry for page in pages for entry in page.get("Contents", ())}


class SlowWay:
    """A way to a store on which every answer takes a while; counts what passes."""

    def __init__(self, endpoint: str, delay_s: float = 0.0) -> None:
        host, _, port = endpoint.removeprefix("http://").partition(":")
        self._target, self._delay_s = (host, int(port)), delay_s
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._lock = threading.Lock()
        self.endpoint = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.reset()
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Count from zero."""
        self.sent = self.received = self.requests = 0  # bytes to the store, bytes from it

    def _accept(self) -> None:
        while True:
            here, _ = self._server.accept()
            there = socket.create_connection(self._target)
            for source, target, upwards in ((here, there, True), (there, here, False)):
                arguments = (source, target, upwards)
                threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, upwards: bool) -> None:
        try:
            while part := source.recv(65536):
                with self._lock:
                    self.sent += len(part) if upwards else 0
                    self.received += 0 if upwards else len(part)
                    self.requests += upwards and bool(_REQUEST.match(part))
                if not upwards:
                    time.sleep(self._delay_s)
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)
        except OSError:  # the other end has gone, as a killed process does
            source.close()
            target.close()


@contextmanager
def running_store() -> Iterator[ObjectStore]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "moto's server ended at once"
                assert time.monotonic() < end, "moto's server does not answer"
                time.sleep(0.02)
        yield ObjectStore(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()
