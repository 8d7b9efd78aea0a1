"""report.html of a finished run, and of every kind of run that is not: each gives a page that says so."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from agent.engine.search import SearchOutcome
from agent.report import write_report
from agent.runs.directory import RunDirectory
from benchmark.executors import LocalExecutor
from sandbox.isolate import Isolation
from tests.agent.conftest import ROOT
from tests.agent.report_samples import (
    HOSTILE,
    SCRIPTS,
    Fields,
    change_log,
    change_summary,
    copy_run,
    every_script,
    read_log,
    write_log,
)

pytestmark = pytest.mark.usefixtures("processes_shared", "drawn_once")

MAX_BYTES = 1_000_000


class Page(HTMLParser):
    """The tags, the text and the ids of a page; raises where an element is closed that is not open."""

    VOID = frozenset({"meta", "col", "br", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text += data

    def names(self) -> set[str]:
        return {tag for tag, _ in self.tags}


def page_of(run: RunDirectory, *, measure: bool = False) -> Page:
    path = write_report(run, measure=measure)
    html = path.read_bytes()
    assert len(html) < MAX_BYTES
    page = Page(html.decode("utf-8"))
    assert "script" not in page.names()
    return page


@pytest.fixture
def run(finished: SearchOutcome, tmp_path: Path) -> RunDirectory:
    return copy_run(finished.run, tmp_path)


def test_search_leaves_a_page(finished: SearchOutcome) -> None:
    """After `agent search`, report.html opens with the verdict and has every section."""
    page = Page((finished.run / "report.html").read_text(encoding="utf-8"))
    number = finished.done["submitted_test"]
    assert f"On the visible tasks test {number} " in page.text
    for task, kind in (("resnet20-tiny", "visible"), ("mobilenetv2-tiny", "hidden")):
        assert f"{finished.done[kind][task]['submitted']:.2f}" in page.text
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {"results", "flags", "diff", "network", "search", "transcript", "machine", "step-1"} <= ids
    assert "Which parameters it sets otherwise" in page.text  # measured in the search's own isolation
    assert "resnet20-tiny" in json.loads((finished.run / "network.json").read_text())["tasks"]


def test_page_needs_nothing_from_outside(run: RunDirectory) -> None:
    """A content security policy forbids scripts and fetches; no element asks for one."""
    page = page_of(run)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not page.names() & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith("#")


def test_figures_have_alternative_texts_and_unique_names(run: RunDirectory) -> None:
    """Every drawing says in words what it shows, and no two elements share an id.

    Of two figures each with an empty group, both could be called line2d_41.
    """
    rewrite_curves(run, lambda curve: [{**curve[0], "epoch": 1}, *curve])
    page = page_of(run)
    drawings = [a for tag, a in page.tags if tag == "svg"]
    assert len(drawings) >= 4
    assert all(a.get("role") == "img" and len(a.get("aria-label") or "") > 30 for a in drawings)
    assert any("from" in (a["aria-label"] or "") and "best" in (a["aria-label"] or "") for a in drawings)
    identifiers = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(identifiers) == len(set(identifiers))
    assert not [identifier for identifier in identifiers if str(identifier).startswith("line2d")]


def test_same_run_gives_the_same_figures(run: RunDirectory) -> None:
    """Drawing twice gives equal pages but for the time of writing: pages can be compared."""
    pages = [write_report(run, measure=False).read_text(encoding="utf-8") for _ in range(2)]
    first, second = (re.sub(r"Written [\d: UTC-]+ by", "", page) for page in pages)
    assert first == second


def test_hostile_text_stays_text(run: RunDirectory) -> None:
    """What a model writes into thoughts, code, replies, names and errors is shown, not obeyed."""

    def poison(event: Fields) -> Fields:
        for name in ("reply", "error", "message", "failure"):
            if isinstance(event.get(name), str):
                event[name] = HOSTILE
        if event["kind"] == "proposal":
            event["content"] = {"strategy": HOSTILE, "parameters": {HOSTILE: HOSTILE}, "message": {"content": HOSTILE}}
        if event["kind"] == "tool_called":
            event |= {"tool": HOSTILE, "arguments": {"op": HOSTILE, "content": HOSTILE, HOSTILE: HOSTILE}}
        return event

    change_log(run, poison)
    change_summary(run, profile=HOSTILE, caveat=HOSTILE, message=HOSTILE, environment={HOSTILE: HOSTILE})
    page = page_of(run)
    assert "document.title='owned'" in page.text
    assert not page.names() & {"script", "img"}
    assert sum(tag == "style" for tag, _ in page.tags) == 1
    html = (run.path / "report.html").read_text(encoding="utf-8")
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert "\\u202e" in page.text
    assert "{{ 7*7 }}" in page.text


def test_hostile_task_names(run: RunDirectory) -> None:
    """A task's name reaches tables, figures and alternative texts; it stays a name."""
    summary = run.read_summary()
    for kind in ("visible", "hidden"):
        for task in summary["tasks"][kind]:
            task["name"] = HOSTILE + kind
    change_log(run, lambda event: {**event, "task": HOSTILE + "visible"} if event["kind"] == "evaluated" else event)
    run.write_summary(summary)
    page = page_of(run)
    assert not page.names() & {"script", "img"}


def test_every_script_is_shown(run: RunDirectory) -> None:
    """Text in every script arrives unchanged, right-to-left ones included."""
    said = SCRIPTS + every_script()
    assert len(said) > 500
    change_log(
        run,
        lambda event: {**event, "content": {"message": {"content": said}}} if event["kind"] == "proposal" else event,
    )
    assert said in page_of(run).text


def test_a_megabyte_wherever_text_can_stand(run: RunDirectory) -> None:
    """Names, labels, errors, settings: each is cut, so that none of them can fill the page."""
    flood = '<"&>é\u202e' * 170_000

    def swell(event: Fields) -> Fields:
        event |= {name: flood for name in ("reply", "error", "message", "failure") if isinstance(event.get(name), str)}
        if event["kind"] == "proposal":
            numbers = {f"{index}{flood}" if index < 3 else f"p{index}": index for index in range(300)}
            event["content"] = {"strategy": flood, "parameters": numbers, "message": {"content": flood}}
        if event["kind"] == "tool_called":
            event |= {"tool": flood, "arguments": {"content": flood, "op": flood}}
        if event["kind"] == "evaluated":
            event["task"] = flood + event["task"]
        return event

    change_log(run, swell)
    change_summary(run, caveat=flood, message=flood, profile=flood, status=flood, environment={flood: flood})
    assert "…" in page_of(run).text


def test_megabytes_of_output_are_cut_and_counted(run: RunDirectory) -> None:
    """1 MB of model output: the page stays under 1 MB and says how much of it is shown."""
    flood = '<"&>' * 250_000

    def swell(event: Fields) -> Fields:
        return {**event, "content": {"message": {"content": flood}}} if event["kind"] == "proposal" else event

    change_log(run, swell)
    page = page_of(run)
    assert "of 1,000,000 characters" in page.text


def test_thousand_events(run: RunDirectory) -> None:
    """A search of a thousand calls: the first and the last are there, and how many are left out."""
    events = read_log(run)
    middle = [event for event in events if event["kind"] in ("tool_called", "tool_replied")][:2]
    many = [{**event, "step": step} for step in range(100, 1100) for event in middle]
    write_log(run, [*events[:2], *many, *events[2:]])
    page = page_of(run)
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {"step-100", "step-1"} <= ids
    assert re.search(r"\d+ calls in the middle are left out", page.text)


@pytest.mark.parametrize(
    ("in_training", "caption"),
    [({1}, "(test 3, the best so far; not submitted)"), ({1, 2, 3}, "(test 1, not finished; not submitted)")],
)
def test_a_test_in_training_is_not_the_best_so_far(tmp_path: Path, in_training: set[int], caption: str) -> None:
    """With five of eight seeds trained, the page called a test the best so far; its gain was three times too large."""
    run = copy_run(ROOT / "tests" / "data" / "sample-run", tmp_path)
    later = ("submitted", "ended")

    def under_way(event: Fields) -> Fields | None:
        over = event["kind"] in later or str(event.get("role")).startswith("hidden")
        half = event["kind"] == "test_finished" and event["number"] in in_training
        return None if over or half else event

    change_log(run, under_way)
    change_summary(run, status="running", submitted_test=None, visible=None, hidden=None)
    assert caption in page_of(run).text


def test_screening_is_marked(run: RunDirectory) -> None:
    """Looks between tests are in the figure, in its words and in the history; events of unknown kinds are passed by."""
    events = read_log(run)
    first = next(index for index, event in enumerate(events) if event["kind"] == "test_started")
    look = {**events[first], "kind": "screened", "number": None, "cost": 0.25, "rejected": None}
    looks = [{**look, "kept": True, "loss": 1.25}, {**look, "kept": False, "loss": None, "rejected": "shape: conv1"}]
    write_log(run, [*events[: first + 1], *looks, {**look, "kind": "dreamt"}, *events[first + 1 :]])
    page = page_of(run)
    assert "2 candidates looked at in short trainings between the tests, 1 kept, at the cost of 0.50 tests" in page.text
    assert "1.250" in page.text
    assert "dropped: shape: conv1" in page.text
    alts = [attributes.get("aria-label") or "" for tag, attributes in page.tags if tag == "svg"]
    assert sum("screened between tests: 1 kept, 1 dropped" in alt for alt in alts) == 1
    assert "screened, dropped" in page.text


def rewrite_curves(
    run: RunDirectory, change: Callable[[list[Fields]], list[Fields]], status: str | None = None
) -> None:
    """Change the learning curves of all results: on the smoke profile each has one point, which is no curve."""
    for path in (*run.results.glob("*.json"), *run.hidden.glob("*.json")):
        envelope = json.loads(path.read_text())
        envelope["result"]["curve"] = change(envelope["result"]["curve"])
        envelope["result"]["status"] = status or envelope["result"]["status"]
        payload = json.dumps(envelope["result"], sort_keys=True)
        envelope["sha256"] = hashlib.sha256(payload.encode()).hexdigest()
        path.write_text(json.dumps(envelope))


def test_curves_with_nan(run: RunDirectory) -> None:
    """A training that diverged: its curve has a gap, the page says so, and the numbers that are there are shown."""
    broken = {"test_acc": float("nan"), "test_loss": float("nan")}
    rewrite_curves(
        run, lambda curve: [{**point, "epoch": epoch} | broken for point in curve for epoch in (1, 2)], "diverged"
    )
    page = page_of(run)
    assert "diverged" in page.text
    assert "not finite and leave a gap" in page.text


def test_unfinished_run(run: RunDirectory) -> None:
    """Killed before the submission: the tests so far, and that nothing was submitted and the hidden task not run."""
    events = read_log(run)
    end = next(index for index, event in enumerate(events) if event["kind"] == "submitted")
    write_log(run, events[:end])
    change_summary(run, status="interrupted", submitted_test=None, visible=None, hidden=None, seconds=None, tests=None)
    page = page_of(run)
    assert "This search was interrupted" in page.text
    assert "the best so far; not submitted" in page.text
    assert "Not run: it is run only after a submission" in page.text
    assert "Unfinished" in page.text


def test_crashed_before_anything(run: RunDirectory) -> None:
    """Only run.json exists: the page says that there is no log and shows what stopped the run."""
    run.events.unlink()
    import shutil

    for folder in ("workspace", "results", "hidden"):
        shutil.rmtree(run.path / folder)
    change_summary(run, status="failed", message="no space left", submitted_test=None, visible=None, hidden=None)
    page = page_of(run)
    assert "There is no event log" in page.text
    assert "no space left" in page.text
    assert "This search broke off" in page.text


def test_torn_last_line_and_damaged_line(run: RunDirectory) -> None:
    """What a crash cut short is left out; a line that is no JSON ends what can be read, and the page says where."""
    data = run.events.read_bytes()
    run.events.write_bytes(data[:-20])
    assert "cut short, as after a crash" in page_of(run).text
    lines = data.split(b"\n")
    lines[5] = b"{broken"
    run.events.write_bytes(b"\n".join(lines))
    assert "Line 6 of the event log cannot be read" in page_of(run).text


def test_edited_log_is_found_out(run: RunDirectory) -> None:
    """A number changed by hand breaks the hash chain; the page asks for an explanation first."""
    text = run.events.read_text(encoding="utf-8")
    run.events.write_text(re.sub(r'"kind": "launch"', '"kind":  "launch"', text, count=1), encoding="utf-8")
    page = page_of(run)
    assert "the log was edited" in page.text
    assert "Explain first" in page.text


def test_run_json_that_contradicts_the_log(run: RunDirectory) -> None:
    """A gain polished in run.json is named beside what the log gives."""
    visible = run.read_summary()["visible"]
    visible["resnet20-tiny"]["gain"] += 5
    change_summary(run, visible=visible)
    assert "run.json says" in page_of(run).text


def test_older_schema(run: RunDirectory) -> None:
    """A run of another schema: shown as far as possible, with a warning."""
    change_log(run, lambda event: {**event, "schema": 0})
    change_summary(run, schema=0, tasks=None, seeds=None, environment=None, versions=None)
    page = page_of(run)
    assert "schema 0" in page.text
    assert "resnet20-tiny" in page.text


def test_submitted_without_hidden_results(run: RunDirectory) -> None:
    """The process died between the submission and the hidden task."""
    change_log(run, lambda event: None if str(event.get("role", "")).startswith("hidden/") else event)
    change_summary(run, hidden=None)
    page = page_of(run)
    assert "on the hidden task it was not run" in page.text
    assert "There are no hidden results in this run" in page.text


def test_no_accepted_edit(run: RunDirectory) -> None:
    """No test at all: the baseline alone, and that the region is untouched."""
    keep = [event for event in read_log(run) if event["kind"] in ("launch", "ended")]
    baseline = [event for event in read_log(run) if event.get("role") == "baseline"]
    write_log(run, [keep[0], *baseline, *keep[1:]])
    change_summary(run, status="tests_exhausted", submitted_test=None, visible={}, hidden={}, tests=[])
    page = page_of(run)
    assert "the region is the untouched baseline" in page.text
    assert "The baseline alone reached" in page.text
    assert "Nothing was submitted" in page.text


def test_every_test_failed(run: RunDirectory) -> None:
    """Failures are shown with their reasons and are no reason for a broken page."""

    def fail(event: Fields) -> Fields | None:
        if event["kind"] == "evaluated" and event["role"].startswith("test/"):
            return {**event, "accuracy": None, "failure": "not_finite: NaN in conv1.weight"}
        if event["kind"] == "test_finished":
            return {**event, "status": "failed"}
        return None if event["kind"] == "submitted" or "hidden/" in event.get("role", "") else event

    change_log(run, fail)
    change_summary(run, status="tests_exhausted", submitted_test=None, visible={}, hidden={})
    page = page_of(run)
    assert "Nothing to submit" in page.text
    assert "NaN in conv1.weight" in page.text


@pytest.mark.parametrize("text", ["[]", '"x"', "{", ""])
def test_without_a_summary_there_is_no_page(run: RunDirectory, text: str) -> None:
    """A run.json that is none is an error that names the file."""
    from agent.errors import RunDamaged

    run.summary.write_text(text)
    with pytest.raises(RunDamaged, match=r"run\.json"):
        write_report(run, measure=False)


def test_summary_with_fields_of_the_wrong_kind(run: RunDirectory) -> None:
    """Every field of run.json may be anything: a page comes out."""
    change_summary(
        run, tasks=[1], seeds="x", config=7, environment=[], versions="v", seconds={"total": "long"}, visible=[1],
        created=float("nan"), caveat=["a"], budget={}, profile=3,
    )  # fmt: skip
    assert "Results" in page_of(run).text


def test_network_is_measured_once(run: RunDirectory) -> None:
    """Making the page again runs nothing: the numbers are kept with the hash of the code they are about."""
    assert "Which parameters it sets otherwise" in page_of(run).text
    kept = run.path / "network.json"
    kept.write_text(kept.read_text().replace('"schema": 1', '"schema": 99'))
    assert "The networks were not measured" in page_of(run).text
    measured = page_of(run, measure=True)
    assert "Which parameters it sets otherwise" in measured.text
    assert '"schema": 1' in kept.read_text()


def test_networks_that_the_training_processes_cannot_measure(run: RunDirectory) -> None:
    """The isolation breaks at the end of a search: the page says so in one line, without a traceback."""
    (run.path / "network.json").unlink()
    with Isolation(level="none") as isolation:
        pass
    with LocalExecutor(1, threads=1) as executor:
        path = write_report(run, isolation=isolation, executor=executor)
    text = Page(path.read_text(encoding="utf-8")).text
    assert "The networks could not be measured: " in text
    assert "this Isolation is closed" in text
    assert "Traceback" not in text
