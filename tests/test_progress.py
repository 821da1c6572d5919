import contextlib
import io
import re
from types import SimpleNamespace

import pytest

from dcai_ray import progress


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only by hand: `clock.now += 5`."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def terminal(monkeypatch):
    """A terminal as stderr from here on; what is written to it."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    for name, value in (("TERM", "xterm"), ("COLUMNS", "140")):
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return screen


def test_a_word_to_the_user_goes_to_stderr(capsys):
    progress.say("two classes")
    assert capsys.readouterr() == ("", "two classes\n")


def test_where_there_is_no_terminal_a_line_comes_every_few_seconds(clock, capsys):
    with progress.step("values", 100, "images") as done:
        for second in range(1, 13):
            clock.now += 1
            done(5 * second)
        clock.now += 8
        done(100)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "values: 100 images",
        "values: 25 of 100 images, 5.0/s, 15 s left",  # 75 left at 5 per second
        "values: 50 of 100 images, 5.0/s, 10 s left",
        "values: 100 of 100 images in 20.0 s",
    ]


def test_a_step_that_has_done_nothing_yet_promises_no_end(clock, capsys):
    with progress.step("values", 10, "images") as done:
        clock.now += 60
        done(0)
    assert "values: 0 of 10 images\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "rate"),  # in ten seconds, of a million
    [(5500, "550/s"), (370, "37/s"), (42, "4.2/s"), (1, "0.10/s"), (123_456, "12346/s")],
)
def test_a_rate_is_a_plain_number(clock, capsys, count, rate):
    with progress.step("values", 1_000_000, "images") as done:
        clock.now += 10
        done(count)
    line = capsys.readouterr().err.splitlines()[1]
    assert line.startswith(f"values: {count} of 1000000 images, {rate}, ")


@pytest.mark.parametrize(
    ("total", "unit", "said"),
    [
        (1, "images", "1 image"),
        (2, "images", "2 images"),
        (1, "validation images", "1 validation image"),
        (1, "epochs (3 trainings)", "1 epoch (3 trainings)"),
    ],
)
def test_one_of_a_kind_is_in_the_singular(clock, capsys, total, unit, said):
    with progress.step("values", total, unit) as done:
        done(total)
    assert capsys.readouterr().err.splitlines() == [
        f"values: {said}",
        f"values: {total} of {said} in 0.0 s",
    ]


def test_a_step_of_nothing_is_said_to_be_done(clock, capsys):
    with progress.step("values", 0, "images") as done:
        done(0)
    assert capsys.readouterr().err.splitlines()[-1] == "values: 0 of 0 images in 0.0 s"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_step_that_fails_is_not_said_to_be_done(clock, capsys, failure):
    with contextlib.suppress(failure), progress.step("values", 10, "images") as done:
        done(3)
        raise failure
    assert capsys.readouterr() == ("", "values: 10 images\n")


def test_a_terminal_gets_a_bar_with_count_rate_and_time(monkeypatch, clock, capsys):
    screen = terminal(monkeypatch)
    with progress.step("values", 40, "images") as done:
        clock.now += 4
        done(20)
        done(40)
    assert capsys.readouterr().out == ""
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    last = [line for line in re.split(r"[\r\n]+", shown) if "values" in line][-1]
    assert re.search(r"values .*40/40 images  10/s .*left", last)


def test_a_bar_is_taken_down_when_its_step_fails(monkeypatch):
    screen = terminal(monkeypatch)
    with pytest.raises(ValueError, match="broken"), progress.step("values", 2, "images"):
        raise ValueError("broken")
    assert screen.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is shown again


def test_what_has_no_known_end_is_told_every_few_seconds(clock, capsys):
    with progress.live("sampling knn") as tell:
        for rounds in range(12):
            tell(f"{rounds} rounds")
            clock.now += 1
    assert capsys.readouterr().err.splitlines() == [
        "sampling knn: 0 rounds",
        "sampling knn: 5 rounds",
        "sampling knn: 10 rounds",
        "sampling knn: 11 rounds; done",
    ]


def test_what_has_no_known_end_and_fails_is_not_said_to_be_done(clock, capsys):
    with pytest.raises(KeyboardInterrupt), progress.live("sampling knn") as tell:  # noqa: PT012
        tell("1 round")
        raise KeyboardInterrupt
    assert "done" not in capsys.readouterr().err


def test_a_bar_fits_into_79_columns_with_a_long_name_and_large_numbers(monkeypatch, clock):
    screen = terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "79")
    with progress.step("valuing by the training set (leave-one-out)", 10**6, "images") as done:
        clock.now += 4
        done(500_000)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    last = [line for line in re.split(r"[\r\n]+", shown) if "valuing" in line][-1]
    assert len(last) <= 79
    assert re.fullmatch(
        r"valuing by the training s\.\.\. \S+ .*500000/1000000 125000/s left \S+ *", last
    )
