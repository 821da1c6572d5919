"""Opening object stores: endpoint, region and timeouts; one-line errors; no secrets in URIs.

Credentials come from the usual places (environment, `~/.aws`, instance profile) and never from a
URI, since URIs are written to run folders and shown in reports.
"""

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from pyarrow import fs

from dcai_ray.errors import StorageError, UserError

_CONNECT_S = 3.0
_SILENCE_S = 10.0  # without a byte; with all attempts, a store that hangs is given up within 50 s
_ATTEMPTS = 4  # per request, with growing pauses
_GIVE_UP_S = 20.0  # of a store that retries by itself until a time limit
_S3_OPTIONS = {"region", "scheme", "endpoint_override", "tls_ca_file_path", "anonymous"}
_GS_OPTIONS = {"scheme", "endpoint_override", "anonymous"}
_AZURE_OPTIONS = {"account_name", "scheme", "endpoint_override"}
_AZURE = "blob.core.windows.net"
_HTTP_CLIENTS = ("httpx", "httpx2", "httpcore")  # their errors are no OSErrors
_OPTION = re.compile(r"[?&]([\w-]+)=([^&]*)")
_SECRET = re.compile(r"key|secret|token|passw|sig(nature)?$|credential$", re.IGNORECASE)

_FAILURES = (OSError, pa.ArrowException)  # what pyarrow raises when a request fails
_MEANINGS = (  # of pyarrow's messages on failed requests
    ("NO_SUCH_BUCKET", "no such bucket"),
    ("ACCESS_DENIED", "access denied; use other credentials, or a policy that allows access"),
    ("INVALID_ACCESS_KEY_ID", "the store does not know these credentials"),
    ("SIGNATURE_DOES_NOT_MATCH", "the store does not accept these credentials"),
    ("ExpiredToken", "the credentials have expired"),
    ("NETWORK_CONNECTION", "the store does not answer; check AWS_ENDPOINT_URL and the network"),
    ("ContainerNotFound", "no such container"),
    ("AuthenticationFailed", "the store does not accept these credentials"),
    ("AuthorizationFailure", "access denied; use other credentials"),
    (
        "DefaultAzureCredential",
        "no credentials; set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or sign in (az login)",
    ),
    (
        "Could not create a OAuth2 access token",
        "no credentials; set GOOGLE_APPLICATION_CREDENTIALS, or append ?anonymous=true for a "
        "public bucket",
    ),
    ("SLOW_DOWN", "the store is overloaded; run the same command again to resume"),
)


def check_no_secret(uri: str) -> None:
    """Refuse a URI that carries credentials.

    Raises:
        UserError: the URI carries credentials; the message does not repeat them.
    """
    scheme, colon, rest = uri.partition("://")
    store = re.split("[/?]", rest, maxsplit=1)[0]
    if scheme.lower() == "s3":
        named = not {"@", ":"}.isdisjoint(store)
    else:
        named = ":" in store.rpartition("@")[0]
    options = dict(_OPTION.findall(uri))
    secret = any(map(_SECRET.search, options)) or "@" in options.get("endpoint_override", "")
    if colon and (named or secret):
        raise UserError(
            f"{scheme}://...: a URI must not carry credentials; remove them and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use an instance profile"
        )


@lru_cache(maxsize=16)
def open_store(uri: str) -> tuple[fs.FileSystem, str]:
    """The filesystem of a store (`s3://bucket?region=eu-west-1`), and the path of its root in it.

    Raises:
        UserError: the kind of store or an option is unknown.
        OSError: the bucket's region cannot be determined.
    """
    parts = urlsplit(uri)
    store = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme == "s3":
        options = _options(store, parts.query, _S3_OPTIONS)
        with explained(store):
            return _s3(parts.netloc, options), parts.netloc
    if parts.scheme in ("gs", "gcs"):
        return _gs(_options(store, parts.query, _GS_OPTIONS)), parts.netloc
    if parts.scheme in ("az", "abfs", "abfss"):
        return _azure(store, parts.netloc, _options(store, parts.query, _AZURE_OPTIONS))
    if parts.scheme == "hf":
        return _hub(store), parts.netloc
    try:
        return fs.FileSystem.from_uri(uri)
    except _FAILURES as error:  # its message has several lines
        reason = str(error).splitlines()[0]
        raise UserError(f"{uri}: not a storage that pyarrow can open ({reason})") from None


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn errors of pyarrow into one line that begins with the URI or the local path.

    Raises:
        StorageError: a request to an object store failed.
        OSError: an operation on a local file failed; FileNotFoundError if there is no such file.
    """
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uri) from None
    except _FAILURES as error:
        number = getattr(error, "errno", None)
        if number and "://" not in uri:
            raise OSError(number, os.strerror(number), uri) from None
        raise StorageError(f"{uri}: {_reason(str(error))}") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _HTTP_CLIENTS:
            raise
        raise StorageError(f"{uri}: {_reason(str(error) or type(error).__name__)}") from None


def _options(store: str, query: str, known: set[str]) -> dict[str, str]:
    """The options of a store's URI.

    Raises:
        UserError: one is unknown, or makes no sense.
    """
    options = dict(parse_qsl(query))
    unknown = sorted(options.keys() - known)
    if unknown:
        choices = ", ".join(sorted(known))
        raise UserError(f"{store}: unknown option {', '.join(unknown)}; choose from {choices}")
    if options.get("anonymous", "true") not in ("true", "false"):
        raise UserError(f"{store}: anonymous must be true or false, got {options['anonymous']}")
    return options


def _gs(options: dict[str, str]) -> fs.FileSystem:
    return fs.GcsFileSystem(
        anonymous=options.get("anonymous") == "true",
        scheme=options.get("scheme"),
        endpoint_override=options.get("endpoint_override"),
        retry_time_limit=timedelta(seconds=_GIVE_UP_S),
    )


def _azure(store: str, netloc: str, options: dict[str, str]) -> tuple[fs.FileSystem, str]:
    """Azure Blob Storage, by the variables of its own tools; `container@account...` as in abfs.

    Raises:
        UserError: it is not said which account.
        StorageError: the account does not answer.
    """
    container, _, host = netloc.partition("@")
    account = (
        options.get("account_name")
        or host.partition(".")[0]
        or _set("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")
    )
    if not account:
        raise UserError(f"{store}: which account? Set AZURE_STORAGE_ACCOUNT to its name")
    place, scheme = options.get("endpoint_override"), options.get("scheme")
    _reach(store, place or f"{account}.{_AZURE}", scheme or "https")
    own = {f"{kind}_storage_authority": place for kind in ("blob", "dfs")} if place else {}
    how = {f"{kind}_storage_scheme": scheme for kind in ("blob", "dfs")} if scheme else {}
    key, token = _set("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"), None
    if not key:
        token = _set("AZURE_STORAGE_SAS_TOKEN")
    found = fs.AzureFileSystem(account, account_key=key, sas_token=token, **own, **how)
    return found, container


def _hub(store: str) -> fs.FileSystem:
    """The hub of Hugging Face, read with its own package.

    Raises:
        UserError: that package is missing.
        StorageError: the hub does not answer.
    """
    try:
        from huggingface_hub import HfFileSystem, constants, get_session
    except ImportError:
        raise UserError(f"{store}: needs: pip install 'dcai_ray[hf]'") from None
    scheme, _, host = constants.ENDPOINT.partition("://")
    _reach(store, host.partition("/")[0], scheme)
    get_session().timeout = _SILENCE_S  # it would wait for ever
    return fs.PyFileSystem(fs.FSSpecHandler(HfFileSystem()))


def _reach(store: str, host: str, scheme: str) -> None:
    """Give up at once on a host that is not there: these clients try for minutes.

    Raises:
        StorageError: nothing listens there.
    """
    if any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY")):
        return
    name, _, port = host.partition(":")
    try:
        place = name, int(port or (443 if scheme == "https" else 80))
        socket.create_connection(place, timeout=_CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(
            f"{store}: {host} does not answer ({reason}); check the network"
        ) from None


def _set(*names: str) -> str | None:
    """The value of the first of these environment variables that is set."""
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _s3(bucket: str, options: dict[str, str]) -> fs.FileSystem:
    endpoint = options.get("endpoint_override") or _endpoint(options)
    region = options.get("region")
    if not region and not endpoint:
        region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        anonymous=options.get("anonymous") == "true",
        region=region,
        scheme=options.get("scheme"),
        endpoint_override=endpoint,
        tls_ca_file_path=options.get("tls_ca_file_path"),
        connect_timeout=_CONNECT_S,
        request_timeout=_SILENCE_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        allow_delayed_open=True,  # so that small content takes a single request
    )


def _endpoint(options: dict[str, str]) -> str | None:
    """The endpoint of the standard environment variables; its scheme is added to the options."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        url = os.environ.get(name)
        if url:
            scheme, _, host = url.rstrip("/").partition("://")
            if scheme not in ("http", "https") or not host or "@" in host:
                raise UserError(f"{name} must be http://host:port or https://host:port")
            options.setdefault("scheme", scheme)
            return host
    return None


def _reason(message: str) -> str:
    for sign, meaning in _MEANINGS:
        if sign in message:
            return meaning
    line = " ".join(message.split())
    return re.sub(r" ?\(Request ID: .*?\)", "", line)
