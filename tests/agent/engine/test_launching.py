"""What a search needs of the user's files is in its log, and a resumed search is held against its own log."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from agent.config import SearchConfig
from agent.engine.search import Search
from agent.proposers import ProposerContext, make_proposer, transcript
from agent.proposers.transcript import calls_of as transcript_calls
from agent.protocol import ToolCall
from agent.runs.directory import RunDirectory
from agent.runs.events import Launch
from agent.runs.log import EventLog, read_events
from agent.studies.verify import verify
from benchmark.recipes import get_recipe
from benchmark.tasks import get_profile
from tests.agent.conftest import Agent
from tests.agent.harm import Server, outcome
from tests.agent.report_samples import Fields, change_log
from tests.sample import SAMPLE

COMMAND = ("search", "--profile", "smoke", "--budget", "1", "--json", "--no-submit")
CASES = {
    "script": ("mine.py", ("--proposer", "scripted:mine.py")),
    "start": ("mine.py", ("--proposer", "random", "--start", "mine.py")),
    "transcript": ("events.jsonl", ("--proposer", "transcript:events.jsonl")),
}


def run_in(folder: Path) -> RunDirectory:
    return RunDirectory(next((folder / "runs").glob("2*")))


@pytest.fixture(scope="module")
def cache_of_module(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory, cache_of_module: str) -> dict[str, Path]:
    """The run of each case that nobody interrupted; the transcript is the log of the script's run."""
    runs: dict[str, Path] = {}
    for case, (_, words) in CASES.items():
        folder = tmp_path_factory.mktemp(case)
        write_file(folder, case, runs)
        code, _ = server.run(folder, *COMMAND, *words, cache=cache_of_module)
        assert code == 0, (folder / "stderr").read_text()
        runs[case] = run_in(folder).path
    return runs


def write_file(folder: Path, case: str, runs: dict[str, Path]) -> Path:
    file = folder / CASES[case][0]
    if case == "transcript":
        shutil.copyfile(runs["script"] / "events.jsonl", file)
    else:
        file.write_text(get_recipe("fixup").region)
    return file


def interrupted(
    server: Server, folder: Path, case: str, runs: dict[str, Path], cache: str
) -> tuple[RunDirectory, Path]:
    """A run of this case that was killed after its first events, and the user's file."""
    file = write_file(folder, case, runs)
    code, _ = server.run(folder, *COMMAND, *CASES[case][1], cache=cache, kill_after=3)
    assert code == -signal.SIGKILL, (folder / "stderr").read_text()
    return run_in(folder), file


@pytest.mark.parametrize("case", CASES)
def test_a_search_goes_on_without_the_users_file(
    server: Server, undisturbed: dict[str, Path], cache_of_module: str, tmp_path: Path, case: str
) -> None:
    """The script was moved while the search was interrupted, and the run could not be resumed any more."""
    run, file = interrupted(server, tmp_path, case, undisturbed, cache_of_module)
    file.unlink()
    code, _ = server.run(tmp_path, "search", "--resume", str(run.path), cache=cache_of_module)
    assert code == 0, (tmp_path / "stderr").read_text()
    assert outcome(run.path) == outcome(undisturbed[case])
    assert [check for check in verify(run) if check.fault] == []


def test_the_log_of_such_a_search_can_be_replayed(agent: Agent, undisturbed: dict[str, Path]) -> None:
    """`agent replay` reads a log with resolved inputs, which hold what the file held."""
    launch = read_events(undisturbed["script"] / "events.jsonl")[0].event
    assert isinstance(launch, Launch)
    assert (launch.start_region, launch.script) == (None, get_recipe("fixup").region)
    replayed = agent("replay", str(undisturbed["script"]), "--json")
    assert replayed.returncode == 0, replayed.stderr


def test_a_log_from_before_these_fields_is_resumed(
    server: Server, undisturbed: dict[str, Path], cache_of_module: str, tmp_path: Path
) -> None:
    """A log without the newer fields and settings said that the harness had changed; they are not compared.

    A file that only the run names was read. Now the one who resumes it names it too.
    """
    run, _ = interrupted(server, tmp_path, "script", undisturbed, cache_of_module)

    def older(event: Fields) -> Fields:
        if event["kind"] != "launch":
            return event
        config = {name: value for name, value in event["config"].items() if name != "confirm"}
        return {name: event[name] for name in event if name not in ("start_region", "script")} | {"config": config}

    change_log(run, older)
    words = ("search", "--resume", str(run.path))
    code, _ = server.run(tmp_path, *words, cache=cache_of_module)
    assert code == 2
    assert "give --proposer scripted:mine.py again" in (tmp_path / "stderr").read_text()
    code, _ = server.run(tmp_path, *words, "--proposer", "scripted:mine.py", cache=cache_of_module)
    assert code == 0, (tmp_path / "stderr").read_text()
    assert outcome(run.path) == outcome(undisturbed["script"])


def test_another_environment_is_refused_in_one_sentence(
    server: Server, undisturbed: dict[str, Path], cache_of_module: str, tmp_path: Path
) -> None:
    """After an upgrade of torch, resuming said that the log had been edited, or something had changed."""
    run, _ = interrupted(server, tmp_path, "script", undisturbed, cache_of_module)

    def elsewhere(event: Fields) -> Fields:
        if event["kind"] != "launch":
            return event
        return {**event, "environment": event["environment"] | {"torch": "1.0"}}

    change_log(run, elsewhere)
    code, _ = server.run(tmp_path, "search", "--resume", str(run.path), cache=cache_of_module)
    errors = (tmp_path / "stderr").read_text()
    assert code == 2, errors
    assert "began in another environment (torch was 1.0 and is now " in errors
    assert "Traceback" not in errors


def test_a_run_that_lacks_later_settings_is_as_this_version_launches_it(tmp_path: Path) -> None:
    """A run lacks the settings that came after it. The launch of a resumed search fits it all the same."""
    launch = read_events(SAMPLE / "events.jsonl")[0].event
    assert isinstance(launch, Launch)
    older = {name: value for name, value in launch.config.items() if name not in ("price", "screen")}
    with EventLog(tmp_path / "events.jsonl") as log:
        log.append(launch.model_copy(update={"config": older}))
    with EventLog(tmp_path / "events.jsonl") as log:
        config = SearchConfig.model_validate(older).model_dump(mode="json")
        assert config.keys() > older.keys()
        log.append(Launch(**(launch.model_dump() | {"config": config})))
        assert not log.replaying
        assert len(log.records) == 1


def test_a_transcript_is_replayed_once(
    undisturbed: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long conversation was replayed three times before its search began."""
    monkeypatch.chdir(tmp_path)
    write_file(tmp_path, "transcript", undisturbed)
    read = []

    def calls_of(path: str) -> list[ToolCall]:
        read.append(path)
        return transcript_calls(path)

    monkeypatch.setattr(transcript, "calls_of", calls_of)
    search = Search.create(SearchConfig(profile="smoke", proposer="transcript:events.jsonl"))
    assert search.inputs is not None
    with EventLog(tmp_path / "log") as log:
        context = ProposerContext(get_profile("smoke"), log, tmp_path / "study", script=search.inputs.script)
        make_proposer(search.config, context)
    assert len(read) == 1
