"""The command as people and programs use it: output, exit codes, bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import typer

from agent.cli.app import app
from agent.cli.check import run_check
from agent.config import SearchConfig
from agent.engine.search import SearchOutcome
from agent.evaluation.engines import chosen_engine
from sandbox.isolate import Isolation, Limits
from tests.agent.conftest import ROOT, Agent, agent_command, json_lines

CALLS = [
    {"tool": "edit", "arguments": {"op": "replace", "filename": "sandbox/custom_init.py"}},
    {"tool": "dance", "arguments": {}},
    {"tool": "test", "arguments": {}},
    {"tool": "test", "arguments": {}},
    {"tool": "submit", "arguments": {"n": 2}},
    {"tool": "submit", "arguments": {"n": 1}},
]


def test_search_json_prints_the_two_contract_lines(agent: Agent, tmp_path: Path) -> None:
    """stdout of `agent search --json` is a launch line and a done line; all else is on stderr."""
    (tmp_path / "calls.json").write_text(json.dumps(CALLS))
    result = agent("search", "--profile", "smoke", "--budget", "1", "--proposer", "scripted:calls.json", "--json")
    assert result.returncode == 0, result.stderr
    launch, done = json_lines(result.stdout)
    assert launch["event"] == "launch"
    assert (launch["profile"], launch["budget"]) == ("smoke", 1)
    assert Path(launch["run"]).is_dir()
    assert done["event"] == "done"
    assert (done["status"], done["tests_used"], done["submitted_test"]) == ("submitted", 1, 1)
    assert set(done["visible"]["resnet20-tiny"]) >= {"baseline", "submitted", "gain", "ci"}
    assert set(done["hidden"]["mobilenetv2-tiny"]) >= {"baseline", "submitted", "gain", "ci"}
    assert set(done["seconds"]) == {"total", "training", "proposer", "isolation", "other"}
    assert "next: agent show" in result.stderr
    assert "\x1b" not in result.stderr

    replies = {
        (event["step"], event["ok"]): event["reply"]
        for event in map(json.loads, (Path(launch["run"]) / "events.jsonl").read_text().splitlines())
        if event["kind"] == "tool_replied"
    }
    assert "ERROR: Invalid arguments for 'edit'" in replies[1, False]
    assert replies[2, False].startswith("ERROR: Unknown tool 'dance'")
    assert replies[3, True].startswith("[Test #1] (0 tests remaining)")
    assert "test_acc_resnet20-tiny=" in replies[3, True]
    assert "costs nothing" in replies[4, True]
    assert "no test #2" in replies[5, False]
    assert replies[6, True].startswith("[submit] Submitting result from test #1 as final.")


def test_nothing_to_submit_is_exit_4(agent: Agent, tmp_path: Path) -> None:
    """A search whose candidate is refused spends no test, submits nothing, and says so by its exit code."""
    (tmp_path / "bad.json").write_text(
        json.dumps(
            [
                {
                    "tool": "rewrite",
                    "arguments": {"content": "def initialize_weights(model, config):\n    return 1 / 0\n"},
                },
                {"tool": "test"},
            ]
        )
    )
    result = agent("search", "--profile", "smoke", "--budget", "1", "--proposer", "scripted:bad.json", "--json")
    done = json_lines(result.stdout)[-1]
    assert (result.returncode, done["tests_used"], done["submitted_test"]) == (4, 0, None)
    assert done["hidden"] == {}
    assert not (Path(done["run"]) / "hidden").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("search", "--budget", "0"), 2, "--budget"),
        (("search", "--budget", "-1"), 2, "--budget"),
        (("search", "--budget", "x"), 2, "--budget"),
        (("search", "--profile", "pokcet"), 2, "--profile"),
        (("search", "--profile", "smoke", "--proposer", "optina"), 2, "did you mean 'optuna'"),
        (("search", "--profile", "smoke", "--proposer", "scripted:none.json"), 2, "none.json"),
        (("search", "--profile", "smoke", "--start", "fixpu"), 2, "fixup"),
        (("search", "--profile", "paper", "--data-root", "/nowhere"), 2, "/nowhere"),
        (("search", "--resume", "nothing"), 2, "nothing"),
        (("check", "none.py"), 2, "no such file"),
        (("check", "none.py", "--arch", "resnet57"), 2, "resnet56"),
        (("show", "nothing"), 2, "agent runs"),
        (("serch",), 2, "search"),
    ],
)
def test_bad_words_say_what_and_where(
    agent: Agent, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    """A wrong flag, name or file is exit 2 with a message that names it, and leaves no run behind."""
    result = agent(*words)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("x = 1\n", "signature"),
        ("def initialize_weights(model):\n    pass\n", "signature"),
        ("def initialize_weights(model, config):\n    if True\n", "syntax"),
        ("def initialize_weights(model, config):\n    pass\n", "unset_parameter"),
        (
            "def initialize_weights(model, config):\n    for p in model.parameters():\n"
            "        nn.init.constant_(p, float('nan'))\n",
            "not_finite",
        ),
        (
            "def initialize_weights(model, config):\n    for p in model.parameters():\n"
            "        p.data = torch.zeros(3)\n",
            "shape",
        ),
        ("# " + "x" * 17_000, "too_large"),
        ("# ==== EDITABLE REGION: begin ====\n", "outside_region"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_check_rejects_with_the_right_kind(agent: Agent, tmp_path: Path, text: str, kind: str) -> None:
    """`agent check FILE --json`: exit 3 and the kind of the contract."""
    (tmp_path / "region.py").write_text(text)
    result = agent("check", "region.py", "--arch", "resnet20", "--json")
    (report,) = json_lines(result.stdout)
    assert (result.returncode, report["accepted"], report["kind"]) == (3, False, kind), report
    assert report["message"]


@pytest.mark.usefixtures("processes_shared")
def test_check_rejects_what_never_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An endless loop: exit 3 and the kind `timeout`, here after a second of processor time instead of fifteen."""
    monkeypatch.setattr("sandbox.isolate.Isolation", partial(Isolation, limits=Limits(cpu_seconds=1)))
    file = tmp_path / "region.py"
    file.write_text("def initialize_weights(model, config):\n    while True:\n        pass\n")
    assert run_check(file, ["resnet20"], "auto", as_json=True) == 3
    (report,) = json_lines(capsys.readouterr().out)
    assert (report["accepted"], report["kind"]) == (False, "timeout")
    assert report["message"]


def test_check_accepts_a_recipe_and_describes_the_parameters(agent: Agent, tmp_path: Path) -> None:
    """An accepted region: exit 0, every parameter with its statistics, in the model's order."""
    from benchmark.models import build_model
    from benchmark.recipes import get_recipe

    (tmp_path / "region.py").write_text(get_recipe("zero_last_gamma").region)
    result = agent("check", "region.py", "--arch", "resnet20", "--json")
    (report,) = json_lines(result.stdout)
    assert (result.returncode, report["accepted"], report["kind"]) == (0, True, None)
    parameters = report["archs"]["resnet20"]["parameters"]
    expected = build_model("resnet20", 100).named_parameters()
    assert [(p["name"], p["shape"]) for p in parameters] == [(name, list(p.shape)) for name, p in expected]
    gamma = next(p for p in parameters if p["name"] == "layer1.0.bn2.weight")
    assert (gamma["mean"], gamma["std"], gamma["norm"]) == (0, 0, 0)


def test_show_and_runs_know_the_finished_run(agent: Agent, finished: SearchOutcome) -> None:
    """A finished run is listed and shown, for people and for programs."""
    runs = str(finished.run.parent)
    (listing,) = json_lines(agent("runs", "--runs", runs, "--json").stdout)
    assert [row["name"] for row in listing["runs"]] == [finished.run.name]
    assert finished.run.name in agent("runs", "--runs", runs).stdout
    (shown,) = json_lines(agent("show", "latest", "--runs", runs, "--json").stdout)
    assert shown["submitted_test"] == finished.done["submitted_test"]
    text = agent("show", finished.run.name[-4:], "--runs", runs).stdout
    assert "<- submitted" in text
    assert "Subject: [PATCH]" in text


def test_plan_measures_and_adds_up(agent: Agent) -> None:
    """`agent plan --json`: trainings, seconds and the smallest detectable effect for each task.

    It promised 13 s for a search of 119 s: the start and the page were left out.
    """
    (plan,) = json_lines(agent("plan", "--profile", "smoke", "--budget", "4", "--seeds", "2", "--json").stdout)
    assert {task["name"]: task["evaluations"] for task in plan["tasks"]} == {"resnet20-tiny": 10, "mobilenetv2-tiny": 4}
    alone = sum(task["evaluations"] * task["seconds"] for task in plan["tasks"]) / plan["slots"]
    assert plan["seconds"] > alone + plan["overhead"]["start"] + plan["overhead"]["page"] - 0.5
    assert min(plan["overhead"].values()) > 0
    assert plan["environment"]["precision"] in ("bf16", "fp32")
    assert all(task["smallest_visible_effect"] > 0 for task in plan["tasks"])


def test_doctor_examines_what_a_search_would_use_and_says_how_to_get_data(agent: Agent, tmp_path: Path) -> None:
    """`doctor --executor auto` asked for submitit on a machine without Slurm; an address alone was ignored.

    Missing data had the line "cifar10: no (cifar10 is not on this machine. Looked in:)", and nothing followed.
    """
    config, (note,) = chosen_engine(SearchConfig(executor="auto"))
    found = agent("doctor", "--executor", "auto", env={"INITSEARCH_DATA_ROOT": str(tmp_path)})
    lines = found.stdout.splitlines()
    assert note in found.stderr
    assert any(line.startswith("isolation ") for line in lines) == (config.executor == "local")
    assert any(
        line.startswith("data        cifar10: no (To get it: download it (--download); or name the folder")
        for line in lines
    )
    for flags, message in (
        (("--ray-address", "auto"), "--ray-address: needs --executor ray"),
        (("--slurm", "time=3"), "--slurm: needs --executor slurm"),
    ):
        refused = agent("doctor", *flags)
        assert (refused.returncode, message in refused.stderr) == (2, True), refused.stderr


def test_doctor_says_what_works(agent: Agent) -> None:
    """`agent doctor` on a machine that can search: exit 0, and it never shows a key."""
    result = agent("doctor", "--json", env={"OPENAI_API_KEY": "sk-do-not-print-me"})
    (found,) = json_lines(result.stdout)
    assert result.returncode == 0, found["problems"]
    assert found["ready"]
    assert found["data"]["openclipart100"]["available"]
    assert found["torchvision"]["imports"] or "next: pip install" in found["torchvision"]["reason"]
    assert "do-not-print-me" not in result.stdout + result.stderr


def test_a_search_says_that_its_results_stay_in_its_run(agent: Agent, tmp_path: Path) -> None:
    """Where the cache cannot be written, the search goes on, and one line names the folder and the reason."""
    (tmp_path / "file").write_text("")
    words = ("search", "--profile", "smoke", "--budget", "1", "--proposer", "scripted:demo", "--no-page")
    result = agent(*words, env={"INITSEARCH_CACHE_DIR": str(tmp_path / "file" / "cache")})
    assert result.returncode == 0, result.stderr
    assert f"no result can be kept for other searches: {tmp_path / 'file'}" in result.stderr
    assert ": Not a directory; INITSEARCH_CACHE_DIR can name another folder" in result.stderr
    assert "Errno" not in result.stderr


def test_no_git_is_said_before_anything_is_trained(agent: Agent, tmp_path: Path) -> None:
    """On a machine without git the search stops with the name of the package to install."""
    empty = tmp_path / "bin"
    empty.mkdir()
    result = agent("search", "--profile", "smoke", "--budget", "1", env={"PATH": str(empty)})
    assert result.returncode == 2
    assert "apt install git" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_help_is_quick_and_begins_with_examples(agent: Agent) -> None:
    """--help imports nothing heavy; every command's help starts with examples."""
    script = (
        "import sys; from agent.cli import main; sys.argv = ['agent', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'optuna', 'pydantic', 'matplotlib', 'scipy', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    command = agent_command()
    command[2] = script
    from tests.agent.conftest import agent_environment

    subprocess.run(command, check=True, capture_output=True, env=agent_environment(Path("/nonexistent")))
    for name in ("search", "check", "runs", "show", "plan", "doctor"):
        text = agent(name, "--help").stdout
        assert "Examples:" in text.split("Options:")[0], name


@pytest.mark.parametrize("words", [(), ("session",), ("task",)])
def test_the_list_of_commands_fits_a_terminal(agent: Agent, words: tuple[str, ...]) -> None:
    """On 80 columns ten of the sentences were cut, and that of `task` was its examples in one line."""
    listed = agent(*words, "--help", env={"COLUMNS": "80"}).stdout.split("Commands:\n")[1]
    assert "..." not in listed
    assert "agent" not in listed.replace("agents", "").replace("agent search --no-submit", "")


def test_commands_are_listed_in_the_order_of_a_day() -> None:
    """What acts comes first, then what looks at it; not the alphabet."""
    names = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert names[:4] == ["search", "mcp", "submit", "ablate"]
    assert names.index("check") < names.index("runs") < names.index("review")
    assert names[-3:] == ["replay", "audit", "verify"]


def test_version_says_what_is_installed(agent: Agent) -> None:
    """`agent --version` names the package's, Python's and torch's version."""
    words = agent("--version").stdout
    assert re.fullmatch(r"initsearch \S.* \(Python 3\.\d+\.\S+, torch \d\S*\)\n", words)


def test_python_m_agent_is_the_command_and_completion_is_there() -> None:
    """`python -m agent` needs no script, and the shell's completion script can be had."""
    words = [sys.executable, "-m", "agent", "--show-completion", "bash"]
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True, env=environment)
    assert "complete" in shown.stdout


def test_who_made_a_mistake_does_not_wait_for_torch() -> None:
    """A wrong budget was answered after two seconds, most of them for importing what a training needs."""
    modules = (
        *("agent.cli.search", "agent.engine.search", "agent.cli.review", "agent.cli.review_text"),
        *("agent.cli.check", "agent.evaluation.check", "sandbox.isolate"),
    )
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_unknown_architecture_is_answered_without_torch() -> None:
    """`agent check FILE --arch resnet57` imported torch first. The profiles know all names."""
    from benchmark.models import ARCHITECTURES

    code = (
        "import sys; from agent.cli.check import run_check; from agent.errors import UsageError\n"
        "try: run_check(None, ['resnet57'], 'auto', as_json=False)\n"
        "except UsageError as error: print(error)\n"
        "sys.exit('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert said == f"--arch resnet57: unknown architecture; known: {', '.join(sorted(ARCHITECTURES))}\n"


@pytest.mark.parametrize(("command", "following"), [("replay", "audit"), ("audit", "replay")])
def test_replay_and_audit_name_the_next_command_on_stderr(agent: Agent, command: str, following: str) -> None:
    """They printed “Next:” among their results, where a pipe took it."""
    result = agent(command, str(ROOT / "tests" / "data" / "sample-run"), *(["--plain"] if command == "replay" else []))
    assert result.returncode == 0, result.stderr
    assert f"next: agent {following} " in result.stderr
    assert "next:" not in result.stdout.lower()


def test_two_processes_cannot_hold_one_run(agent: Agent, finished: SearchOutcome) -> None:
    """Resuming a run that another process works on is refused; nothing in it changes."""
    from agent.runs.directory import RunDirectory

    directory = RunDirectory(finished.run)
    summary = directory.read_summary()
    directory.write_summary({**summary, "status": "running"})
    try:
        with directory.held():
            result = agent("search", "--resume", str(finished.run))
        assert result.returncode == 1
        assert "another process" in result.stderr
    finally:
        directory.write_summary(summary)
