"""The gallery of a run served to this machine: full pictures, and every decision saved at once.

Only 127.0.0.1 is listened to. The address that is printed carries a token; the first request
changes it for a cookie that no other site can send (SameSite=Strict, HttpOnly). A request under
another host name is refused, so that no foreign name can be made to point here, and so is a
decision that another origin posts. Names and notes reach the page as data alone.

A decision is on disk before its request is answered (`decision_files`). What a killed server had
not answered, the page still holds and offers as a file.
"""

import asyncio
import io
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

import dcai_ray
from dcai_ray import progress
from dcai_ray.errors import UserError
from dcai_ray.images import decoding
from dcai_ray.report import assets
from dcai_ray.report.findings import Findings
from dcai_ray.report.suspects import suspects
from dcai_ray.review.decision_files import Session, read_folder
from dcai_ray.review.decisions import Decision, check_known, final, from_row, standing
from dcai_ray.review.expected import Expected, looked_at

MOST = 50_000
"""Images listed, the most suspicious ones of a larger set."""
_SMALL, _LARGE = 160, 1600  # longer side of a picture in pixels
_NEAR = 64
_COOKIE = "dcai_ray_review"
_BODY_BYTES = 64 * 2**20  # a selection of 50,000 images
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Review:
    """One sitting: what it shows, and the file that it writes to."""

    def __init__(self, findings: Findings, by: str) -> None:
        """Read what there is to look at.

        Args:
            findings: the results of a run with values.
            by: who decides, unless the page says otherwise.
        Raises:
            UserError: there is nothing to look at, or a file of decisions holds something else.
        """
        run, values = findings.run, findings.values
        listed = suspects(findings, MOST, most=MOST)
        if listed is None or values is None:
            raise UserError(f"{run.location}: no values to review yet; value the images first")
        self.findings, self.by, self.suspects = findings, by, listed
        self.session = Session(run.decisions)
        self.records = read_folder(run.decisions)
        self.given: dict[str, str] = dict(
            zip(values["id"].to_pylist(), values["label"].to_pylist(), strict=True)
        )
        self._images = {("train", name) for name in self.given}
        self.classes: Sequence[str] = listed.data["classes"]
        self._wrong = Expected.of(values)

    def marks(self) -> list[list[Any]]:
        """[place in the list, mark] of what this person decided before, if it still holds."""
        columns = self.suspects.data["columns"]
        number = {name: k for k, name in enumerate(self.classes)}
        mine = {
            image: people[self.by]
            for (split, image), people in standing(self.records).items()
            if split == "train" and self.by in people
        }
        return [
            [i, _mark(mine[image], number)]
            for i, image in enumerate(columns["id"])
            if image in mine and mine[image].given_label == self.given[image]
        ]

    def progress(self) -> str:
        """How much is looked at, and what is expected of the rest."""
        return looked_at(final(self.records), self.given, self._wrong, self.findings.unit)

    def save(self, rows: Sequence[Mapping[str, Any]], by: str) -> None:
        """Write decisions; they are safe when this returns.

        Raises:
            UserError: a row is no decision about an image of this run; then none is saved.
            OSError: they could not be written.
        """
        records = [from_row({**row, "split": "train", "by": by}) for row in rows]
        for record in records:
            check_known(record, self._images, self.classes)
        self.session.add(records)
        self.records += records


def _mark(record: Decision, number: Mapping[str, int]) -> dict[str, Any]:
    return {
        "decision": record.decision,
        "label": number.get(record.label, -1),
        "at": record.at,
        "note": record.note,
    }


def application(review: Review, token: str) -> web.Application:
    """The routes of a sitting.

    Args:
        review: what is shown and written to.
        token: that the first address must carry.
    """

    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text=_page(review), content_type="text/html")

    async def script(request: web.Request) -> web.StreamResponse:
        text = assets.script() + assets.source("review.js")
        return web.Response(text=text, content_type="text/javascript")

    async def style(request: web.Request) -> web.StreamResponse:
        return web.Response(text=assets.style(), content_type="text/css")

    async def picture(request: web.Request) -> web.StreamResponse:
        of, side = {
            "large": (review.suspects.pictures, _LARGE),
            "suspects": (review.suspects.pictures, _SMALL),
            "neighbours": (review.suspects.neighbours, _NEAR),
        }[request.match_info["kind"]]
        place = int(request.match_info["place"])
        if place >= len(of):
            raise web.HTTPNotFound
        try:
            content = await asyncio.to_thread(_jpeg, of[place], side)
        except (OSError, UserError) as error:
            raise web.HTTPNotFound(text=str(error)) from None
        kept = {"Cache-Control": "private, max-age=3600"}
        return web.Response(body=content, content_type="image/jpeg", headers=kept)

    async def decide(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Origin") != f"http://{request.host}":
            raise web.HTTPForbidden(text="decisions are taken from this page only")
        try:
            body = await request.json()
            rows, by = list(body["records"]), str(body["by"]) or review.by
            # In this thread: the file is written by one at a time, in the order of the requests.
            review.save(rows, by)
        except (UserError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise web.HTTPBadRequest(text=f"not saved: {error}") from None
        except OSError as error:
            raise web.HTTPInsufficientStorage(text=f"not saved: {error}") from None
        return web.json_response({"progress": review.progress()})

    app = web.Application(middlewares=[_guard(token)], client_max_size=_BODY_BYTES)
    app.add_routes(
        [
            web.get("/", page),
            web.get("/page.js", script),
            web.get("/page.css", style),
            web.get(r"/pictures/{kind:large|suspects|neighbours}/{place:\d{1,9}}", picture),
            web.post("/decisions", decide),
        ]
    )
    return app


def _guard(token: str) -> Any:
    """Lets through who has the token, from this machine's own names."""

    @web.middleware
    async def guard(request: web.Request, handler: _Answer) -> web.StreamResponse:
        name = request.host.rpartition(":")[0] or request.host
        if name not in ("127.0.0.1", "localhost"):
            raise web.HTTPForbidden(text="only 127.0.0.1 is served")
        # Cookies know no ports: each sitting has its own, so that two do not shut each other out.
        cookie = f"{_COOKIE}_{request.host.rpartition(':')[2]}"
        given = request.query.get("token")
        if given is not None and secrets.compare_digest(given.encode(), token.encode()):
            found = web.HTTPFound("/", headers=_HEADERS)
            found.set_cookie(cookie, token, httponly=True, samesite="Strict")
            raise found
        if not secrets.compare_digest(request.cookies.get(cookie, "").encode(), token.encode()):
            raise web.HTTPForbidden(
                text="use the address that dcai-ray review printed: it carries a token"
            )
        answer = await handler(request)
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    return guard


def _page(review: Review) -> str:
    data = {
        **review.suspects.data,
        "server": True,
        "marks": review.marks(),
        "by": review.by,
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.globals["version"] = dcai_ray.__version__
    names = ("review.html.jinja", "suspects.html.jinja")
    parts = {name: environment.from_string(assets.source(name)) for name in names}
    return parts["review.html.jinja"].render(
        name=review.findings.run.location.name,
        gallery=Markup(  # of a template that escapes
            parts["suspects.html.jinja"].render(
                suspects=len(review.suspects.data["columns"]["id"]), unit=review.findings.unit
            )
        ),
        progress=review.progress(),
        data=Markup(assets.data_block(data)),  # escaped there
    )


def _jpeg(file: decoding.Source, side: int) -> bytes:
    picture = decoding.read(file)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "jpeg", quality=85 if side < _LARGE else 92)
    return content.getvalue()


async def _serve(app: web.Application, port: int, tell: Callable[[int], None]) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        tell(runner.addresses[0][1])
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def serve(review: Review, port: int) -> None:
    """Serve a sitting until Ctrl-C.

    Args:
        review: what is shown and written to.
        port: 0 for any that is free.
    Raises:
        UserError: the port is taken.
    """
    token = secrets.token_urlsafe(16)

    def tell(port: int) -> None:
        print(f"review: http://127.0.0.1:{port}/?token={token}", flush=True)
        progress.say(f"{review.progress()}; Ctrl-C ends the review, decisions are saved at once")

    try:
        asyncio.run(_serve(application(review, token), port, tell))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"port {port} cannot be listened to ({reason}); give another") from None
