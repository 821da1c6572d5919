"""The page in a browser: what its script does when a person uses it."""

import csv
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dcai_ray.report import assets
from dcai_ray.report.findings import read_findings
from dcai_ray.report.page import write_report
from dcai_ray.report.suspects import Suspects
from dcai_ray.run_directory import RunDirectory
from tests.report.test_page import EACH, NASTY, complete, run, write_evidence

__all__ = ["run"]  # the fixture
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Debian's chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any, run: RunDirectory) -> Iterator[Any]:
    """The report of a run with nasty names; no request, error or dialog is allowed."""
    complete(run)
    write_evidence(run)
    write_report(read_findings(run))
    yield from opened(browser, run.report.uri)


def opened(browser: Any, file: str) -> Iterator[Any]:
    shown, wrong = browser.new_page(viewport={"width": 1280, "height": 900}), []
    shown.on("console", lambda message: wrong.append(message.text))
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("request", lambda r: wrong.append(r.url) if r.url.startswith("http") else None)
    shown.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    shown.goto(f"file://{file}")
    yield shown
    shown.close()
    assert wrong == []


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait; the policy of the page lets the driver of the browser evaluate no text in it."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def cards(page: Any) -> list[int]:
    return [int(i) for i in page.eval_on_selector_all("#cards li", "a => a.map(x => x.dataset.i)")]


def texts(page: Any) -> list[str]:
    return page.eval_on_selector_all("#cards .card", "a => a.map(x => x.textContent)")


def decisions(page: Any) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "decisions.csv"
    content = download.value.path().read_bytes().decode()
    return list(csv.DictReader(io.StringIO(content, newline="")))


def test_names_are_shown_as_they_are_and_do_nothing(page):
    shown = " ".join(texts(page))
    for name in NASTY:
        assert name in shown
    page.locator(".card").first.click()
    assert NASTY[1] in page.inner_text("#detail")
    assert page.locator("#cards b b, #cards script, #detail script").count() == 0


def test_filters_and_orders_list_what_they_say(page):
    assert len(cards(page)) == 3 * EACH
    page.select_option("#class", label=NASTY[1])
    assert all(text.startswith(f"{NASTY[1]} → {NASTY[0]}?") for text in texts(page))
    assert page.inner_text("#status") == "4 of 12 listed"
    page.select_option("#decision", "drop")
    assert len(cards(page)) == 1
    page.click("#clear")
    assert page.locator("#tier").is_hidden()  # this run has none
    page.evaluate("() => { c.tier[2] = 'look'; change('tier', 'look'); }")
    assert cards(page) == [2]
    page.click("#clear")
    page.select_option("#sort", "value")  # the lowest is the first image of the last class
    assert texts(page)[0].startswith(NASTY[2])
    page.select_option("#show", "disagree")
    # P above .5 with a positive value: the fourth of class 1. P of .5, .4 or unknown is not above:
    # the negative values of the classes 0 and (with .4) 2 disagree with it.
    assert len(cards(page)) == 3


def test_a_click_on_a_pair_of_classes_lists_it(page):
    page.click("#pairs summary")
    page.get_by_role("button", name=f"{NASTY[2]} → {NASTY[0]}: {EACH}").click()
    assert len(cards(page)) == EACH
    assert all(text.startswith(NASTY[2]) for text in texts(page))


def test_marks_of_a_selection_are_one_step_of_undo_and_download_as_csv(page):
    page.fill("#by", 'Ann "A", B')
    page.select_option("#class", label=NASTY[2])
    page.click("#all")
    page.click("[data-mark=relabel]")
    page.click("#none")
    page.click("#clear")
    page.locator(".card").first.press("d")
    assert page.inner_text("#status") == "12 of 12 listed, 5 marked"
    rows = decisions(page)
    assert list(rows[0]) == ["id", "split", "given_label", "decision", "label", "by", "at", "note"]
    assert [row["decision"] for row in rows] == ["drop"] + ["relabel"] * EACH
    assert rows[0]["id"] == f'{NASTY[1]}/3 "<b>".png'
    assert [row["label"] for row in rows] == [""] + [NASTY[0]] * EACH
    assert {row["given_label"] for row in rows[1:]} == {NASTY[2]}
    assert {(row["split"], row["by"]) for row in rows} == {("train", 'Ann "A", B')}
    page.click("#undo")
    page.click("#undo")
    assert page.inner_text("#status") == "12 of 12 listed"
    assert page.is_disabled("#undo")


def test_the_keyboard_alone_moves_opens_marks_and_closes(page):
    page.locator(".card").first.focus()
    for name in ("ArrowRight", "ArrowRight", "ArrowLeft", "Enter"):
        page.keyboard.press(name)
    second = cards(page)[1]
    assert page.get_attribute("#detail", "data-i") == str(second)
    page.keyboard.press("u")
    page.keyboard.press("Escape")
    focused = "document.activeElement.closest('li')?.dataset.i"
    until(lambda: page.evaluate(focused) == str(second))
    assert "unsure" in texts(page)[1]


def test_neighbours_and_evidence_name_the_same_labels(page):
    # Class 1, suggested class 0, among its class mates: the card says that they disagree.
    assert f"a classifier says {NASTY[0]}, though 2 of 2 nearest are {NASTY[1]}" in texts(page)[0]
    page.locator("#cards li[data-i='0'] .card").click()
    said = page.inner_text("#detail")
    assert f"0 of 2 nearest are {NASTY[0]}, 2 {NASTY[1]}" in said
    labels = page.eval_on_selector_all("#detail .near li", "a => a.map(x => x.textContent)")
    assert labels == [NASTY[1]] * 2


def test_one_suspect_is_shown_larger_than_on_its_card(page):
    card = page.locator("#cards canvas").first
    card.click()
    large = page.locator("#detail canvas.large")
    sizes = [json.loads(page.text_content("#data"))["sheets"][k] for k in ("suspects", "large")]
    assert sizes[0]["side"] < sizes[1]["side"]
    assert large.evaluate("x => [x.width, x.height]") == sizes[1]["sizes"][0]


def test_ten_thousand_suspects_are_painted_and_filtered_in_time(browser, page, tmp_path):
    html = page.content()
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    times = 10_000 // len(data["columns"]["id"]) + 1
    data["columns"] = {k: (column * times)[:10_000] for k, column in data["columns"].items()}
    data |= {"near": {}, "pictured": 0}
    data.pop("sheets")
    file = tmp_path / "many.html"
    blocks = assets.scripts(Suspects(data, [], []))
    file.write_text(html[: html.index('<script type="app')] + blocks + "</body></html>")
    paint = "(performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0)"
    for many in opened(browser, str(file)):
        until(lambda page=many: page.evaluate(paint) > 0)
        assert many.evaluate(paint) < 3_000  # a second on a machine of one's own
        took = many.evaluate(
            "(() => { const t = performance.now(); change('class', '1');"
            " return performance.now() - t; })()"
        )
        assert "of 10,000 listed" in many.inner_text("#status")
        assert took < 300  # a tenth of a second on a machine of one's own
