"""What a command leaves behind to be read later: `run.log` in the run's folder, and `--debug`.

The log has a line for every record of the logger `dcai_ray` and for every Python warning: the
command, versions, the nodes of the cluster, steps with their times, lost actors, what was shown to
the person who waited, and the traceback of a bug. It is kept in memory until there is work: a step
that has something to do, a file of the run that is written, or a bug. So a run that finds
everything done, and a command that is refused, change no file.

A local log is appended to, record by record. An object store knows no appending: there the object
is written anew at the beginning and the end of each step, and when the command ends. A log that
cannot be written is given up with one warning; it never ends a run.
"""

import logging
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dcai_ray import progress
from dcai_ray.errors import UserError
from dcai_ray.run_directory import package_versions
from dcai_ray.storage.location import Location
from dcai_ray.storage.object_store import check_no_secret

NAME = "run.log"

_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_DEBUG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_TIME = "%Y-%m-%dT%H:%M:%S%z"
_logger = logging.getLogger("dcai_ray")
_warnings = logging.getLogger("py.warnings")


@contextmanager
def recorded(
    arguments: Sequence[str], *, debug: bool = False, quiet: bool = False
) -> Iterator["RunLog"]:
    """Collect what the package logs while a command runs.

    Args:
        arguments: the command line, for the log.
        debug: log at level debug, and to stderr too.
        quiet: show nothing on stderr but warnings and errors.
    """
    log = RunLog(arguments)
    handlers = (log, _Terminal(logging.DEBUG if debug else logging.WARNING))
    level = _logger.level
    _logger.setLevel(logging.DEBUG if debug else logging.INFO)
    for handler in handlers:
        _logger.addHandler(handler)
        _warnings.addHandler(handler)
    logging.captureWarnings(True)
    progress.set_quiet(quiet)
    try:
        yield log
    finally:
        progress.set_quiet(False)
        logging.captureWarnings(False)
        for handler in handlers:
            _logger.removeHandler(handler)
            _warnings.removeHandler(handler)
            handler.close()
        _logger.setLevel(level)


def keep_in(run: Location) -> None:
    """Keep the log of the running command in a run's folder, once the command has work to log."""
    for handler in _logger.handlers:
        if isinstance(handler, RunLog):
            handler.keep_in(run)


class RunLog(logging.Handler):
    """Log records as lines of a file in a run's folder, from the first that says there is work.

    Args:
        arguments: the command line that heads the lines; URIs with credentials are left out.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__()
        self.setFormatter(_OneRecord(_FORMAT, _TIME))
        self._command = shlex.join(["dcai-ray", *map(_without_secret, arguments)])
        self._lines: list[str] = []  # not written yet
        self._before = b""  # of an object, what was written
        self._has_work = False
        self._file: Location | None = None

    @property
    def file(self) -> Location | None:
        """Where the log is written; None where nothing is."""
        return self._file if self._has_work else None

    def keep_in(self, run: Location) -> None:
        """Write to this run's folder from here on, what came before included."""
        if self._file is None:
            self._file = run / NAME
            versions = {"python": platform.python_version(), **package_versions()}
            _logger.info("command: %s", self._command)
            _logger.info("driver: %s, process %d, in %s", platform.node(), os.getpid(), os.getcwd())
            _logger.info("versions: %s", ", ".join(f"{k} {v}" for k, v in versions.items()))

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record; write it as soon as there is work."""
        self._lines.append(self.format(record) + "\n")
        work = getattr(record, "work", False) or record.levelno >= logging.CRITICAL
        if work and self._file is not None and not self._has_work:
            self._has_work = True
            self._before = self._read_before()
        if self._has_work and (work or not self._is_object):
            self._write()

    def close(self) -> None:
        """Write what is left."""
        if self._has_work:
            self._write()
        super().close()

    @property
    def _is_object(self) -> bool:
        return self._file is not None and self._file.remote

    def _read_before(self) -> bytes:
        assert self._file is not None
        try:
            return self._file.read_bytes() if self._is_object else b""
        except FileNotFoundError:
            return b""
        except OSError as error:
            self._give_up(error)
            return b""

    def _write(self) -> None:
        if self._file is None or not self._lines:
            return
        content = "".join(self._lines).encode(errors="backslashreplace")
        try:
            if self._is_object:
                self._before += content
                self._file.write_bytes(self._before)
            else:
                with open(self._file.uri, "ab", opener=_open_no_link) as stream:
                    stream.write(content)
            self._lines.clear()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        file, self._file, self._has_work = self._file, None, False
        progress.warn(f"{file}: cannot be written ({error.strerror or error}); there is no log")


class _Terminal(logging.Handler):
    """Records on stderr, but for those that were printed for the person who waits."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        debug = level < logging.INFO
        self.setFormatter(_OneRecord(_DEBUG_FORMAT if debug else "%(message)s", _TIME))
        self.addFilter(lambda record: record.name != progress.__name__)

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


class _OneRecord(logging.Formatter):
    """Control characters escaped and further lines indented, so that no name forges a record."""

    def format(self, record: logging.LogRecord) -> str:
        return progress.escaped(super().format(record)).rstrip("\n").replace("\n", "\n    ")


def _without_secret(argument: str) -> str:
    """The argument; its value left out where that is a URI with credentials in it."""
    flag, equals, value = argument.rpartition("=") if argument[:2] == "--" else ("", "", argument)
    try:
        check_no_secret(value)
        check_no_secret(argument)
    except UserError:
        return f"{flag}{equals}(a URI with credentials)"
    return argument


def _open_no_link(path: str, flags: int) -> int:
    """A link in the place of the log would lead out of the run's folder."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
