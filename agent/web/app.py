"""The pages, and what their forms do."""

from __future__ import annotations

import hashlib
import shlex
import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from agent.analysis.planning import duration, in_words
from agent.errors import AgentError, UsageError
from agent.report.comparison_page import MAX_RUNS, comparison_page, members
from agent.report.page import template
from agent.runs.directory import RunDirectory
from agent.runs.log import MAX_LOG_BYTES
from agent.runs.reviews import WORDS, Kind, Outdated, Seen, standing
from agent.studies.reviewing import look_at, place, record_review
from agent.web.access import Forbidden, Guard, read_form
from agent.web.feed import Feed, RunWatched, ShelfWatched
from agent.web.jobs import Jobs, may_go_on
from agent.web.new_search import FIELDS, defaults, flags_of, values_of
from agent.web.run_page import FILES, RunPages, reviewer, waits
from agent.web.shelf import Signature, link_to
from agent.web.site import Site
from benchmark.comparison import signed
from benchmark.files import read_plain
from sandbox.region import SCAFFOLD_NAME

_STATIC = {"web.css": "text/css", "web.js": "text/javascript"}
_LONGEST_MESSAGE = 4000

Answer = Callable[[RunDirectory], Response]
Act = Callable[[RunDirectory, Mapping[str, str]], None]


def make_app(site: Site, jobs: Jobs) -> Starlette:
    """The server's application, guarded."""
    pages = _Pages(site, jobs)
    routes = [
        Route("/", pages.shelf),
        Route("/feed", pages.shelf_feed),
        Route("/compare", pages.compare),
        Route("/runs/{name}", pages.to_run),
        Route("/runs/{name}/", pages.of_run(pages.run)),
        Route("/runs/{name}/feed", pages.run_feed),
        Route("/runs/{name}/files/{file}", pages.file),
        Route("/static/{file}", pages.static),
    ]
    if not site.read_only:
        routes += [
            Route("/new", pages.new, methods=["GET", "POST"]),
            Route("/runs/{name}/review", pages.act(pages.review, "review"), methods=["POST"]),
            Route("/runs/{name}/submit", pages.act(pages.submit), methods=["POST"]),
            Route("/runs/{name}/resume", pages.act(pages.resume), methods=["POST"]),
            Route("/runs/{name}/stop", pages.act(pages.stop), methods=["POST"]),
        ]
    app = Starlette(routes=routes, exception_handlers={404: pages.missing, 405: pages.refused})
    app.add_middleware(Guard, access=site.access)
    return app


class _Pages:
    """The answers of the server."""

    def __init__(self, site: Site, jobs: Jobs) -> None:
        self._site = site
        self._jobs = jobs
        self._runs = RunPages(site, jobs)
        self._shelf_feed = Feed(ShelfWatched(site.shelf, _version))
        self._feeds: dict[str, Feed] = {}
        self._writing = threading.Lock()
        """One review at a time: each names the one before."""

    # -- what is shown ------------------------------------------------------------------------------------------------

    def shelf(self, request: Request) -> Response:
        """The list of runs."""
        version = _version(self._site.shelf.signature())
        page = template("web_shelf.html.j2").render(
            site=self._site, rows=self._site.shelf.rows(), version=version, signed=signed, most=MAX_RUNS
        )
        return _html(page)

    async def shelf_feed(self, request: Request) -> Response:
        """The events of the list."""
        return _events(self._shelf_feed)

    def of_run(self, answer: Answer) -> Callable[[Request], Response]:
        """An endpoint that finds the run of its path first."""

        def endpoint(request: Request) -> Response:
            run = self._site.shelf.find(request.path_params["name"])
            return self.missing(request) if run is None else answer(run)

        return endpoint

    def run(self, run: RunDirectory) -> Response:
        """The page of a run; of one that cannot be read, the reason."""
        try:
            return _html(self._runs.page(run))
        except (AgentError, OSError) as error:
            return _html(self._site.message("This run cannot be read", str(error)))

    def to_run(self, request: Request) -> Response:
        """To the page with its slash; `latest` leads to the newest run."""
        name = request.path_params["name"]
        known = self._site.shelf.newest() if name == "latest" else name
        if known is None or self._site.shelf.find(known) is None:
            return self.missing(request)
        return RedirectResponse(link_to(known), 307)

    async def run_feed(self, request: Request) -> Response:
        """The events of a run."""
        name = request.path_params["name"]
        run = self._site.shelf.find(name)
        if run is None:
            return self.missing(request)
        return _events(self._feeds.setdefault(name, Feed(RunWatched(run, self._runs))))

    def compare(self, request: Request) -> Response:
        """The comparison of the runs that were ticked."""
        names = list(dict.fromkeys(request.query_params.getlist("run")))
        runs = [run for name in names if (run := self._site.shelf.find(name)) is not None]
        if not 2 <= len(runs) <= MAX_RUNS:
            return _html(
                self._site.message("Nothing to compare", f"Tick 2 to {MAX_RUNS} runs; {len(runs)} were ticked."), 400
            )
        more = {"site": self._site, "links": {run.path.name: link_to(run.path.name) for run in runs}}
        try:
            with self._runs.drawing:
                return _html(comparison_page(members(runs), name="web_compare.html.j2", more=more))
        except (AgentError, OSError) as error:
            return _html(self._site.message("These runs cannot be compared", str(error)), 400)

    def file(self, request: Request) -> Response:
        """A file of a run, to be saved and never shown: somebody else may have written it."""
        run, file = self._site.shelf.find(request.path_params["name"]), request.path_params["file"]
        if run is None or file not in FILES:
            return self.missing(request)
        try:
            data = read_plain(run.path, file, limit=MAX_LOG_BYTES)
        except OSError:
            return self.missing(request)
        return Response(
            data,
            media_type="application/octet-stream",
            headers={"content-disposition": f'attachment; filename="{file}"'},
        )

    def static(self, request: Request) -> Response:
        """Style and script of the pages."""
        file = request.path_params["file"]
        if file not in _STATIC:
            return self.missing(request)
        return Response((Path(__file__).parent / "static" / file).read_bytes(), media_type=_STATIC[file])

    def missing(self, request: Request, error: Exception | None = None) -> Response:
        """Nothing has this address."""
        return _html(self._site.message("Not found", "There is no such run or page here."), 404)

    def refused(self, request: Request, error: Exception) -> Response:
        """The address takes no such request."""
        return PlainTextResponse("Method not allowed\n", 405)

    # -- what is done -------------------------------------------------------------------------------------------------

    def act(self, act: Act, anchor: str = "") -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that takes a form of this server, acts on its run, and leads back to the run's page."""

        async def endpoint(request: Request) -> Response:
            run = self._site.shelf.find(request.path_params["name"])
            if run is None:
                return self.missing(request)
            back = link_to(run.path.name)
            try:
                form = await read_form(request, self._site.access)
                await run_in_threadpool(act, run, form)
            except (AgentError, OSError) as error:
                code = 403 if isinstance(error, Forbidden) else 409 if isinstance(error, Outdated) else 400
                title = "Nothing was recorded" if anchor == "review" else "Nothing was done"
                return _html(self._site.message(title, str(error), back=back, back_words="Back to the run"), code)
            return RedirectResponse(f"{back}{anchor and f'#{anchor}'}", 303)

        return endpoint

    def review(self, run: RunDirectory, form: Mapping[str, str]) -> None:
        """Record a verdict or a comment on what the page showed."""
        kind, message, line = form.get("kind", ""), form.get("message", "").strip(), form.get("line", "").strip()
        if kind not in WORDS:
            raise UsageError(f"kind: one of {', '.join(WORDS)} belongs there.")
        if not message and kind != "approve":
            raise UsageError("Give a reason: only an approval may go without one.")
        if len(message) > _LONGEST_MESSAGE:
            raise UsageError(f"The reason has more than {_LONGEST_MESSAGE:,} characters.")
        if not form.get("patch_sha256") or not form.get("log_sha256"):
            raise UsageError("The form does not say which patch and log it is about: patch_sha256 and log_sha256.")
        seen = Seen(form["patch_sha256"], form["log_sha256"])
        known: Kind = next(word for word in WORDS if word == kind)
        with self._writing:
            subject = look_at(run)
            where = place(f"{SCAFFOLD_NAME}:{line}", subject) if line and kind == "comment" else None
            record_review(run, subject, known, message, where=where, by=reviewer(), seen=seen)

    def submit(self, run: RunDirectory, form: Mapping[str, str]) -> None:
        """Run the hidden task of an approved run that waits for it."""
        if not waits(run.read_summary()):
            raise UsageError("This run does not wait for a review.")
        if not standing(run).approved:
            raise UsageError("No approval of this patch and log is in force, so the hidden task is not run.")
        self._require_free(run)
        self._jobs.submit(run.path)

    def resume(self, run: RunDirectory, form: Mapping[str, str]) -> None:
        """Go on with a search that was broken off."""
        if not may_go_on(run.read_summary()):
            raise UsageError(
                f"This run goes on from the command line only: agent search --resume {shlex.quote(str(run.path))}"
            )
        self._require_free(run)
        self._jobs.resume(run.path)

    def stop(self, run: RunDirectory, form: Mapping[str, str]) -> None:
        """Stop what this server has started."""
        self._jobs.stop(run.path)

    async def new(self, request: Request) -> Response:
        """The form for a search; what it starts, or what it would cost."""
        if request.method != "POST":
            return self._form(defaults())
        form: Mapping[str, str] = {}
        try:
            form = await read_form(request, self._site.access)
            estimate = form.get("do") == "plan"
            flags = flags_of(form, plan=estimate)
            if estimate:
                found = await run_in_threadpool(partial(self._jobs.plan, flags))
                lines = [
                    f"Profile {found['profile']}: about {duration(found['seconds'])} on this machine.",
                    *in_words(found),
                ]
                return self._form(values_of(form), plan=lines)
            run = await run_in_threadpool(partial(self._jobs.search, flags))
        except (AgentError, OSError, KeyError) as error:
            return self._form(values_of(form), fault=str(error), code=403 if isinstance(error, Forbidden) else 400)
        return RedirectResponse(link_to(run.name), 303)

    def _form(self, values: Mapping[str, object], *, fault: str = "", plan: object = (), code: int = 200) -> Response:
        page = template("web_new.html.j2").render(site=self._site, fields=FIELDS, values=values, fault=fault, plan=plan)
        return _html(page, code)

    def _require_free(self, run: RunDirectory) -> None:
        if run.is_held:
            raise UsageError("A process works on this run at this moment.")


def _events(feed: Feed) -> Response:
    return StreamingResponse(feed.listen(), media_type="text/event-stream")


def _html(page: str, code: int = 200) -> Response:
    return HTMLResponse(page.encode(errors="replace"), code)


def _version(signature: Signature) -> str:
    return hashlib.sha256(repr(signature).encode()).hexdigest()[:16]
