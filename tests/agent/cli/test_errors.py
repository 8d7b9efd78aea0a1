"""What a person and a program are told when a command ends with an error, and when other files shadow our packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from agent import cli
from agent.cli import _fail
from agent.cli.import_check import require_own_modules
from agent.config import SearchConfig
from agent.errors import AgentError, in_one_sentence
from tests.agent.conftest import ROOT, Main, json_lines
from tests.agent.report_samples import Fields, change_log, copy_run


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("search", "--budget", "0"), 2, "--budget: must be at least 1, but got 0"),
        (("search", "--budget", "x"), 2, "Invalid value for '--budget': must be a whole number"),
        (("check", "none.py", "--arch", "resnet57"), 2, "--arch resnet57: unknown architecture; known: mobilenetv2"),
        (("show", "nothing"), 2, "no run 'nothing'"),
        (("audit", "none.json"), 2, "none.json: no such file"),
        (("runs", "--colour"), 2, "No such option"),
    ],
)
def test_json_errors(main: Main, words: tuple[str, ...], code: int, message: str) -> None:
    """With --json stdout is one object that says what went wrong, whoever found it; stderr stays as without."""
    plain_code, plain_out, plain_err = main(*words)
    assert (plain_code, plain_out) == (code, "")
    assert message in plain_err
    given, out, err = main(*words, "--json")
    assert (given, err) == (code, plain_err)
    (found,) = json_lines(out)
    assert (found["event"], found["exit_code"]) == ("error", code)
    assert message in found["message"]


@pytest.mark.parametrize(
    ("proposer", "message"),
    [
        ("scripted:none.json", "--proposer scripted:none.json: no such file"),
        ("scripted:folder", "--proposer scripted:folder: cannot be read: Is a directory"),
        ("scripted:deep.json", "nested too deeply"),
        ("scripted:broken.json", "not JSON: Expecting"),
        ("transcript:none.json", "--proposer transcript:none.json: no such file"),
    ],
)
def test_unusable_proposer_files_are_said_in_words(main: Main, tmp_path: Path, proposer: str, message: str) -> None:
    """A missing file was answered by “[Errno 2] No such file or directory: 'none.json'”, a deep one by a traceback."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "broken.json").write_text("[{]")
    code, out, err = main("search", "--profile", "smoke", "--proposer", proposer)
    assert (code, out) == (2, "")
    assert message in err
    assert "Errno" not in err


@pytest.mark.parametrize(("content", "says"), [("", "the file is empty"), ("{", "not JSON: Expecting")])
def test_a_summary_that_is_no_json_is_said_to_be_that(main: Main, tmp_path: Path, content: str, says: str) -> None:
    """The whole error was "run.json: Expecting value: line 1 column 1 (char 0)"."""
    (tmp_path / "run.json").write_text(content)
    code, _, err = main("show", str(tmp_path))
    assert code == 1
    assert f"run.json: {says}" in err


def test_a_full_disk_is_said_in_words_and_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json the error could not be printed either: a traceback. The number of an error says nothing to people."""
    assert in_one_sentence(OSError(28, "No space left on device")) == "No space left on device"
    assert in_one_sentence(OSError(28, "No space left on device", "a/b")) == "a/b: No space left on device"
    monkeypatch.setattr(sys, "stdout", Mock(write=Mock(side_effect=OSError(28, "No space left on device"))))
    monkeypatch.setattr(sys, "argv", ["agent", "show", "--json"])
    with pytest.raises(SystemExit) as ended:
        _fail("No space left on device", 1)
    assert ended.value.code == 1


def test_a_folder_in_place_of_a_file_is_said_in_words(main: Main, tmp_path: Path) -> None:
    """It was "cannot be read: [Errno 21] Is a directory: 'folder'"."""
    (tmp_path / "folder").mkdir()
    code, out, err = main("baselines", "--from-config", "folder")
    assert (code, out) == (2, "")
    assert "--from-config folder: cannot be read: Is a directory" in err
    assert "Errno" not in err


def test_a_script_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """A list of calls that Windows saved was refused: "Unexpected UTF-8 BOM"."""
    from agent.proposers.scripted import read_script

    (tmp_path / "calls.json").write_bytes(b"\xef\xbb\xbf" + b'[{"tool": "test", "arguments": {}}]')
    assert read_script(str(tmp_path / "calls.json")).startswith("[")


@pytest.mark.parametrize("words", [("--proposer", "scripted:mine.py"), ("--proposer", "random", "--start", "mine.py")])
def test_a_file_against_the_rules_is_refused_before_anything_starts(
    main: Main, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Such a search trained the baseline for half a minute, then ended with exit 4 and without the reason."""
    (tmp_path / "mine.py").write_text("import os\n\n\ndef initialize_weights(model, config):\n    pass\n")
    code, out, err = main("search", "--profile", "smoke", *words)
    assert (code, out) == (3, "")
    assert "mine.py: refused (isolation): line 1: os cannot be imported" in err
    assert "agent check mine.py" in err
    assert not (tmp_path / "runs").exists()


def test_an_error_of_the_system_has_no_number() -> None:
    """A full disk was answered by "[Errno 28] No space left on device: '…'"."""
    assert (
        in_one_sentence(OSError(28, "No space left on device", "/full/file")) == "/full/file: No space left on device"
    )
    assert in_one_sentence(OSError(28, "No space left on device")) == "No space left on device"
    assert in_one_sentence(OSError("a sentence of ours")) == "a sentence of ours"


def test_a_damaged_run_json_is_said_in_one_sentence(main: Main, tmp_path: Path) -> None:
    """Resuming a run whose configuration was edited printed pydantic's own page of text with a web address."""
    run = tmp_path / "runs" / "edited"
    run.mkdir(parents=True)
    for config, message in (({"budget": 0}, "budget: must be at least"), ([], "config: must be")):
        (run / "run.json").write_text(json.dumps({"status": "interrupted", "profile": "smoke", "config": config}))
        code, _, err = main("search", "--resume", "edited")
        assert code == 1
        assert f"run.json: {message}" in err
        assert err.count("\n") == 1


def test_a_damaged_log_is_said_in_one_sentence(main: Main, tmp_path: Path) -> None:
    """A wrong type in an event, and a wrong setting in the launch, are named with their field and nothing else."""

    def wrong(event: Fields) -> Fields:
        return {**event, "config": {**event["config"], "budget": 0}} if event["kind"] == "launch" else event

    run = copy_run(ROOT / "tests" / "data" / "sample-run", tmp_path / "runs")
    change_log(run, wrong)
    code, out, _ = main("verify", str(run.path))
    assert code == 3
    assert "FAULT the finalists were confirmed: cannot be checked: budget: must be at least" in out
    assert "errors.pydantic.dev" not in out

    change_log(run, lambda event: {**event, "config": 1} if event["kind"] == "launch" else event)
    code, _, err = main("replay", str(run.path))
    assert code == 2
    assert "line 1 is not an event of this version" in err
    assert err.count("\n") == 1


def test_a_validation_error_that_nobody_expected_is_one_sentence(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last resort: exit 1 and a sentence. Any other ValueError is a bug and keeps its traceback."""
    monkeypatch.setattr(cli, "app", lambda **_: SearchConfig.model_validate({"budget": 0}))
    code, _, err = main("runs")
    assert (code, err) == (1, "error: budget: must be at least 1, but got 0\n")
    monkeypatch.setattr(cli, "app", lambda **_: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        cli.main()


@pytest.mark.parametrize("name", ["benchmark.py", "sandbox/__init__.py"])
def test_a_file_that_shadows_our_packages_is_named(tmp_path: Path, name: str) -> None:
    """In a folder with a benchmark.py, `python -m agent doctor` ended with “'benchmark' is not a package”."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise SystemExit('foreign code ran')\n")
    result = subprocess.run(
        [sys.executable, "-m", "agent", "doctor", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert f"error: {file} hides the package {name.split('/')[0].removesuffix('.py')!r}" in result.stderr
    assert "run it from another folder" in result.stderr
    assert result.stderr.count("\n") == 1
    assert json_lines(result.stdout)[0]["exit_code"] == 1


def test_a_package_installed_elsewhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a folder of PYTHONPATH has another `prompts`, the advice is an environment of its own."""
    require_own_modules()
    (tmp_path / "prompts.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "prompts", raising=False)
    with pytest.raises(AgentError, match=r"prompts\.py hides .* an environment of its own"):
        require_own_modules()
