"""Files of decisions: sessions that are killed, and tables from elsewhere."""

import csv
import os
import resource
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcai_ray.errors import UserError
from dcai_ray.review.decision_files import Session, read_file, read_folder
from dcai_ray.review.decisions import COLUMNS, Decision
from dcai_ray.storage.location import Location

NOON = "2026-01-01T12:00:00+00:00"
HOSTILE = Decision('a "b", <i>.jpg', "val", "=cat", "relabel", "große,Katze", "Zoë", NOON, "it's")


def test_records_come_back_as_they_were(tmp_path):
    Session(Location(str(tmp_path / "decisions"))).add([HOSTILE])
    assert read_folder(Location(str(tmp_path / "decisions"))) == [HOSTILE]


def test_sessions_at_the_same_time_have_files_of_their_own(tmp_path):
    folder = Location(str(tmp_path))
    one, two = Session(folder), Session(folder)
    one.add([HOSTILE])
    two.add([HOSTILE])
    assert len(read_folder(folder)) == 2


def test_a_note_of_several_lines_is_one_line_of_the_file(tmp_path):
    session = Session(Location(str(tmp_path)))
    session.add([Decision("a", "train", "cat", "keep", "", "ann", NOON, "one\r\ntwo")])
    assert read_folder(Location(str(tmp_path)))[0].note == "one two"


def test_a_torn_last_line_is_skipped_whatever_was_cut(tmp_path):
    session = Session(Location(str(tmp_path)))
    session.add([HOSTILE])
    whole = (tmp_path / session.file.name).read_bytes()
    session.add([Decision("b", "train", "cat", "keep", "", "ann", NOON, "")])
    both = (tmp_path / session.file.name).read_bytes()
    for length in range(len(whole), len(both)):
        (tmp_path / session.file.name).write_bytes(both[:length])
        assert read_folder(Location(str(tmp_path))) == [HOSTILE]


def test_a_killed_session_keeps_every_acknowledged_decision(tmp_path):
    program = f"""if True:
        from dcai_ray.review.decision_files import Session
        from dcai_ray.review.decisions import Decision
        from dcai_ray.storage.location import Location
        session = Session(Location({str(tmp_path)!r}))
        for i in range(10**6):
            session.add([Decision(str(i), "train", "cat", "drop", "", "ann", {NOON!r}, "")])
            print(i, flush=True)
    """
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        for _ in range(20):
            acknowledged = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
    saved = {record.id for record in read_folder(Location(str(tmp_path)))}
    assert saved >= {str(i) for i in range(acknowledged + 1)}


def test_after_a_write_that_failed_half_way_later_decisions_are_whole(tmp_path):
    session = Session(Location(str(tmp_path)))
    session.add([HOSTILE])
    size = (tmp_path / session.file.name).stat().st_size
    more = [Decision("b", "train", "cat", "keep", "", "ann", NOON, "")]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, limits[1]))
        with pytest.raises(OSError, match="too large"):
            session.add(more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    session.add(more)
    assert sorted(read_folder(Location(str(tmp_path))), key=lambda r: r.id) == [HOSTILE, *more]


def test_a_table_of_pandas_or_of_a_spreadsheet_is_read(tmp_path):
    row = {"id": "a.jpg", "given_label": "cat", "decision": "drop", "at": NOON, "by": None}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "d.parquet")
    with open(tmp_path / "d.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    wanted = [Decision("a.jpg", "train", "cat", "drop", "", "", NOON, "")]
    assert read_file(Location(str(tmp_path / "d.parquet")), {}, {}) == wanted
    assert read_file(Location(str(tmp_path / "d.csv")), {}, {}) == wanted


def test_a_wrong_row_is_named_with_its_file(tmp_path):
    head = ",".join(COLUMNS)
    (tmp_path / "d.csv").write_text(f"{head}\na,train,cat,perhaps,,ann,{NOON},\n")
    with pytest.raises(UserError, match=r"d\.csv: row 1: decision must be"):
        read_file(Location(str(tmp_path / "d.csv")), {}, {})


def test_another_table_is_refused_with_the_columns_expected(tmp_path):
    (tmp_path / "d.csv").write_text("path,label\na,cat\n")
    with pytest.raises(UserError, match="no column id; expected id, split"):
        read_file(Location(str(tmp_path / "d.csv")), {}, {})
