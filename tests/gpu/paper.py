"""A `paper` search cut short, on files in CIFAR-100's format, killed with -9 in the middle and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmark.data import available
from tests.gpu.checks import Setting

ROOT = Path(__file__).resolve().parents[2]
_PATCH = '''
"""Python imports this in each process: the paper profile with few epochs, and checksums of the files made here."""
import dataclasses
import os

if "PAPER_CUT" in os.environ:
    import json
    import benchmark.data.cifar as cifar
    import benchmark.tasks as tasks

    cut = json.loads(os.environ["PAPER_CUT"])
    cifar.CIFAR["cifar100"] = dataclasses.replace(cifar.CIFAR["cifar100"], **cut["files"])
    paper = tasks.PROFILES["paper"]

    def short(task):
        limits = {"train_limit": cut["limit"], "test_limit": cut["test"]}
        recipe = dataclasses.replace(task.recipe, epochs=cut["epochs"], **limits)
        dataset = task.dataset if task.dataset == "cifar100" else cut["hidden_data"]
        arch = cut["networks"].get(task.arch, task.arch)
        return dataclasses.replace(task, arch=arch, dataset=dataset, recipe=recipe)

    tasks.PROFILES["paper"] = dataclasses.replace(
        paper, visible=tuple(map(short, paper.visible)), hidden=tuple(map(short, paper.hidden))
    )
'''


def check_paper(setting: Setting) -> str:
    """Launch, baseline, a kill -9 in the test, a resume, and a hidden result; every task has its three seeds."""
    from tests.benchmark.data_files import write_cifar

    gpu = setting.device.startswith("cuda")
    full = available("fmnist").ok
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_cifar(folder / "data", train=10_000 if gpu else 200, test=1_000 if gpu else 50)
        cut = {
            "files": {"train": dict(files.train), "test": dict(files.test), "meta": dict(files.meta)},
            "epochs": 1,
            "limit": None if gpu else 64,
            "test": None if gpu else 16,
            "networks": {} if gpu else {"resnet56": "resnet20", "vgg16bn": "vgg8bn", "mobilenetv2": "resnet20"},
            "hidden_data": "fmnist" if full and gpu else "fmnist_pocket",
        }
        (folder / "patch").mkdir()
        (folder / "patch" / "sitecustomize.py").write_text(_PATCH, encoding="utf-8")
        environment = {
            **os.environ,
            "PAPER_CUT": json.dumps(cut),
            "PYTHONPATH": os.pathsep.join([str(folder / "patch"), str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "INITSEARCH_CACHE_DIR": str(folder / "cache"),
            "INITSEARCH_CHECKPOINT_SECONDS": "1",
        }
        agent = [sys.executable, "-c", "from agent.cli import main; main()", "search", "--json"]
        agent += ["--data-root", str(folder / "data"), "--runs", str(folder / "runs")]
        started = time.monotonic()
        command = [*agent, "--profile", "paper", "--budget", "1", "--workers", str(setting.lanes)]
        search = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert search.stdout is not None
        first = search.stdout.readline()
        assert first, f"the search ended with exit status {search.wait()} before it began"
        run = Path(json.loads(first)["run"])
        _wait_for(run, "baseline", search)
        search.send_signal(signal.SIGKILL)
        search.wait()
        command = [*agent, "--resume", str(run)]
        resumed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert resumed.returncode == 0, resumed.stderr[-2000:]
        done: dict[str, Any] = json.loads(resumed.stdout.splitlines()[-1])
        assert done["event"] == "done"
        assert done["hidden"], f"no hidden result: {done}"
        seeds = {event["seed"] for event in _events(run) if event["kind"] == "evaluated"}
        assert seeds == {0, 1, 2}, f"seeds {sorted(seeds)}"
        task = next(iter(done["hidden"]))
        took = time.monotonic() - started
    return f"{took:.0f} s with a kill and a resume; {task}: baseline {done['hidden'][task]['baseline']:.2f} %"


def _events(run: Path) -> list[dict[str, Any]]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    found = []
    for line in lines:
        record = json.loads(line)
        found.append(record.get("event", record))
    return found


def _wait_for(run: Path, role: str, search: subprocess.Popen[str]) -> None:
    """Wait until a result of `role` is in the log."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if search.poll() is not None:
            raise AssertionError(f"the search ended with exit status {search.returncode} before it was killed")
        if (run / "events.jsonl").exists() and f'"{role}"' in (run / "events.jsonl").read_text(encoding="utf-8"):
            return
        time.sleep(0.2)
    raise AssertionError(f"no result of {role} after ten minutes")
