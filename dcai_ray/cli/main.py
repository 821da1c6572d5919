"""The command line: settings from defaults, a YAML file and flags; then the steps.

Exit code 0: done. 1: failed; what a user can mend is one clear line on stderr, a bug has its
traceback. 2: wrong usage. 130: interrupted (Ctrl-C), 143: stopped (SIGTERM, as `ray job stop`
sends).
Nothing heavy is imported before it is known what is wanted.
"""

import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from typing import Any

import dcai_ray
from dcai_ray.errors import UsageError, can_be_mended

_COMMANDS = {
    "demo": "write the bundled demo dataset and run all steps on it",
    "run": "run all steps: fine-tune, extract, value, clean, retrain, report",
    "audit": "value a folder of class subfolders against itself; no training",
    "finetune": "step 1: fine-tune on all training images",
    "extract": "step 2a: compute the features of every image",
    "value": "step 2b: value every training image and decide what to keep",
    "retrain": "step 3: train on the cleaned set and its control arms, compare",
    "report": "write report.html from what a run has found so far",
    "status": "show a run's progress",
    "review": "look at the suspects in a browser and decide",
    "tasks": "write the suspects for Label Studio or cleanlab",
    "decide": "record what people decided about the images of a run",
    "export": "write the cleaned training set as a folder of images",
    "import-features": "convert features that you have (NumPy, torch, CSV, ...)",
    "completion": "print the completion script of a shell (bash, zsh)",
}
_USAGE = f"""usage: dcai-ray COMMAND [FLAGS]

Find the training images that harm an image classifier, and drop them.

{chr(10).join(f"  {name:<17}{what}" for name, what in _COMMANDS.items())}

DATA holds train, val and, optionally, shapley_val, each with one subfolder per class. DATA and RUN
are paths or URIs (s3://...). RUN collects all results; run the same command again to resume.

Show the flags of a command: dcai-ray COMMAND --help (the most used), --help-all (all)
Every command takes --quiet (only warnings and errors on stderr), --debug (the whole log) and --json
(results as JSON on stdout).
"""
_START = """Find the training images that harm an image classifier, and drop them.

A folder of class subfolders, no labels to trust (minutes):
  dcai-ray audit FOLDER --backbone efficientnet_lite0

A folder of train, val and a few hundred trusted images (shapley_val):
  dcai-ray run --data DATA --run outputs/mine --backbone efficientnet_lite0

What a run found, image by image, in a browser; decide with the keyboard:
  dcai-ray review outputs/mine

Try it on a bundled dataset: dcai-ray demo
All commands: dcai-ray --help
"""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Ray's, in the tracebacks of its workers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments:
        print(_START, end="")
        return 0
    name = arguments[0]
    if name in ("-h", "--help", "help"):
        print(_USAGE, end="")
        return 0
    if name == "--version":
        print(f"dcai_ray {dcai_ray.__version__}")
        return 0
    if name not in _COMMANDS:
        near = get_close_matches(name, _COMMANDS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"choose from {', '.join(_COMMANDS)}"
        print(f"dcai-ray: unknown command {name!r}; {meant}", file=sys.stderr)
        return 2
    debug, quiet = "--debug" in arguments, "--quiet" in arguments
    if debug and quiet:
        print("dcai-ray: --debug and --quiet exclude each other; give one of them", file=sys.stderr)
        return 2
    return _guarded(name, arguments[1:], debug=debug, quiet=quiet)


def _command(name: str) -> Callable[[Sequence[str]], Any]:
    from dcai_ray.cli import commands

    return getattr(commands, name.replace("-", "_"))


def _guarded(name: str, arguments: Sequence[str], *, debug: bool, quiet: bool) -> int:
    """Run a command; its exit code. What a user can mend is one line, a bug keeps its traceback."""
    stopped = threading.Event()

    def stop(number: int, _: Any) -> None:
        # The stack unwinds, so what is complete is saved. Ray's calls let only this one through:
        # they turn a SystemExit into one of their own.
        stopped.set()
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
    with ExitStack() as ends:
        log = None
        try:
            from dcai_ray.cli import logs

            log = ends.enter_context(logs.recorded([name, *arguments], debug=debug, quiet=quiet))
            _command(name)(arguments)
        except KeyboardInterrupt:
            how, code = ("stopped", 143) if stopped.is_set() else ("interrupted", 130)
            _tell(f"dcai-ray: {how}; run the same command again to resume", logging.WARNING)
            return code
        except BrokenPipeError:  # the reader of our output has gone, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if not can_be_mended(error):
                _tell(_traceback(error), logging.CRITICAL)
                _tell(f"dcai-ray: {_bug(log.file if log else None)}", logging.ERROR)
                return 1
            if debug:
                _tell(_traceback(error), logging.ERROR)
            _tell(f"dcai-ray: {_line(error)}", logging.ERROR)
            return 2 if isinstance(error, UsageError) else 1
        return 0


def _tell(message: str, level: int) -> None:
    """To the person and to the log, which a bug (critical) makes worth keeping."""
    from dcai_ray.progress import say

    say(message, level)


def _line(error: Exception) -> str:
    """The message; for an operating system's error, the file first."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _traceback(error: Exception) -> str:
    return _COLOURS.sub("", "".join(traceback.format_exception(error)).rstrip())


def _bug(kept: object) -> str:
    also = f", which is in {kept} too" if kept else ""
    return (
        "this is a bug in dcai_ray (or in your own utility), not in your settings or data; please "
        f"report it with the traceback above{also}"
    )
