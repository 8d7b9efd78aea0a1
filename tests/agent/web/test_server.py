"""What `agent serve` answers, asked without a browser: the pages, the forms, and whom it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.runs.directory import RunDirectory
from agent.runs.live import LIVE
from agent.runs.reviews import standing
from tests.agent.conftest import agent_command, agent_environment
from tests.agent.report_samples import HOSTILE, change_summary
from tests.agent.web.servers import Client, events_of, serving
from tests.sample import SAMPLE, restore

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

NAME = "20261101-120000-pocket-optuna-aaaa"
PAGE = f"/runs/{NAME}/"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample run."""
    folder = tmp_path_factory.mktemp("served") / "runs"
    folder.mkdir()
    restore(SAMPLE, folder / NAME)
    (folder / NAME / "network.json").unlink()  # its figures take most of a page's time, and other tests draw them
    return folder


@pytest.fixture(scope="module")
def client(runs: Path, cache: Path) -> Iterator[Client]:
    """A server for it."""
    with serving(runs, cache=cache) as client:
        yield client


@pytest.fixture
def run(runs: Path) -> Iterator[RunDirectory]:
    """The sample run, without the reviews that a test adds."""
    yield RunDirectory(runs / NAME)
    (runs / NAME / "reviews.jsonl").unlink(missing_ok=True)


def test_the_address_lets_in_and_gives_a_cookie(client: Client) -> None:
    """The token in the address, or the cookie that it gave; nothing else, and the cookie is for this server alone."""
    status, headers, _ = client.ask(f"/?token={client.token}", headers={})
    assert status == 200
    name, *attributes = headers["set-cookie"].split("; ")
    assert name == f"initsearch-{client.port}={client.token}"
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert client.ask("/")[0] == 200
    for headers in ({}, {"Cookie": f"initsearch-{client.port}=x"}, {"Cookie": "="}):
        for path in ("/", PAGE, f"{PAGE}feed", "/static/web.js", "/nothing", "/?token=", "/?token=x%ff"):
            status, _, body = client.ask(path, headers=headers)
            assert (status, client.token in body, NAME in body) == (403, False, False), path
    assert client.post(f"{PAGE}review", {"kind": "approve"}, {"Cookie": "a=b"})[0] == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "[::1", "", "10.1.2.3", "a@b"]
)
def test_another_name_is_refused(client: Client, host: str) -> None:
    """DNS rebinding: a page of another site whose name leads here cannot read or do anything, even with the cookie."""
    for method in ("GET", "POST"):
        assert client.ask("/", method=method, headers={**client.cookie, "Host": host})[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:9999", "[::1]:80"])
def test_our_names_are_known(client: Client, host: str) -> None:
    """Through a forwarded port the same machine has another port."""
    assert client.ask("/", headers={**client.cookie, "Host": host})[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://localhost"])
def test_another_origin_is_refused(client: Client, origin: str) -> None:
    """A request that a page of another site makes is refused, whatever it asks for."""
    assert client.ask("/", headers={**client.cookie, "Origin": origin})[0] == 403
    assert client.ask(f"{PAGE}feed", headers={**client.cookie, "Origin": origin})[0] == 403


def test_forms_of_others_are_refused(client: Client, run: RunDirectory) -> None:
    """CSRF: without the value that only our pages have nothing is recorded or started."""
    fields = client.form(client.page(PAGE)) | {"kind": "reject", "message": "no"}
    for wrong in ({}, {"csrf": ""}, {"csrf": client.token}, {"csrf": "é"}):
        given = {name: value for name, value in fields.items() if name != "csrf"} | wrong
        for path in (f"{PAGE}review", f"{PAGE}submit", f"{PAGE}stop", f"{PAGE}resume", "/new"):
            assert client.post(path, given)[0] == 403, path
    assert client.post(f"{PAGE}review", fields, {"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert client.post(f"{PAGE}review", fields, {"Origin": "http://evil.example"})[0] == 403
    assert client.post(f"{PAGE}review", fields | {"message": "x" * 70_000})[0] == 400
    assert not run.has("reviews.jsonl")


def test_no_script_but_our_own(client: Client) -> None:
    """The policy lets no inline script run, no page frame ours, and nothing load from elsewhere."""
    for path in ("/", PAGE, "/new", "/compare", "/nothing", "/static/web.js"):
        _, headers, body = client.ask(path)
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert (policy["default-src"], policy["script-src"], policy["frame-ancestors"]) == (
            "'none'",
            "'self'",
            "'none'",
        )
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert client.token not in body
        if path != "/static/web.js":
            assert "<script" not in body.replace('<script src="/static/web.js" defer></script>', "")
            assert not [word for word in ("onclick=", "onload=", "javascript:", "https://") if word in body.lower()]


@pytest.mark.parametrize(
    "path",
    [
        *("/runs/../", "/runs/%2e%2e/", "/runs/..%2f..%2fetc/", "/runs/./", "/runs/%00/", "/runs//", "/runs/a%2f../"),
        *(f"{PAGE}files/../run.json", f"{PAGE}files/%2e%2e%2f%2e%2e%2fsecret", f"{PAGE}files/report.html"),
        *(f"{PAGE}files/workspace%2f.git%2fconfig", "/static/..%2fapp.py", "/static/app.py", "/static/", "/secret"),
    ],
)
def test_no_path_leaves_the_folder(client: Client, runs: Path, path: str) -> None:
    """Whatever a path says, only the runs of the folder and a few of their files are served."""
    (runs.parent / "secret").write_text("SECRET")
    status, _, body = client.ask(path)
    assert (status, "SECRET" in body) == (404, False)


def test_a_name_that_no_file_can_have(client: Client) -> None:
    """An address with a name of 300 letters was answered with "Internal Server Error" and a traceback."""
    for path in ("", "/", "/feed", "/files/run.json"):
        assert client.ask(f"/runs/{'a' * 300}{path}")[0] == 404


def test_links_are_no_runs(client: Client, runs: Path, tmp_path: Path) -> None:
    """A link in the folder, and a run without a run.json, are not served; `latest` leads to the run it names."""
    restore(SAMPLE, tmp_path / "elsewhere")
    (runs / "linked").symlink_to(tmp_path / "elsewhere")
    (runs / "empty").mkdir(exist_ok=True)
    (runs / "latest").symlink_to(tmp_path / "elsewhere")
    try:
        for name in ("linked", "empty", "latest"):
            assert client.ask(f"/runs/{name}/")[0] == 404
            assert client.ask(f"/runs/{name}")[0] == 404
        (runs / "latest").unlink()
        (runs / "latest").symlink_to(NAME)
        status, headers, _ = client.ask("/runs/latest")
        assert (status, headers["location"]) == (307, PAGE)
    finally:
        (runs / "latest").unlink()
        (runs / "linked").unlink()


def test_files_are_saved_and_never_shown(client: Client) -> None:
    """Somebody else may have written them."""
    status, headers, body = client.ask(f"{PAGE}files/submission.patch")
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    assert headers["content-disposition"].startswith("attachment")
    assert "initialize_weights" in body


def test_the_page_is_the_reports(client: Client) -> None:
    """Diff, flags, gains with intervals, the transcript, and the form for a verdict."""
    page = client.page(PAGE)
    for part in ('id="results"', 'id="flags"', 'id="diff"', 'id="review"', 'id="transcript"', "−16.93 … −3.37"):
        assert part in page
    assert page.count('class="say"') > 20
    assert 'id="L28"' in page


def test_a_verdict_is_bound_to_what_was_shown(client: Client, run: RunDirectory) -> None:
    """Patch and log that have changed since the page was made are refused with 409, and nothing is recorded."""
    fields = client.form(client.page(PAGE)) | {"kind": "approve"}
    for name in ("patch_sha256", "log_sha256"):
        status, _, body = client.post(f"{PAGE}review", fields | {name: "0" * 64})
        assert (status, "has changed since" in body) == (409, True)
        assert client.post(f"{PAGE}review", fields | {name: ""})[0] == 400
    assert not run.has("reviews.jsonl")
    assert client.post(f"{PAGE}review", fields)[:1] == (303,)
    now = standing(run)
    assert now.approved
    (review,) = now.reviews
    assert (review.patch_sha256, review.log_sha256) == (fields["patch_sha256"], fields["log_sha256"])
    assert "token of agent serve" in review.author
    assert "approved" in client.page("/")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "reject"}, "Give a reason"),
        ({"kind": "request_changes", "message": "  "}, "Give a reason"),
        ({"kind": "merge", "message": "m"}, "kind"),
        ({}, "kind"),
        ({"kind": "comment", "message": "m", "line": "99999"}, "has lines 1 to"),
        ({"kind": "comment", "message": "m", "line": "0"}, "has lines 1 to"),
        ({"kind": "comment", "message": "m", "line": "x"}, "expected FILE:LINE"),
        ({"kind": "comment", "message": "m" * 4001}, "more than 4,000"),
    ],
)
def test_a_bad_form_is_explained(client: Client, run: RunDirectory, fields: dict[str, str], words: str) -> None:
    """It says what is wrong and records nothing."""
    status, _, body = client.post(f"{PAGE}review", client.form(client.page(PAGE)) | fields)
    assert (status, words in body) == (400, True), body[-600:]
    assert not run.has("reviews.jsonl")


def test_comments_stand_below_their_lines(client: Client, run: RunDirectory) -> None:
    """Markup in a comment stays text."""
    fields = client.form(client.page(PAGE))
    assert client.post(f"{PAGE}review", fields | {"kind": "comment", "message": HOSTILE, "line": "40"})[0] == 303
    page = client.page(PAGE)
    row = page[page.index('id="L40"') :]
    assert "<script>document" not in page
    assert 0 < row.index('class="said"') < row.index('id="L41"')


def test_nothing_is_done_without_need(client: Client, run: RunDirectory) -> None:
    """A finished run neither waits nor goes on, and this server has started nothing on it."""
    fields = {"csrf": client.form(client.page(PAGE))["csrf"]}
    for action, words in (("submit", "does not wait"), ("resume", "command line only"), ("stop", "started nothing")):
        status, _, body = client.post(f"{PAGE}{action}", fields)
        assert (status, words in body) == (400, True)


def test_the_hidden_task_needs_an_approval(client: Client, run: RunDirectory) -> None:
    """A run that waits does not go on before its patch was approved."""
    summary = run.read_summary()
    change_summary(run, status="waiting_for_review")
    try:
        page = client.page(PAGE)
        assert "disabled>Run the hidden task" in page
        status, _, body = client.post(f"{PAGE}submit", {"csrf": client.form(page)["csrf"]})
        assert (status, "No approval" in body) == (400, True)
    finally:
        run.write_summary(summary)


@pytest.mark.parametrize(
    "fields",
    [
        {"proposer": "llm"},
        {"proposer": "scripted:/etc/passwd"},
        {"profile": "/tmp/mine.toml"},
        {"budget": "0"},
        {"budget": "--json"},
        {"budget": "1e3"},
        {"seeds": "51"},
        {"screen": "nan"},
        {"confirm": "1 --download"},
    ],
)
def test_a_search_has_the_forms_choices_only(client: Client, fields: dict[str, str]) -> None:
    """Nothing that runs a program or sends something away can be started, and no flag can be smuggled in."""
    csrf = client.form(client.page(PAGE))["csrf"]
    status, _, body = client.post("/new", {"csrf": csrf, "budget": "1", "seeds": "1", **fields})
    assert (status, "Nothing was started" in body) == (400, True)


def test_a_feed_begins_with_the_truth(client: Client, run: RunDirectory) -> None:
    """Whoever opens a page late, or comes back after a lost connection, gets the state at once."""
    version = client.page(PAGE).partition('data-version="')[2].partition('"')[0]
    assert events_of(client, f"{PAGE}feed", 2) == [("live", ""), ("page", version)]
    assert client.page("/").partition('data-version="')[2].partition('"')[0] == events_of(client, "/feed", 2)[1][1]


def test_a_running_run_is_shown_live(client: Client, run: RunDirectory) -> None:
    """Trainings with their epochs come from live.jsonl, while a process holds the run; afterwards they are gone."""
    summary = run.read_summary()
    change_summary(run, status="running")
    lines = [
        {"kind": "begin", "evaluations": 8, "tests": 3},
        {"kind": "started", "role": "test/2", "task": "vgg16bn-openclipart100", "seed": 0, "epochs": 4},
        {"kind": "epoch", "role": "test/2", "task": "vgg16bn-openclipart100", "seed": 0, "epochs": 4, "epoch": 2}
        | {"accuracy": 12.5, "loss": 1.0},
    ]
    (run.path / LIVE).write_text("".join(json.dumps({"ts": time.time(), **line}) + "\n" for line in lines))
    try:
        with run.held():
            (kind, html), *_ = events_of(client, f"{PAGE}feed", 2)
            assert kind == "live"
            assert "2 / 4" in str(html)
            assert "12.50" in str(html)
            assert "2 / 4" in client.page(PAGE)
            assert "running" in client.page("/")
        assert events_of(client, f"{PAGE}feed", 1) == [("live", "")]
        assert "Go on with this search" in client.page(PAGE)
    finally:
        run.write_summary(summary)
        (run.path / LIVE).unlink()


def test_read_only_for_other_machines(runs: Path, cache: Path, tmp_path: Path) -> None:
    """The address is one line on stdout; that others can reach it is said on stderr. Ctrl-C ends it.

    With --read-only no form is offered, and none is taken. The list of 500 runs takes less than a second, also for the
    first time.
    """
    many = tmp_path / "runs"
    for name in (NAME, *(f"20261101-{number:06d}-pocket-optuna-aaaa" for number in range(499))):
        (many / name).mkdir(parents=True)
        for file in ("run.json", "events.jsonl"):
            os.link(runs / NAME / file, many / name / file)
    command = agent_command("serve", "--runs", str(many), "--host", "0.0.0.0", "--no-browser", "--read-only")
    environment = agent_environment(cache)
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:")
    client = Client(int(line.split(":")[2].split("/")[0]), line.strip().partition("?token=")[2], process)
    client.ask("/nothing")  # the templates are read
    before = _processor_seconds(client)
    page = client.page("/")
    seconds = _processor_seconds(client) - before
    assert page.count('<th scope="row">') == 500
    assert seconds < 1, seconds
    assert client.ask("/", headers={})[0] == 403
    assert client.ask("/", headers={**client.cookie, "Host": "evil.example"})[0] == 403
    assert client.ask("/", headers={**client.cookie, "Host": "192.168.1.7:80"})[0] == 200
    assert "read-only" in client.page("/")
    assert "<form" not in client.page(PAGE)
    for path in (f"{PAGE}review", f"{PAGE}submit", f"{PAGE}stop", f"{PAGE}resume", "/new"):
        assert client.post(path, {"kind": "reject", "message": "m"})[0] in (404, 405)
    assert not (many / NAME / "reviews.jsonl").exists()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("", 130)
    assert "other machines can reach 0.0.0.0" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--runs", "FILE"], "not a folder"),
        (["--host", "nowhere.invalid"], "nothing can listen there"),
        (["--host", "8.8.8.8"], "nothing can listen there"),
    ],
)
def test_what_cannot_be_served(main: object, tmp_path: Path, words: list[str], said: str) -> None:
    """A wrong folder, address or port is a usage error."""
    (tmp_path / "FILE").write_text("")
    code, _, err = main("serve", "--no-browser", *words)  # type: ignore[operator]
    assert (code, said in err) == (2, True), err


def _processor_seconds(client: Client) -> float:
    """What the server has used so far. On a busy machine the time on the wall says little."""
    assert client.process is not None
    fields = Path(f"/proc/{client.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
