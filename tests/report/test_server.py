"""The review server: who is let in, what is saved, and what a person sees in a browser."""

import asyncio
import csv
import io
import json
import re
import signal
import socket
import subprocess
import sys

import pytest
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from dcai_ray.errors import UserError
from dcai_ray.report.findings import read_findings
from dcai_ray.report.server import Review, application, serve
from dcai_ray.review.decision_files import read_folder
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage.location import Location
from tests.report.test_browser import browser, until
from tests.report.test_page import NASTY, complete, run, write_evidence

__all__ = ["browser", "run"]  # fixtures
TOKEN = "the-token"
AT = "2026-01-01T12:00:00.000Z"
FIRST = f'{NASTY[0]}/0 "<b>".png'


@pytest.fixture
def reviewed(run):
    """A run of twelve images with nasty names and three classes."""
    complete(run)
    write_evidence(run)
    return run


def record(decision="drop", label="", **other):
    return {"id": FIRST, "given_label": NASTY[0], "decision": decision, "label": label, "at": AT,
            "note": "", **other}  # fmt: skip


def asked(run, *requests, signed_in=True):
    """Statuses, texts and headers of requests (method, path, arguments) to one sitting."""

    async def ask():
        app = application(Review(read_findings(run), "ann"), TOKEN)
        found = []
        async with TestClient(TestServer(app, host="127.0.0.1")) as client:
            origin = str(client.make_url("/"))[:-1]
            if signed_in:
                await client.get("/", params={"token": TOKEN})
            for method, path, arguments in requests:
                headers = {"Origin": origin, **arguments.pop("headers", {})}
                async with client.request(method, path, headers=headers, **arguments) as answer:
                    body = await answer.read()
                    found.append((answer.status, body, dict(answer.headers)))
        return found

    return asyncio.run(ask())


def posted(run, *bodies, **arguments):
    return asked(run, *(("POST", "/decisions", {"json": b, **arguments}) for b in bodies))


def test_only_who_has_the_token_is_let_in(reviewed):
    requests = [
        ("GET", "/", {}),
        ("GET", "/", {"params": {"token": "another"}}),
        ("GET", "/page.js", {}),
        ("GET", "/pictures/large/0", {}),
        ("POST", "/decisions", {"json": {"by": "ann", "records": [record()]}}),
    ]
    found = asked(reviewed, *requests, signed_in=False)
    assert [status for status, _, _ in found] == [403] * 5
    assert read_folder(reviewed.decisions) == []


def test_the_token_becomes_a_cookie_that_no_other_site_sends(reviewed):
    request = ("GET", "/", {"params": {"token": TOKEN}, "allow_redirects": False})
    ((status, _, headers),) = asked(reviewed, request, signed_in=False)
    assert status == 302
    assert "HttpOnly" in headers["Set-Cookie"]
    assert "SameSite=Strict" in headers["Set-Cookie"]


@pytest.mark.parametrize("host", ["evil.example:80", "127.0.0.1.evil.example", ""])
def test_another_host_name_is_refused(reviewed, host):
    ((status, _, _),) = asked(reviewed, ("GET", "/", {"headers": {"Host": host}}))
    assert status in (400, 403)


def test_another_origin_cannot_post(reviewed):
    body = {"by": "ann", "records": [record()]}
    for origin in ("http://evil.example", "null", "http://127.0.0.1"):
        ((status, _, _),) = posted(reviewed, body, headers={"Origin": origin})
        assert status == 403
    assert read_folder(reviewed.decisions) == []


def test_decisions_are_saved_before_they_are_answered(reviewed):
    body = {"by": "bob", "records": [record(), record("undo", at="2026-01-01T12:00:01.000Z")]}
    ((status, text, _),) = posted(reviewed, body)
    assert (status, json.loads(text)) == (200, {"progress": Review(
        read_findings(reviewed), "bob").progress()})  # fmt: skip
    saved = read_folder(reviewed.decisions)
    assert [(r.id, r.split, r.decision, r.by) for r in saved] == [
        (FIRST, "train", "drop", "bob"),
        (FIRST, "train", "undo", "bob"),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        record("destroy"),
        record(id="no such image"),
        record("relabel", "no such class"),
        record("relabel"),
        record(at="yesterday"),
        "no record",
    ],
)
def test_what_is_no_decision_about_this_run_saves_nothing(reviewed, wrong):
    found = posted(reviewed, {"by": "ann", "records": [record(), wrong]}, {"records": 3}, ["no"])
    assert [status for status, _, _ in found] == [400] * 3
    assert all(text.startswith(b"not saved: ") for _, text, _ in found)
    assert read_folder(reviewed.decisions) == []


def test_a_person_goes_on_where_they_stopped(reviewed):
    posted(reviewed, {"by": "ann", "records": [record("relabel", NASTY[1], note="sure")]})
    mark = {"decision": "relabel", "label": 1, "at": AT, "note": "sure"}
    review = Review(read_findings(reviewed), "ann")
    ((place, found),) = review.marks()
    assert review.suspects.data["columns"]["id"][place] == FIRST
    assert {**found, "label": review.classes[found["label"]]} == {**mark, "label": NASTY[1]}
    assert review.progress().startswith("looked at 1 of 12 images, 1 wrong; about ")
    assert Review(read_findings(reviewed), "bob").marks() == []


def test_pictures_are_served_whole_and_small_ones_small(reviewed):
    paths = ["large/0", "suspects/0", "neighbours/0", "large/12", "large/x", "other/0"]
    found = asked(reviewed, *(("GET", f"/pictures/{path}", {}) for path in paths))
    assert [status for status, _, _ in found] == [200, 200, 200, 404, 404, 404]
    sizes = [Image.open(io.BytesIO(body)).size for _, body, _ in found[:2]]
    assert sizes == [(300, 40), (160, 21)]


def test_names_reach_the_page_as_data_alone(reviewed):
    ((status, body, headers),) = asked(reviewed, ("GET", "/", {}))
    page = body.decode()
    assert status == 200
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert page.count("<script") == 2  # the data, and the address of the script
    assert "<b>" not in page.partition('<script type="application/json"')[2]


def test_a_run_without_values_has_nothing_to_review(tmp_path):
    run = RunDirectory(Location(str(tmp_path)))
    with pytest.raises(UserError, match="no values to review yet"):
        Review(read_findings(run), "ann")


def test_a_port_that_is_taken_is_one_line(reviewed):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} cannot be listened to"):
            serve(Review(read_findings(reviewed), "ann"), port)


@pytest.fixture
def started():
    """A server in a process of its own, and its address."""
    processes = []

    def start(run, port=0):
        program = "import sys; from dcai_ray.cli import main; sys.exit(main(sys.argv[1:]))"
        flags = ["review", str(run.location), "--by", "ann", "--port", str(port)]
        command = [sys.executable, "-c", program, *flags]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        line = processes[-1].stdout.readline()
        address = re.fullmatch(r"review: (http://127\.0\.0\.1:(\d+)/\?token=\S+)\n", line)
        return processes[-1], address

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
def test_a_server_killed_in_mid_review_loses_nothing_that_it_said_it_saved(
    browser, reviewed, started
):
    process, address = started(reviewed)
    page, wrong = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.accept()))
    page.goto(address[1])
    page.wait_for_selector("#cards li")
    assert page.url == f"http://127.0.0.1:{address[2]}/"  # the token is in no address bar
    page.locator(".card").first.click()
    until(lambda: page.eval_on_selector("#detail .large", "image => image.naturalWidth") == 300)
    for key in ("k", "d", "u", "z", "2"):
        page.keyboard.press(key)
    # The third image is looked at, undone and looked at again: the server has all of it.
    until(lambda: page.evaluate("isSaved()"))
    until(lambda: page.inner_text("#progress").startswith("looked at 3 of 12 images"))
    kept = {r.id: r.decision for r in read_folder(reviewed.decisions)}
    assert len(kept) == 3
    process.kill()
    process.wait()
    page.keyboard.press("d")
    page.wait_for_selector("#unsaved:not([hidden])")
    assert "1 decisions are not saved" in page.inner_text("#unsaved")
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.click("#download")
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(), newline="")))
    assert len(rows) == 4  # what is not saved is not lost either
    process, address = started(reviewed, int(address[2]))
    page.goto(address[1])
    page.wait_for_selector("#cards li")
    assert page.inner_text("#progress").startswith("looked at 3 of 12 images, ")
    assert page.inner_text("#status") == "9 of 12 listed, 3 marked"  # the others first
    page.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert wrong in ([], [""])  # leaving with what is not saved asks first
