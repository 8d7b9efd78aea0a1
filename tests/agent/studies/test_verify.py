"""`agent verify`: an intact run passes, and whatever is changed afterwards is found."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from agent.engine.search import SearchOutcome
from agent.errors import Interrupted, UsageError
from agent.report import _measure_now
from agent.runs.directory import RunDirectory
from agent.runs.record import read_run
from agent.runs.reviews import add_review, standing
from agent.runs.signing import examine, sign
from agent.studies.verify import _judge, verify
from agent.studies.verify_files import Check, Finding, _ratio_fits
from benchmark.store import ResultStore
from sandbox.isolate import Isolation
from tests.agent.conftest import Agent, Main, json_lines
from tests.agent.report_samples import change_log, change_summary
from tests.sample import SAMPLE, restore

pytestmark = pytest.mark.usefixtures("drawn_once")


def test_intact_run_passes_and_trains_to_the_same_accuracy(agent: Agent, finished: SearchOutcome) -> None:
    """`agent verify RUN --execute`: everything fits, one training again gives the recorded accuracy; exit 0."""
    result = agent("verify", str(finished.run), "--execute", "--json")
    (found,) = json_lines(result.stdout)
    assert result.returncode == 0, found
    assert found["intact"]
    assert len(found["checks"]) == 13


def test_a_wheel_whose_metadata_lack_the_local_version(finished: SearchOutcome, tmp_path: Path) -> None:
    """With torch from the index verify called each honest run faulty: "versions.torch is 2.14.1, not 2.14.1+cu130"."""
    run = RunDirectory(shutil.copytree(finished.run, tmp_path / finished.run.name))
    versions = run.read_summary()["versions"]
    for version, told in ((versions["torch"].partition("+")[0], None), ("2.0.0", "versions.torch is 2.0.0")):
        change_summary(run, versions={**versions, "torch": version})
        [fault] = [check.fault for check in verify(run) if check.what == "run.json agrees with the log"]
        assert fault is None if told is None else told in str(fault)


def _raise_accuracy_in_result(run: Path) -> None:
    path = next((run / "results").glob("*.json"))
    envelope = json.loads(path.read_text())
    envelope["result"]["best_test_acc"] += 1
    path.write_text(json.dumps(envelope))


def _raise_gain_in_summary(run: Path) -> None:
    summary = json.loads((run / "run.json").read_text())
    summary["hidden"]["mobilenetv2-tiny"]["submitted"] += 1
    (run / "run.json").write_text(json.dumps(summary))


def _edit_log(run: Path) -> None:
    log = run / "events.jsonl"
    log.write_text(log.read_text(encoding="utf-8").replace('"number": 1', '"number": 2', 1), encoding="utf-8")


def _change_patch(run: Path) -> None:
    patch = run / "submission.patch"
    text = patch.read_text(encoding="utf-8")
    number = text.index("\n+    ") + 1
    patch.write_text(text[:number] + text[number:].replace("+    ", "+     ", 1), encoding="utf-8")


def _change_workspace(run: Path) -> None:
    file = run / "workspace" / "sandbox" / "custom_init.py"
    file.write_text(file.read_text(encoding="utf-8") + "# more\n", encoding="utf-8")


def _cut_log(run: Path) -> None:
    """The hidden results and the end are cut off; the chain of what is left is unbroken."""
    log = run / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-3]))


def _cut_last_line(run: Path) -> None:
    log = run / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))


def _delete_result(run: Path) -> None:
    next((run / "results").glob("*.json")).unlink()


def _raise_hidden_result_with_its_checksum(run: Path) -> None:
    store = ResultStore(run / "hidden")
    result = store.get(next(store.folder.glob("*.json")).stem)
    assert result is not None
    curve = tuple(epoch.model_copy(update={"test_acc": 99.0}) for epoch in result.curve)
    store.put(result.model_copy(update={"best_test_acc": 99.0, "curve": curve}))


def _move_tag(run: Path) -> None:
    """Tag test/2 is made to name the baseline's commit."""
    tags = run / "workspace" / ".git" / "refs" / "tags"
    shutil.copy(tags / "baseline", tags / "test" / "2")


def _change_module(run: Path) -> None:
    with (run / "initialize_weights.py").open("a", encoding="utf-8") as module:
        module.write("    model.apply(print)\n")


def _claim_another_submission(run: Path) -> None:
    summary = json.loads((run / "run.json").read_text())
    summary["submitted_test"] = 3 - summary["submitted_test"]
    (run / "run.json").write_text(json.dumps(summary))


@pytest.mark.parametrize(
    ("harm", "check"),
    [
        (_cut_log, "run.json agrees with the log"),
        (_cut_last_line, "run.json agrees with the log"),
        (_delete_result, "each recorded accuracy has its result file"),
        (_raise_hidden_result_with_its_checksum, "each recorded accuracy has its result file"),
        (_move_tag, "git holds the regions that the log names"),
        (_change_module, "the patch and the module are the submission"),
        (_claim_another_submission, "run.json agrees with the log"),
        (_raise_accuracy_in_result, "each recorded accuracy has its result file"),
        (_raise_gain_in_summary, "run.json agrees with the log"),
        (_edit_log, "the event log is unbroken"),
        (_change_patch, "the patch and the module are the submission"),
        (_change_workspace, "git holds the regions that the log names"),
    ],
)
def test_what_was_changed_is_found(
    finished: SearchOutcome, tmp_path: Path, harm: Callable[[Path], None], check: str
) -> None:
    """One changed file, one fault, in the check that is about it."""
    run = tmp_path / "run"
    shutil.copytree(finished.run, run, symlinks=True)
    assert all(found.fault is None for found in verify(RunDirectory(run)))
    harm(run)
    assert [found.what for found in verify(RunDirectory(run)) if found.fault] == [check]


LOG_CHECK, RESULTS, SUMMARY = (
    "patch and reviews name this log",
    "each recorded accuracy has its result file",
    "run.json agrees with the log",
)
FILES, GIT, PAGE = (
    "the patch and the module are the submission",
    "git holds the regions that the log names",
    "the page shows what the files say",
)
NETWORK, REVIEWS = "network.json is about the submission", "no review was changed or removed"
TASK, HIDDEN = "resnet20-tiny", "mobilenetv2-tiny"


def _in_summary(*path: str | int, value: object) -> Callable[[Path], None]:
    def harm(run: Path) -> None:
        summary = json.loads((run / "run.json").read_text())
        place = summary
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        (run / "run.json").write_text(json.dumps(summary))

    return harm


def _in_result(**changes: Any) -> Callable[[Path], None]:
    """A result of the baseline or a test, changed with its checksum."""

    def harm(run: Path) -> None:
        store = ResultStore(run / "results")
        result = store.get(next(store.folder.glob("*.json")).stem)
        assert result is not None
        zero = result.step_zero.model_copy(update={"suspicious": changes.get("suspicious", False)})
        update = {"step_zero": zero, **{name: value for name, value in changes.items() if name != "suspicious"}}
        store.put(result.model_copy(update=update))

    return harm


def _replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def harm(run: Path) -> None:
        text = (run / file).read_text(encoding="utf-8")
        assert old in text
        (run / file).write_text(text.replace(old, new, 1), encoding="utf-8")

    return harm


def _add_conftest(run: Path) -> None:
    more = "diff --git a/conftest.py b/conftest.py\nnew file mode 100644\n--- /dev/null\n+++ b/conftest.py\n"
    _replace("submission.patch", "\n-- \n", f"\n{more}@@ -0,0 +1 @@\n+print(1)\n-- \n")(run)


def _extra_tag(run: Path) -> None:
    tags = run / "workspace" / ".git" / "refs" / "tags"
    shutil.copy(tags / "baseline", tags / "test" / "9")


def _remove_rejection(run: Path) -> None:
    directory = RunDirectory(run)
    add_review(directory, "reject", "no")
    add_review(directory, "comment", "hm")
    lines = (run / "reviews.jsonl").read_text().splitlines(keepends=True)
    (run / "reviews.jsonl").write_text("".join(lines[1:]))


def _add_old_line(run: Path) -> None:
    add_review(RunDirectory(run), "reject", "no")
    add_review(RunDirectory(run), "approve", "")
    lines = (run / "reviews.jsonl").read_text().splitlines()
    fields = json.loads(lines[1])
    for name in ("log_sha256", "previous", "signature"):
        del fields[name]
    (run / "reviews.jsonl").write_text(f"{lines[0]}\n{json.dumps(fields | {'schema': 1})}\n")


def _rewrite_log(run: Path) -> None:
    """The log anew, with a right chain, another date and the patch of old: an approval stood after that."""
    add_review(RunDirectory(run), "approve", "")
    assert standing(RunDirectory(run)).approved
    change_log(RunDirectory(run), lambda event: event | {"seconds": 1.0} if event["kind"] == "evaluated" else event)
    assert not standing(RunDirectory(run)).approved


@pytest.mark.parametrize(
    ("harm", "check", "said"),
    [
        (_add_conftest, FILES, "submission.patch is not what the log gives"),
        (_replace("submission.patch", " # ==== EDITABLE", "-# ==== EDITABLE"), FILES, "submission.patch"),
        (_replace("submission.patch", "initsearch@localhost", "you@example.org"), FILES, "submission.patch"),
        (_replace("initialize_weights.py", "import torch\n", "import os\nos.system('true')\n"), FILES, "line"),
        (_replace("initialize_weights.py", "visible resnet20", "visible resnet56"), FILES, "resnet56"),
        (_in_summary("visible", TASK, "gain", value=9.0), SUMMARY, f"visible.{TASK}.gain is 9.0"),
        (_in_summary("hidden", HIDDEN, "ci", value=[1.0, 2.0]), SUMMARY, f"hidden.{HIDDEN}.ci[0] is 1.0"),
        (_in_summary("hidden", HIDDEN, "resolved", value="proven"), SUMMARY, "proven"),
        (_in_summary("words", 1, value="visible: it is great"), SUMMARY, "it is great"),
        (_in_summary("profile", value="paper"), SUMMARY, 'profile is "paper"'),
        (_in_summary("seeds", value=[7]), SUMMARY, "seeds[0] is 7"),
        (_in_summary("isolation_level", value="none"), SUMMARY, 'isolation_level is "none"'),
        (_in_summary("isolation", "level", value="none"), SUMMARY, "isolation.level"),
        (_in_summary("config", "proposer", value="random"), SUMMARY, "config.proposer"),
        (_in_summary("tests", 0, "region_sha256", value="0" * 64), SUMMARY, "tests[0].region_sha256"),
        (_in_result(isolation_level="none"), RESULTS, "isolation level none"),
        (_in_result(suspicious=True), RESULTS, "was not at chance"),
        (_in_result(seed=5), RESULTS, "seed 5"),
        (_in_result(task="vgg"), RESULTS, "task vgg"),
        (_in_result(region_sha256="0" * 64), RESULTS, "another region"),
        (_in_result(last_test_acc=99.0), RESULTS, "99.0 for the last epochs"),
        (_extra_tag, GIT, "tag test/9"),
        (_replace("report.html", "<h1>", "<h1>Best "), PAGE, "from line"),
        (_replace("network.json", '"submission": "', '"submission": "0'), NETWORK, "regions.submission"),
        (_replace("network.json", '"kaiming_ratio": ', '"kaiming_ratio": 1'), NETWORK, "does not follow"),
        (_remove_rejection, REVIEWS, "line 1 (comment by"),
        (_add_old_line, REVIEWS, "line 2 was put in"),
        (_rewrite_log, LOG_CHECK, "another log"),
    ],
)
def test_each_contradiction_is_named(
    finished: SearchOutcome, tmp_path: Path, harm: Callable[[Path], None], check: str, said: str
) -> None:
    """All of these passed: `verify` looked at the patch's region, at accuracies and at the end of the module only."""
    run = copy(finished, tmp_path)
    harm(run)
    found = {one.what: one.fault or "" for one in verify(RunDirectory(run))}
    assert said in found[check]
    if check == PAGE:
        assert [what for what, fault in found.items() if fault] == [check]


def copy(finished: SearchOutcome, folder: Path) -> Path:
    return Path(shutil.copytree(finished.run, folder / "run", symlinks=True))


def test_nobody_approves_what_was_not_shown(finished: SearchOutcome, tmp_path: Path, agent: Agent) -> None:
    """`review --approve` took a patch that also added conftest.py; now it exits with 3 and writes nothing down."""
    run = copy(finished, tmp_path)
    _add_conftest(run)
    refused = agent("review", str(run), "--approve")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "submission.patch is not what the log gives" in refused.stderr
    assert not (run / "reviews.jsonl").exists()
    assert agent("review", str(run), "--reject", "-m", "conftest.py").returncode == 3


def test_lines_that_extend_the_log_leave_an_approval_in_force(finished: SearchOutcome, tmp_path: Path) -> None:
    """Approved while the run waited, with the hidden task run afterwards."""
    run = copy(finished, tmp_path)
    log = (run / "events.jsonl").read_bytes()
    (run / "events.jsonl").write_bytes(b"".join(log.splitlines(keepends=True)[:-3]))
    add_review(RunDirectory(run), "approve", "")
    (run / "events.jsonl").write_bytes(log)
    assert standing(RunDirectory(run)).approved
    assert all(check.fault is None for check in verify(RunDirectory(run)))


def test_what_cannot_be_proven_is_said(finished: SearchOutcome, tmp_path: Path, main: Main) -> None:
    """An intact run has things that its files cannot show; each check has a name, a verdict and a detail; exit 0."""
    run = copy(finished, tmp_path)
    head = hashlib.sha256((run / "events.jsonl").read_bytes().splitlines()[-1]).hexdigest()
    code, shown, _ = main("verify", str(run), "--json")
    (found,) = json_lines(shown)
    assert (code, found["intact"], found["log_sha256"]) == (0, True, head)
    verdicts = {one["name"]: one["verdict"] for one in found["checks"]}
    assert {verdicts[name] for name in (SUMMARY, RESULTS, FILES, GIT, PAGE, LOG_CHECK)} == {"ok"}
    assert verdicts["what these files cannot prove"] == verdicts[NETWORK] == "not_verifiable"
    assert head in (run / "report.html").read_text(encoding="utf-8")
    assert head in main("verify", str(run))[1]


def test_nothing_submitted_yet(finished: SearchOutcome, tmp_path: Path) -> None:
    """A run that was cut off before it submitted: said to be so, and no fault."""
    run = RunDirectory(copy(finished, tmp_path))
    change_log(run, lambda event: event if event["kind"] == "launch" or event.get("role") == "baseline" else None)
    later = ("tests", "tests_used", "submitted_test", "visible", "hidden", "generalisation", "words")
    change_summary(run, **dict.fromkeys(later), status="interrupted")
    shutil.rmtree(run.workspace / ".git" / "refs" / "tags" / "test")
    shutil.rmtree(run.workspace / ".git" / "refs" / "tags" / "submit")
    found = {check.what: check for check in verify(run)}
    assert [check.fault for check in found.values() if check.fault] == []
    assert (found[FILES].verdict, found[FILES].detail) == ("not_verifiable", "nothing submitted yet")


def test_artifacts_of_another_version(tmp_path: Path) -> None:
    """The kept sample has a patch without trailers: its effect is compared, and the rest is not verifiable."""
    run = restore(SAMPLE, tmp_path / "sample")
    found = {check.what: check for check in verify(run)}
    assert found[FILES].verdict == "not_verifiable"
    assert found["the finalists were confirmed"].detail == "none was asked for"  # it said "ok" and no more
    for harm in (_add_conftest, _replace("initialize_weights.py", "import torch\n", "import os, torch\n")):
        run = restore(SAMPLE, tmp_path / harm.__qualname__.replace("<", "").replace(">", ""))
        harm(run.path)
        assert {check.what: check.verdict for check in verify(run)}[FILES] == "differs"
    run = restore(SAMPLE, tmp_path / "intervals")
    _in_summary("visible", "vgg16bn-openclipart100", "ci", value=[3.0, 12.0])(run.path)
    assert {check.what: check.verdict for check in verify(run)}[SUMMARY] == "not_verifiable"
    _in_summary("visible", "vgg16bn-openclipart100", "gain", value=12.0)(run.path)
    assert {check.what: check.verdict for check in verify(run)}[SUMMARY] == "differs"


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_a_signed_approval(finished: SearchOutcome, tmp_path: Path, agent: Agent) -> None:
    """Signed with an ssh key: unchecked without a list, ok with one, and found when the line or the list is another.

    A review by "X" with ada's signature was "ok", and nothing said that it was hers.
    """
    run = copy(finished, tmp_path)
    for name in ("ada", "eve"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
        key = (tmp_path / f"{name}.pub").read_text()
        (tmp_path / f"only-{name}").write_text(f"{name}@example.org {key}")
    assert agent("review", str(run), "--approve", "--sign", str(tmp_path / "none")).returncode == 2
    assert agent("review", str(run), "--approve", "--sign", str(tmp_path / "ada")).returncode == 0
    assert standing(RunDirectory(run)).approved

    def of_reviews(allowed: str | None = None) -> Check:
        signers = None if allowed is None else tmp_path / allowed
        checks = verify(RunDirectory(run), allowed_signers=signers)
        return next(check for check in checks if check.what == REVIEWS)

    assert of_reviews().verdict == "not_verifiable"
    assert re.search(r"signed by SHA256:\S+, not checked against a list", of_reviews().detail)
    assert of_reviews("only-ada").verdict == "ok"
    assert re.fullmatch(r"approved by .+: signed by ada@example\.org", of_reviews("only-ada").detail)
    assert "does not allow" in of_reviews("only-eve").detail
    with pytest.raises(UsageError, match="no such file"):
        of_reviews("absent")
    _replace("reviews.jsonl", '"message": ""', '"message": "after a long look"')(run)
    assert "its signature does not fit" in of_reviews("only-ada").detail


def test_a_signal_is_no_finding(tmp_path: Path) -> None:
    """Ctrl-C while a page was written or a run verified was taken for a fault: the command went on and ended with 0."""

    def stopped() -> Iterator[Finding]:
        raise Interrupted(2)
        yield ""

    def measure(isolation: Isolation) -> dict[str, Any]:
        raise Interrupted(2)

    with pytest.raises(Interrupted):
        _judge("what", stopped)
    record = read_run(restore(SAMPLE, tmp_path / "run"))
    with pytest.raises(Interrupted):
        _measure_now(record, cast(Isolation, object()), measure, lambda run, fields: None)


def test_without_ssh_keygen(finished: SearchOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature can neither be made nor checked, and a sentence says so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "key").touch()
    with pytest.raises(UsageError, match="ssh-keygen was not found"):
        sign(b"text", tmp_path / "key")
    assert "ssh-keygen was not found" in str(examine(b"text", "signature").unproven)


def test_the_ratio_of_a_bias_is_that_of_its_layer() -> None:
    """A region that draws biases, too, was honest, and `verify` found a fault in its network.json."""
    shapes = {"fc.weight": [10, 200], "fc.bias": [10]}
    row = {"name": "fc.bias", "shape": [10], "std": 0.05, "kaiming_ratio": 0.5}
    assert _ratio_fits(row, shapes)
    assert not _ratio_fits({**row, "kaiming_ratio": 0.6}, shapes)
    assert not _ratio_fits(row, {"fc.bias": [10]})
    assert _ratio_fits({**row, "kaiming_ratio": None}, shapes)


def test_the_ratio_of_a_parameter_that_a_module_holds_itself() -> None:
    """`verify` found a fault in the page of any network with a LayerScale or a class token, which have no weight."""
    row = {"name": "block.gamma", "shape": [8, 2, 1], "std": 0.05, "kaiming_ratio": 0.05}
    assert _ratio_fits(row, {"block.gamma": [8, 2, 1]})
    assert not _ratio_fits(row, {"block.gamma": [8, 8, 1]})
