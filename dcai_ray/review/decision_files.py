"""The files of decisions: one per session in the run's folder `decisions/`, only ever added to.

A session has its file to itself, so people may review at the same time. A record is one line that
is on disk (fsync) before `add` returns: a process killed at any moment loses nothing that it
acknowledged, and leaves at most a last line without its end, which readers skip. An object store
cannot append: there the session's object is written again, whole, with each record.
"""

import csv
import io
import json
import secrets
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from dcai_ray.errors import UserError
from dcai_ray.review import formats, path_formats
from dcai_ray.review.decisions import COLUMNS, Decision, from_row
from dcai_ray.storage import parquet
from dcai_ray.storage.durable import append
from dcai_ray.storage.location import Location


class Session:
    """The file that one sitting writes its decisions to."""

    def __init__(self, folder: Location) -> None:
        """A new file in the folder; it appears with the first decision."""
        self.file = _new_file(folder)
        self._folder = folder
        self._lines: list[str] = []

    def add(self, records: Iterable[Decision]) -> None:
        """Save records; they are safe when this returns.

        Raises:
            OSError: they could not be written, as on a full disk; they may be added again.
        """
        lines = [_line([getattr(r, name) for name in COLUMNS]) for r in records]
        if not lines:
            return
        new = lines if self._lines else [_line(COLUMNS), *lines]
        if self.file.remote:
            self.file.write_bytes("".join([*self._lines, *new]).encode())
        else:
            try:
                append(self.file.uri, "".join(new).encode())
            except OSError:
                # The file may end within a line; what follows must not be glued to it.
                self.file, self._lines = _new_file(self._folder), []
                raise
        self._lines += new


def _new_file(folder: Location) -> Location:
    started = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return folder / f"{started}-{secrets.token_hex(4)}.csv"


def read_folder(folder: Location) -> list[Decision]:
    """All records of a run, in no particular order.

    Raises:
        UserError: a file holds something else.
    """
    if not folder.exists():
        return []
    files = [folder / name for name, _ in folder.walk() if name.endswith(".csv")]
    return [record for file in files for record in _records(file, *_table(file, whole_lines=True))]


def read_file(
    file: Location, labels: formats.Labels, paths: Mapping[str, path_formats.Key]
) -> list[Decision]:
    """The records of a file from elsewhere: decisions, or what another tool wrote (`formats`,
    `path_formats`).

    Args:
        file: CSV, Parquet, JSON or zip.
        labels: of the run's images, by split and id.
        paths: split and id of the run's images, by path.
    Raises:
        UserError: it is none of these; the message names the row.
    """
    folder, _, name = file.uri.rpartition("/")
    seconds = Location(folder or ".").changed_at([name])[0]
    at = datetime.fromtimestamp(seconds, timezone.utc).isoformat()
    try:
        if file.name.lower().endswith(".zip"):
            files = path_formats.Files(paths, labels)
            return path_formats.from_imagenet(file.read_bytes(), at, files)
        if file.name.lower().endswith(".json"):
            content = _json(file)
            if isinstance(content, dict):
                files = path_formats.Files(paths, labels)
                return path_formats.from_fiftyone(content, at, files)
            return formats.from_tasks(content)
        rows, columns = _table(file, whole_lines=False)
        if {"id", "is_label_issue"} <= columns:
            return formats.from_frame(rows, at, labels)
        if {"id", "label"} <= columns and "decision" not in columns:
            return formats.from_labels(rows, at, labels)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return _records(file, rows, columns)


def _json(file: Location) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"no JSON ({error})") from None


def _table(file: Location, *, whole_lines: bool) -> tuple[list[dict[str, Any]], set[str]]:
    """The rows of a table, and its columns."""
    if file.name.lower().endswith(".parquet"):
        rows = parquet.read_table(file).to_pylist()
        return rows, set(rows[0]) if rows else set(COLUMNS)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("a CSV must be UTF-8; save it as such") from None
    if whole_lines:
        text = text[: text.rfind("\n") + 1]  # a killed session's last line may lack its end
    reader = csv.DictReader(io.StringIO(text, newline=""))
    return list(reader), set(reader.fieldnames or (COLUMNS if whole_lines else ()))


def _records(
    file: Location, rows: Iterable[Mapping[str, Any]], columns: Collection[str]
) -> list[Decision]:
    missing = [name for name in ("id", "given_label", "decision", "at") if name not in columns]
    if missing:
        raise UserError(f"{file}: no column {missing[0]}; expected {', '.join(COLUMNS)}")
    records = []
    for place, row in enumerate(rows):
        try:
            records.append(from_row(row))
        except UserError as error:
            raise UserError(f"{file}: row {place + 1}: {error}") from None
    return records


def _line(cells: Iterable[str]) -> str:
    """A line of CSV; line breaks become spaces, as a record must be one line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(" ".join(cell.splitlines()) for cell in cells)
    return text.getvalue()
