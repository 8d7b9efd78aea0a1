"""`agent search --track`: sends the numbers of a running search to experiment trackers, each from its own process.

A tracker's process reads `live.jsonl` and the log of the run, as `agent watch` does. The search neither waits for it
nor notices when it fails. It notes what it has sent in RUN/trackers, so that a resumed search sends nothing twice.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from agent.errors import UsageError
from agent.report.findings import find
from agent.report.tracker_sinks import OWN_VARIABLES, SINKS, Sink, plain_name, series_name
from agent.runs.directory import RunDirectory
from agent.runs.live import LiveReader
from agent.runs.log_lines import Fields
from agent.runs.record import read_run
from agent.runs.untrusted import mapping, number, text, whole
from agent.secrets import without_secrets
from benchmark.files import open_folder, write_atomically
from benchmark.task import ACCURACY, Metric

FOLDER = "trackers"
_EVERY = 1.0
_LAST_SECONDS = 600.0
"""How long the process for a resumed search waits for the one before it to end."""
_CONFIG = ("budget", "profile", "seeds", "baseline_seeds", "confirm", "screen", "seed", "precision")
"""The choices of a search that are sent: no path, address or model."""
_SYSTEM = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NO_COLOR")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def parse_trackers(given: str) -> Sequence[str]:
    """`wandb,mlflow` as names. Raises UsageError for one that is unknown, or whose package is not installed."""
    names = list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    for name in names:
        if name not in SINKS:
            raise UsageError(f"--track {name}: unknown; known: {', '.join(SINKS)}")
        if importlib.util.find_spec(name) is None:
            raise UsageError(f"--track {name}: not installed; pip install 'initsearch[{name}]'")
    return names


class Trackers:
    """The processes of the trackers of one search. Make it before the search takes the keys out of the environment."""

    def __init__(self, given: str | None) -> None:
        self._environments = {name: _environment(name) for name in parse_trackers(given or "")}

    def start(self, run: RunDirectory, say: Callable[[str], None]) -> None:
        """Start them for a run that this process holds. They end after it, by themselves. A failure is said only."""
        for name, environment in self._environments.items():
            folder = run.path / FOLDER / name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with (folder / "process.log").open("ab") as log:
                    subprocess.Popen(
                        [sys.executable, "-P", "-m", "agent.report.tracker_live", name, str(run.path)],
                        cwd=folder,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,  # Ctrl-C stops the search; what it has measured is still sent
                    )
            except OSError as error:
                say(f"--track {name} does not work: {error}; the search goes on without it")
            else:
                say(f"{name} gets the numbers; its files and its log are in {folder}")


def _environment(name: str) -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if OWN_VARIABLES[name].match(key)}
    system = {key: os.environ[key] for key in (*_SYSTEM, *_PROXIES) if key in os.environ}
    home = Path(__file__).resolve().parents[2]
    if "site-packages" not in home.parts:  # a checkout that is not installed
        system["PYTHONPATH"] = os.pathsep.join(filter(None, [str(home), system.get("PYTHONPATH", "")]))
    return {**without_secrets(system), **own}


class Tracking:
    """Brings what a run says to a sink, once."""

    def __init__(self, run: RunDirectory, name: str) -> None:
        self._run = run
        self._file = run.path / FOLDER / name / "sent.json"
        self._state: Fields = {}
        with contextlib.suppress(OSError, ValueError):
            self._state = mapping(json.loads(self._file.read_text(encoding="utf-8")))
        self._sent: dict[str, int] = {
            series: epoch
            for series, value in mapping(self._state.get("epochs")).items()
            if (epoch := whole(value)) is not None
        }
        folder = self._file.parent
        choices = mapping(run.read_raw_summary().get("config"))
        config = {key: choices[key] for key in _CONFIG if choices.get(key) is not None}
        self._sink: Sink = SINKS[name](folder, run.path.name, config, self._state)
        self._reader = LiveReader(run.path)
        self._save()

    def follow(self) -> None:
        """Send until no process works on the run any more, then its results."""
        held = True
        while held:
            held = self._run.is_held  # before the rest is read
            self._send_epochs()
            if held:
                time.sleep(_EVERY)
        self._send_results()
        self._sink.close()

    def _send_epochs(self) -> None:
        submitted: bool | None = None
        changed = False
        for line in self._reader.lines():
            role, task, seed = text(line.get("role")), text(line.get("task")), whole(line.get("seed"))
            epoch = whole(line.get("epoch"))
            if line.get("kind") != "epoch" or seed is None or epoch is None or role.startswith("screen/"):
                continue
            if role.startswith("hidden/"):
                submitted = self._is_submitted() if submitted is None else submitted
                if not submitted:
                    continue
            series = series_name(role, task, seed)
            if epoch <= self._sent.get(series, 0):
                continue
            values = {"train_loss": number(line.get("loss")), "test_acc": number(line.get("accuracy"))}
            if own := mapping(line.get("own")):  # what a user's own trainer reported
                values = {plain_name(name): number(value) for name, value in own.items()}
            known = {name: value for name, value in values.items() if value is not None}
            self._sent[series] = epoch
            # First noted, then sent: after a kill between the two a point is missing, and none is there twice.
            self._save()
            changed = True
            self._sink.point(series, epoch, known, number(line.get("ts")) or time.time())
        if changed:
            self._save()

    def _is_submitted(self) -> bool:
        return any(True for _ in read_run(self._run).of_kind("submitted"))

    def _send_results(self) -> None:
        record = read_run(self._run)
        if record.state.status.resumable or self._state.get("finished") == record.status:
            return
        findings = find(record)
        self._state["finished"] = record.status
        self._save()
        self._sink.result(
            dict(_gains(findings.visible, "visible")) | dict(_gains(findings.hidden, "hidden")), findings.verdict
        )

    def _save(self) -> None:
        self._state["epochs"] = self._sent
        write_atomically(self._file, json.dumps(self._state).encode(), durable=False)


def _gains(comparisons: Mapping[str, object], kind: str) -> Iterator[tuple[str, float]]:
    for task, one in comparisons.items():
        gain, ci = getattr(one, "gain", math.nan), getattr(one, "ci", (math.nan, math.nan))
        name = series_name(kind, task, 0).removesuffix("-seed0")
        metric: Metric = getattr(one, "metric", ACCURACY)
        unit = "" if metric.is_accuracy else f"_{plain_name(metric.name)}"  # points need no name
        for suffix, value in (("gain", gain), ("gain_low", ci[0]), ("gain_high", ci[1])):
            if math.isfinite(value):
                yield f"{name}/{suffix}{unit}", value


def main(words: Sequence[str]) -> int:
    """The process of one tracker: its name and the run directory. Returns the exit code, which nobody waits for."""
    name, path = words
    run = RunDirectory(Path(path))
    try:
        os.close(open_folder(run.path, FOLDER, name))  # no link
        with FileLock(run.path / FOLDER / name / ".lock", timeout=_LAST_SECONDS):
            Tracking(run, name).follow()
    except Exception:  # noqa: BLE001 - a tracker that fails leaves its reason in its own log, and the search alone
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
