"""A task whose score is val_loss: every command names that metric, and none speaks of points, percent or accuracy."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.analysis.estimate import estimate
from agent.cli.tournament import in_words as estimate_in_words
from agent.llm import prompting
from agent.protocol import Situation
from agent.report.comparison_page import comparison_page, members, pairs, verdicts
from agent.report.findings import find
from agent.report.flags import raise_flags
from agent.report.notebook import run_html
from agent.report.tracker_export import curve_values
from agent.runs.directory import RunDirectory
from agent.runs.events import Launch
from agent.runs.log import read_events
from agent.runs.record import read_run
from agent.sessions.session import Session
from agent.sessions.status import session_status, status_lines
from agent.studies.ablation import _contributions
from agent.studies.tournament import Gains, _gain, differences, overall
from agent.web.shelf import Shelf
from benchmark.task import ACCURACY, Metric
from tests.agent.conftest import Main, Searched
from tests.agent.report_samples import change_log, change_summary, copy_run, write_log

pytestmark = pytest.mark.usefixtures("processes_shared")

LOSS = Metric("val_loss", "minimize")
OTHERS = re.compile(r"\bpoints\b|\baccurac|[0-9] %|, %")
ALLOWED = re.compile(r"9[05](\.\d+)? % interval|power 80 %|\d+ % (of|\()|P\(better\)|probability of 80 %|chance-level")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(cache))


@pytest.fixture
def run(val_loss: Searched, tmp_path: Path) -> RunDirectory:
    """A copy of the run, alone in its folder."""
    return copy_run(val_loss.outcome.run, tmp_path / "runs")


@pytest.fixture
def mixed(run: RunDirectory) -> RunDirectory:
    """The run as if it had a second visible task, whose score is an accuracy and which became 3 points better."""
    ours = {"arch": "resnet20", "dataset": "tiny", "recipe": {"epochs": 1, "lr": 0.1}}

    def change(event: dict[str, Any]) -> dict[str, Any]:
        if event["kind"] == "launch":
            event["tasks"]["visible"].append(ours)
            event["noise"]["resnet20-tiny"] = {"sd": 1.5, "df": 14.0}
        return event

    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    change_log(run, change)
    lines = [json.loads(line) for line in run.events.read_text().splitlines()]
    scored = [event for event in events if event["kind"] == "evaluated"]
    more = [
        {
            **event,
            "task": "resnet20-tiny",
            "accuracy": 23.0 if event["role"].startswith("test/") else 20.0,
            "key": "0" * 64,
        }
        for event in scored
    ]

    at = next(index for index, event in enumerate(lines) if event["kind"] == "test_finished")
    write_log(run, [*lines[:at], *more, *lines[at:]])
    tasks = run.read_summary()["tasks"]
    tasks["visible"].append({"name": "resnet20-tiny", **ours})
    change_summary(run, tasks=tasks)
    return run


def said(text: str) -> list[str]:
    """What a text says of points, percent or accuracy, with the words around it."""
    plain = ALLOWED.sub("", re.sub(r"<style.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL))
    return [plain[max(0, match.start() - 40) : match.end() + 20] for match in OTHERS.finditer(plain)]


def test_commands_that_read_a_run(run: RunDirectory, main: Main) -> None:
    for words in (("show", str(run.path)), ("runs", "--runs", str(run.path.parent)), ("review", str(run.path))):
        code, out, err = main(*words)
        assert code == 0, err
        assert "val_loss" in out, words
        assert "hidden task was not run" not in out  # it has none
        assert said(out.replace("in points, or in the unit beside it", "")) == [], words
    _, out, _ = main("runs", "--runs", str(run.path.parent), "--json")
    (row,) = json.loads(out)["runs"]
    assert (row["visible_unit"], row["visible_gain"] == row["visible_gain"]) == ("val_loss", True)
    _, out, _ = main("runs", "--runs", str(run.path.parent), "--csv")
    assert out.splitlines()[0].endswith(",visible_unit")
    assert main("runs", "--runs", str(run.path.parent), "--html")[0] == 0
    assert "val_loss" in (run.path.parent / "index.html").read_text()
    (shelved,) = Shelf(run.path.parent).rows()
    assert [gain[3] for gain in shelved.visible] == ["val_loss"]


def test_pages(run: RunDirectory) -> None:
    from agent.report import write_report

    page = write_report(run, measure=False).read_text()
    results = page.partition('<section id="results">')[2].partition('<section id="diff">')[0]
    assert "val_loss" in results
    results = re.sub(r'<td class="n" data-of="P\(better\)">.*?</td>', "", results)
    assert said(results.replace("accuracies the best test accuracy over all epochs", "")) == []
    assert "there is no hidden task" in page
    assert "include no hidden one" in page
    search = page.partition('<section id="search">')[2].partition('id="transcript"')[0]
    assert said(search) == []
    assert "torch.fx cannot trace it" not in page
    notebook = run_html(run)
    assert "val_loss" in notebook
    assert said(notebook) == []


def test_a_page_says_what_is_not_known_of_a_network_without_a_graph(run: RunDirectory) -> None:
    from agent.report import write_report

    def change(event: dict[str, Any]) -> dict[str, Any]:
        if event["kind"] == "launch":
            event["tasks"]["visible"][0]["network"]["found"]["traced"] = False
        return event

    change_log(run, change)
    assert "gru-letters: torch.fx cannot trace it" in write_report(run, measure=False).read_text()


def test_comparison_of_runs(run: RunDirectory) -> None:
    other = RunDirectory(Path(shutil.copytree(run.path, run.path.with_name("second"))))
    change_log(
        other,
        lambda event: (
            {**event, "accuracy": event["accuracy"] - 0.5}
            if event["kind"] == "evaluated" and event["role"] == "test/1"
            else event
        ),
    )
    runs = members([run, other])
    (pair,) = pairs(runs)
    assert pair.comparison is not None
    assert pair.comparison.gain == pytest.approx(0.5)  # a lower loss is better
    assert "is better than A (+0.50 val_loss" in verdicts(runs)[0]
    page = comparison_page(runs)
    assert "val_loss" in page
    assert said(page) == []


def test_each_run_says_what_its_scores_are(run: RunDirectory, main: Main) -> None:
    """Of two task files with one name, the run that was read last decided for both: a lower loss counted as a loss."""
    other = RunDirectory(Path(shutil.copytree(run.path, run.path.with_name("second"))))

    def change(event: dict[str, Any]) -> dict[str, Any]:
        if event["kind"] == "launch":
            event["tasks"]["visible"][0]["metric"] = {"name": "bleu", "direction": "maximize"}
        return event

    change_log(other, change)
    alone = [find(read_run(one)).visible["gru-letters"] for one in (run, other)]
    for order in ((run, other), (other, run)):
        runs = members(order)
        assert [one.findings.visible["gru-letters"] for one in runs] == alone[:: 1 if order[0] is run else -1]
        (pair,) = pairs(runs)
        assert pair.comparison is None
        assert "not comparable: " in pair.words
    before, after = alone
    assert before is not None
    assert after is not None
    assert (before.metric, after.metric, before.gain) == (LOSS, Metric("bleu"), -after.gain)
    code, out, said = main("compare", str(run.path), str(other.path), "-o", "page.html")
    assert code == 0, said
    assert "val_loss, minimize, against bleu, maximize" in out


def test_a_log_whose_tasks_cannot_be_read(run: RunDirectory, main: Main) -> None:
    """`agent compare` ended in a traceback. The metric then is the one in run.json."""

    def change(event: dict[str, Any]) -> dict[str, Any]:
        return event | {"tasks": {"visible": [], "hidden": []}} if event["kind"] == "launch" else event

    change_log(run, change)
    other = RunDirectory(Path(shutil.copytree(run.path, run.path.with_name("second"))))
    assert read_run(run).metrics == {"gru-letters": LOSS}
    code, out, said = main("compare", str(run.path), str(other.path), "-o", "page.html")
    assert code == 0, said
    assert "the log's record of its tasks is none" in out


def test_a_comparison_after_the_task_file_was_deleted(run: RunDirectory, main: Main) -> None:
    """Each run's record says the metric; neither the task file nor its code is looked for."""
    gone = str(run.path.parent / "gone" / "task.toml")
    change_summary(run, config=run.read_summary()["config"] | {"profile": gone})
    other = RunDirectory(Path(shutil.copytree(run.path, run.path.with_name("second"))))
    code, out, said = main("compare", str(run.path), str(other.path), "--json", "-o", "page.html")
    assert code == 0, said
    (pair,) = json.loads(out)["pairs"]
    assert (pair["comparison"]["metric"], pair["comparison"]["direction"]) == ("val_loss", "minimize")


def test_flags(run: RunDirectory) -> None:
    record = read_run(run)
    flags = raise_flags(record, find(record), None)
    (small,) = [flag for flag in flags if flag.kind == "small gain"]
    assert "val_loss on gru-letters" in small.message
    assert [said(flag.message) for flag in flags if said(flag.message)] == []


def test_a_plan(val_loss: Searched, main: Main) -> None:
    words = ("plan", "--profile", str(val_loss.task_file), "--budget", "1", "--workers", "1", "--effect", "0.3")
    code, out, err = main(*words)
    assert code == 0, err
    assert "smallest detectable effect 0." in out
    assert "to detect 0.3 val_loss" in out
    assert said(out) == []


def test_prompts_use_the_noise_of_the_record(run: RunDirectory) -> None:
    """The prompt spoke of about 2 points of noise, a guess for tasks that are not known, whatever the run recorded."""
    launch = read_events(run.events)[0].event
    assert isinstance(launch, Launch)
    profile = read_run(run).own_profile()
    baseline = {"gru-letters": {0: 3.1}}
    situation = Situation("init.py", "", (1, 2), 3, (), baseline, None, noise=launch.noise)
    for text in (
        prompting.task_prompt(profile, situation, budget=3, seeds=(0,), networks=False),
        prompting.baseline_note(profile, situation, (0,)),
    ):
        assert "val_loss 3.100" in text
        assert "0.05 val_loss" in text
        assert said(text.partition("# The file")[0]) == []
    louder = {name: replace(one, sd=0.4) for name, one in (launch.noise or {}).items()}
    assert "0.4 val_loss" in prompting.baseline_note(profile, replace(situation, noise=louder), (0,))
    assert "not known" in prompting.baseline_note(
        profile, replace(situation, noise={name: replace(one, df=0.0) for name, one in louder.items()}), (0,)
    )


def test_the_status_of_a_session(run: RunDirectory) -> None:
    """Its noise was that of a table, in points, and a lower loss was a negative gain."""
    change_summary(run, config=run.read_summary()["config"] | {"proposer": "session"})
    change_log(run, lambda event: {**event, "accuracy": 1.0} if event.get("role") == "test/1" else event)
    change_log(
        run,
        lambda event: (
            {**event, "accuracies": {"gru-letters": {"0": 1.0}}} if event["kind"] == "test_finished" else event
        ),
    )
    found = session_status(Session(run, None))
    shown = json.loads(json.dumps(found.as_json()))
    baseline = shown["baseline"]["gru-letters"]
    assert baseline["noise_sd"] == 0.05
    assert (baseline["metric"], baseline["direction"], shown["unit"]) == ("val_loss", "minimize", "val_loss")
    assert shown["tests"][0]["gain"] > 1
    lines = "\n".join(status_lines(found))
    assert "0.05 val_loss" in lines
    assert said(lines) == []


def test_trackers_get_the_numbers_of_the_trainer(run: RunDirectory) -> None:
    """An own trainer's curve arrived as five series of NaN."""
    result = next(iter(read_run(run).results.values()))
    assert set(dict(curve_values(result.curve[-1]))) == {"train_loss", "val_loss"}
    live = [json.loads(line) for line in (run.path / "live.jsonl").read_text().splitlines()]
    epochs = [line for line in live if line["kind"] == "epoch"]
    assert {line["metric"]["name"] for line in epochs} == {"val_loss"}
    assert all("accuracy" not in line and line["score"] == line["own"]["val_loss"] for line in epochs)


def test_unlike_metrics_are_not_averaged(mixed: RunDirectory) -> None:
    """`+1.48 points` was the mean of 3 points of accuracy and 0.04 of a loss."""
    record = read_run(mixed)
    findings = find(record)
    one = findings.tests[0].overall
    assert one is not None
    loss = findings.visible["gru-letters"]
    assert loss is not None
    assert one.gain == pytest.approx((3.0 / 1.5 + loss.gain / 0.05) / 2)
    assert "seed SD" in findings.verdict
    assert findings.tests[0].mean is None
    assert re.fullmatch(r"val_loss \d\.\d+, 23\.00 %", findings.tests[0].words)
    assert "23.00 %" in run_html(mixed)


def test_an_ablation_in_the_metric(run: RunDirectory) -> None:
    """A variant with a higher loss lost something; where no noise is known nothing failed."""
    metrics = read_run(run).metrics
    found = _contributions(
        "letters", {"gru-letters": {5: 2.0}}, {"hunk 1": {"gru-letters": {5: 2.5}}}, metrics=metrics
    )["hunk 1"]
    assert found.gain == pytest.approx(0.5)


def gains(*values: float) -> list[Gains]:
    return [{"gru-letters": value} for value in values]


def test_a_contest_in_the_metric(run: RunDirectory) -> None:
    """A lower loss counted as a loss of the contest, and a failed training as the best loss of all, 0."""
    profile = read_run(run).own_profile()
    assert _gain(profile, {"gru-letters": {0: 2.0}}, {"gru-letters": {0: 1.5}}) == {"gru-letters": 0.5}
    failed = _gain(profile, {"gru-letters": {0: 2.0}}, {"gru-letters": {0: None}})
    assert failed["gru-letters"] != failed["gru-letters"]
    words = estimate_in_words(overall([*gains(0.5), failed], {"gru-letters": LOSS}).as_json(), LOSS)
    assert words == "failed in 1 of 2 repeats: no mean"
    assert "+0.5000 val_loss" in estimate_in_words(estimate([0.5, 0.5]).as_json(), LOSS)
    two = [{"a": 1.0, "b": 2.0}]
    assert differences(two, two, 0.95, {"a": LOSS, "b": ACCURACY}).as_json()["gain"] is None
    assert profile.metrics == {"gru-letters": LOSS}
