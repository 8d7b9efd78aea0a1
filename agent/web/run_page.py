"""The page of a run in the browser: the report's page, with its live part, its review and its buttons."""

from __future__ import annotations

import hashlib
import shlex
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from agent.errors import AgentError
from agent.report import measured_network
from agent.report.page import render
from agent.runs.artifacts import MODULE, PATCH
from agent.runs.directory import RunDirectory
from agent.runs.live import LiveReader
from agent.runs.log_lines import GENESIS
from agent.runs.reviews import WORDS, Review, Standing, author, standing
from agent.runs.status import RunStatus
from agent.runs.untrusted import mapping
from agent.studies.reviewing import Subject, look_at
from agent.studies.verify_artifacts import require_genuine
from agent.web.jobs import Jobs, may_go_on
from agent.web.live_view import live_html
from agent.web.shelf import Signature, link_to, read_state, signature_of
from agent.web.site import Site
from benchmark.files import is_plain, read_plain
from sandbox.region import SCAFFOLD_NAME

FILES = (PATCH, MODULE, "events.jsonl", "trajectory.json", "run.json")
"""What can be downloaded."""
_LIVE = "<!--live-->"
"""Where the live part goes, which is made anew for each reader. Text of a run cannot look like it: it is escaped."""
_MOST_PAGES = 32
_TAIL = 20_000
_MOST_OUTPUTS = 8
_MOST_REVIEWS = 300
_LARGEST_OUTPUT = 64 * 2**20


@dataclass(frozen=True)
class ReviewView:
    """A review as the page shows it. `current`: it is of the present patch and log."""

    kind: str
    message: str
    author: str
    when: str
    line: int | None
    current: bool
    signed: bool


class RunPages:
    """Makes the pages of runs, and keeps them until a file of the run changes."""

    def __init__(self, site: Site, jobs: Jobs) -> None:
        self._site = site
        self._jobs = jobs
        self._pages: OrderedDict[str, tuple[Signature, str]] = OrderedDict()
        self.drawing = threading.Lock()
        """One page at a time: matplotlib is not made for threads, and a page costs a good part of a core."""
        self.seconds = 0.1
        """What the last page took to make."""

    def signature(self, run: RunDirectory) -> Signature:
        """Changes when the page would, its live part left out."""
        return (*signature_of(run), self._jobs.signature(run.path))

    def processes(self, run: RunDirectory) -> object:
        """Changes when a process begins or ends to work on the run."""
        return run.is_held, self._jobs.signature(run.path)

    def version(self, run: RunDirectory) -> str:
        """A short name of the signature."""
        return hashlib.sha256(repr(self.signature(run)).encode()).hexdigest()[:16]

    def page(self, run: RunDirectory) -> str:
        """The HTML. Raises RunDamaged when there is no readable run.json."""
        with self.drawing:
            signature, version = self.signature(run), self.version(run)
            kept = self._pages.get(run.path.name)
            if kept is None or kept[0] != signature:
                started = time.thread_time()
                kept = (signature, self._make(run, version))
                self.seconds = time.thread_time() - started
                self._pages[run.path.name] = kept
            self._pages.move_to_end(run.path.name)
            while len(self._pages) > _MOST_PAGES:
                self._pages.popitem(last=False)
            page = kept[1]
        return page.replace(_LIVE, live_part(run), 1)

    def _make(self, run: RunDirectory, version: str) -> str:
        subject = look_at(run)
        record, findings = subject.record, subject.findings
        network, note = measured_network(record, findings, measure=False)
        more = {
            "site": self._site,
            "link": link_to(run.path.name),
            "named": shlex.quote(run.path.name),
            "version": version,
            "subject": subject,
            "job": self._jobs.view(run.path),
            "resumable": may_go_on(record.summary) and not record.held,
            "live": Markup(_LIVE),
            "outputs": _outputs(run),
            "files": [name for name in FILES if is_plain(run.path, name)],
            **self._review(run, subject),
        }
        return render(record, findings, network, note, name="web_run.html.j2", more=more)

    def _review(self, run: RunDirectory, subject: Subject) -> Mapping[str, Any]:
        now, fault = Standing((), None), ""
        try:
            now = standing(run)
        except (AgentError, OSError) as error:
            fault = str(error)
        record, why_not = subject.record, ""
        if now.patch_sha256 is not None:
            try:
                require_genuine(run)
            except (AgentError, OSError) as error:
                why_not = str(error)
        reviews = [_view(review, now) for review in now.reviews[-_MOST_REVIEWS:]]
        said: dict[int, list[ReviewView]] = {}
        for view in reviews:
            if view.kind == "comment" and view.line is not None:
                said.setdefault(view.line, []).append(view)
        return {
            "standing": now,
            "review_fault": fault,
            "genuine": not why_not,
            "why_not": why_not,
            "log_sha256": now.log[-1] if now.log else GENESIS,
            "reviews": reviews,
            "said": said,
            "words": WORDS,
            "author": reviewer(),
            "scaffold": SCAFFOLD_NAME,
            "waiting": waits(record.summary),
            "can_review": not self._site.read_only and not fault and now.patch_sha256 is not None,
        }


def reviewer() -> str:
    """The author of a verdict that is given in the browser: it proves the token, not the person."""
    return f"{author()} (token of agent serve)"


def waits(summary: Mapping[str, Any]) -> bool:
    """Whether `agent submit` would go on with this run: also one that was interrupted during its hidden task."""
    status = RunStatus.of(summary)
    held_back = mapping(summary.get("config")).get("submit") is False and summary.get("submitted_test") is not None
    return status.waiting or (status.resumable and held_back)


def live_part(run: RunDirectory) -> str:
    """The live part as it is now, for a page that is opened late; "" for a run that nothing works on."""
    if not (state := read_state(run)).running:
        return ""
    reader = LiveReader(run.path)
    reader.read()
    return live_html(reader.state, state)


def _view(review: Review, now: Standing) -> ReviewView:
    return ReviewView(
        kind=review.kind,
        message=review.message,
        author=review.author,
        when=time.strftime("%Y-%m-%d %H:%M", time.gmtime(review.time)),
        line=review.line,
        current=now.concerns(review),
        signed=review.signature is not None,
    )


def _outputs(run: RunDirectory) -> Sequence[tuple[str, str, bool]]:
    """(file, its end, whether it was cut) of what the run's processes and a session's command printed."""
    found = []
    for path in sorted(run.path.glob("*.log"))[:_MOST_OUTPUTS]:
        try:
            data = read_plain(run.path, path.name, limit=_LARGEST_OUTPUT)
        except OSError:
            continue
        if data.strip():
            found.append((path.name, data[-_TAIL:].decode(errors="replace"), len(data) > _TAIL))
    return found
