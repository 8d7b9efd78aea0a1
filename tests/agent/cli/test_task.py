"""`agent task`, and --profile FILE.toml as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.task_files import TASK, write_task

pytestmark = pytest.mark.usefixtures("processes_shared")

KEYS = ["name", "role", "parameters", "classes", "train_images", "test_images", "seconds_per_epoch", "branches"]


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(cache))


def test_a_new_task_file_is_a_valid_one(main: Any, tmp_path: Path) -> None:
    from benchmark.task_schema import read_task_file

    code, out, said = main("task", "new", "my.toml")
    assert (code, out.strip()) == (0, "my.toml")
    assert "agent task check my.toml" in said
    assert read_task_file(tmp_path / "my.toml").name == "my"
    assert main("task", "new", "my.toml")[0] == 2
    assert main("task", "new", "my.json")[0] == 2


def test_a_check_says_what_the_contract_names(main: Any, tmp_path: Path) -> None:
    write_task(tmp_path, TASK + '\n[[hidden]]\nnetwork = "resnet20"\ndata = "tiny"\nepochs = 1\n')
    code, out, said = main("task", "check", "toys.toml", "--json", "--workers", "1")
    assert code == 0, said
    found = json.loads(out)
    assert {name: found[name] for name in ("ok", "name")} == {"ok": True, "name": "toys"}
    visible, hidden = found["tasks"]
    assert list(visible) == list(hidden) == KEYS
    assert (visible["name"], visible["role"], visible["parameters"], visible["classes"]) == (
        "net-toys",
        "visible",
        140,
        4,
    )
    assert (visible["train_images"], visible["test_images"], visible["branches"]) == (96, 32, 0)
    assert (hidden["name"], hidden["role"], hidden["branches"]) == ("resnet20-tiny", "hidden", 9)
    assert visible["seconds_per_epoch"] > 0


def test_a_check_says_what_is_not_known_of_a_network_without_a_graph(main: Any, tmp_path: Path) -> None:
    """It said neither why nor what a search loses, so its author could change nothing."""
    from tests.benchmark.test_task_loading import UNTRACEABLE

    write_task(tmp_path, network=UNTRACEABLE + "def by_place(n): return Net(n)\n")
    (tmp_path / "toys.toml").write_text(TASK.replace("net.py:build", "net.py:by_place"))
    code, out, said = main("task", "check", "toys.toml", "--workers", "1")
    assert code == 0, said
    assert "torch.fx cannot trace the network, so it counts as one without branches" in out
    assert "torch.fx: TraceError: symbolically traced variables" in out
    assert "(net.py line 8): `if x.sum() > 0:`; decide by" in out
    assert "change nothing in this network: branch_last_alpha, gamma_last, shortcut_gain, gamma_rise" in out
    assert "called as by_place(4), so n = 4: it has no argument named num_classes\n" in out
    assert "pixels 0…255: mean 120, SD 30;" in out


def own_task(folder: Path, name: str, score: str) -> None:
    """A task file `name`.toml whose trainer `name`.py prints its seed, and returns this score."""
    (folder / "net.py").write_text("from torch import nn\n\n\ndef build():\n    return nn.Linear(2, 2)\n")
    (folder / f"{name}.py").write_text(
        f"def train(model, *, seed, device, report):\n    print('seed', seed)\n    return {score}\n"
    )
    task = f'[[visible]]\nnetwork = "net.py:build"\ntrain = "{name}.py:train"\nmetric = "val_loss"\n'
    (folder / f"{name}.toml").write_text(task)


def test_a_trainer_that_ends_its_process_is_refused(main: Any, tmp_path: Path) -> None:
    """It was a traceback, and exit code 1."""
    own_task(tmp_path, "own", "__import__('os')._exit(3)")
    code, out, said = main("task", "check", "own.toml", "--workers", "1")
    assert (code, out) == (2, "")
    (line,) = [line for line in said.splitlines() if "ended with exit status 3" in line]
    assert "own.toml" in line
    assert "own.py:train" in line
    assert "the trainer printed, at last:" in said
    assert "seed 0" in said


def test_a_trainer_whose_score_is_none_is_refused(tmp_path: Path) -> None:
    """What the check tells of it, with the trainer's last words after it."""
    from agent.profiles import baseline_region, resolve_profile
    from agent.studies.task_facts import CheckCall
    from benchmark.executors import LocalExecutor
    from sandbox.isolate import Isolation

    with LocalExecutor(1, threads=1) as executor, Isolation() as isolation:
        for name, score, told in (("nan", "float('nan')", "nan as val_loss"), ("text", "'good'", "'good'")):
            own_task(tmp_path, name, score)
            profile, _ = resolve_profile(str(tmp_path / f"{name}.toml"))
            call = CheckCall(profile.visible[0], baseline_region(profile), "auto")
            answer = executor.submit(call, on_ask=isolation.initialise).result()
            assert isinstance(answer, str)
            fault, *printed = answer.split("\n")
            assert told in fault
            assert f"{name}.py:train" in fault
            assert printed == ["seed 0"]


def test_noise_that_was_measured_can_be_pasted(main: Any, tmp_path: Path) -> None:
    """The check said that [noise] takes such a number, but not how the lines look."""
    from benchmark.task_schema import read_task_file

    (tmp_path / "net.py").write_text("from torch import nn\n\n\ndef build():\n    return nn.Linear(2, 2)\n")
    (tmp_path / "train.py").write_text("def train(model, *, seed, device, report):\n    return float(seed)\n")
    task = '[[visible]]\nname = "mlp-1.5"\nnetwork = "net.py:build"\ntrain = "train.py:train"\n'
    (tmp_path / "own.toml").write_text(task)
    code, out, said = main("task", "check", "own.toml", "--workers", "1", "--noise", "2")
    assert code == 0, said
    assert "SD of one seed over 2 trainings: 0.707 score\n" in out
    _, _, after = out.partition("for the task file, at its end:\n")
    table = after.split("a test takes")[0]
    (tmp_path / "own.toml").write_text(task + table)
    assert read_task_file(tmp_path / "own.toml").noise == {"mlp-1.5": 0.707}


@pytest.mark.parametrize("command", [("search",), ("plan",), ("task", "check"), ("baselines",)])
def test_a_bad_task_file_starts_nothing(main: Any, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "bad.toml").write_text("[[visible]]\nnetwork = 3\ndata = 'x'\n")
    given = ("bad.toml",) if command[0] == "task" else ("--profile", "bad.toml")
    code, out, said = main(*command, *given)
    assert (code, out) == (2, "")
    assert "bad.toml: visible.1.network" in said
    assert len(said.strip().splitlines()) <= 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "following"),
    [
        (("search", "my.toml", "--budget", "3"), "agent search --profile my.toml"),
        (("plan", "my.toml"), "agent plan --profile my.toml"),
        (("task", "check", "--profile", "my.toml"), "agent task check my.toml"),
        (("task", "check", "--profile=my.toml"), "agent task check my.toml"),
    ],
)
def test_a_task_file_at_the_wrong_place_is_understood(main: Any, words: tuple[str, ...], following: str) -> None:
    """`agent search my.toml` was "unexpected extra argument(s)", and a check with --profile "No such option"."""
    code, out, said = main(*words)
    assert (code, out) == (2, "")
    assert said.endswith(f"next: {following}\n")
    (error,) = main(*words, "--json")[1].splitlines()
    assert json.loads(error)["message"].endswith(f"; next: {following}")


def test_a_tilde_is_the_users_folder(main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell expands --profile=~/my.toml, nor what stands in a task file."""
    from benchmark.task_schema import TaskTable

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert f"{tmp_path}/home/my.toml: no such file" in main("search", "--profile=~/my.toml")[2]
    assert f"{tmp_path}/home/my.toml: no such file" in main("task", "check", "~/my.toml")[2]
    table = TaskTable(network="~/net.py:build", data="~/x.npz")
    assert (table.network, table.data) == (f"{tmp_path}/home/net.py:build", f"{tmp_path}/home/x.npz")
    assert table.title == "net-x"


def test_a_task_file_counts_from_the_command_line_only(main: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """A cloned repository with an initsearch.toml in it must not decide which code runs here."""
    (tmp_path / "initsearch.toml").write_text('profile = "evil.toml"\n')
    code, _, said = main("search")
    assert (code, "counts only from the command line" in said) == (2, True)
    (tmp_path / "initsearch.toml").unlink()
    monkeypatch.setenv("INITSEARCH_PROFILE", "./evil.toml")
    code, _, said = main("search")
    assert (code, "counts only from the command line" in said) == (2, True)


def test_a_missing_file_and_an_unknown_name_are_said(main: Any, tmp_path: Path) -> None:
    code, _, said = main("search", "--profile", "none.toml")
    assert (code, "none.toml: no such file" in said) == (2, True)
    code, _, said = main("search", "--profile", "flowers")
    assert (code, "a task file, such as my.toml" in said) == (2, True)


def test_a_copy_of_a_built_in_profile_is_that_profile(tmp_path: Path) -> None:
    from agent.errors import UsageError
    from agent.profiles import resolve_profile
    from benchmark.tasks import FOLDER, PROFILES

    text = (FOLDER / "smoke.toml").read_text()
    (tmp_path / "copy.toml").write_text(text)
    assert resolve_profile(str(tmp_path / "copy.toml"))[0] is PROFILES["smoke"]
    (tmp_path / "copy.toml").write_text(text.replace("lr = 0.05", "lr = 0.06"))
    with pytest.raises(UsageError, match="choose another name"):
        resolve_profile(str(tmp_path / "copy.toml"))


def test_a_search_from_python_needs_the_source(tmp_path: Path) -> None:
    """A lambda, a closure, and a function that uses a live object cannot be sent to isolation."""
    from agent.engine.own_task import source_of
    from agent.errors import UsageError

    text = source_of(write_task)
    assert "def write_task" in text
    assert "def arrays" in text
    assert "import numpy as np" in text
    assert "NETWORK = " in text

    def inner(num_classes: int) -> Path:
        return tmp_path

    with pytest.raises(UsageError, match="uses variables of the function around it"):
        source_of(inner)
    with pytest.raises(UsageError, match="lambda"):
        source_of(lambda num_classes: None)
    with pytest.raises(UsageError, match="cannot be had"):
        source_of(eval("type")("Made", (), {}))


width, depth = 3, object()


def uses_width(x: int) -> int:
    def inner(depth: int) -> int:
        return depth

    return inner(x) + width


def test_only_names_that_a_function_takes_from_its_module_go_along() -> None:
    """In a notebook with an array called x no network could be searched whose forward has an argument x."""
    from agent.engine.own_task import source_of
    from agent.errors import UsageError

    assert "width = 3" in source_of(uses_width)

    def uses_depth() -> object:
        return depth

    with pytest.raises(UsageError, match="uses depth, a object, which cannot be sent"):
        source_of(uses_depth)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"network": [].append}, "network: a builtin_function_or_method is neither a function nor a class"),
        ({"network": 3, "data": "x"}, "visible.1.network: must be a text, not 3"),
        ({"network": write_task, "profile": "smoke"}, "contradicts network"),
        ({"network": write_task, "data": (1, 2, 3)}, "search: data is tuple of 3, not the four arrays"),
        ({"network": write_task, "data": 3}, "search: data is int, not the four arrays"),
        ({"network": write_task}, "a task needs data"),
        ({"network": write_task, "data": "x.npz", "epochs": 0}, "visible.1.epochs"),
        (
            {"network": write_task, "data": "x.npz", "epoch": 3},
            "search: unknown setting 'epoch'; did you mean 'epochs'?",
        ),
    ],
)
def test_bad_input_from_python_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], said: str
) -> None:
    from agent import search
    from agent.errors import UsageError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        search(**settings)
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []
