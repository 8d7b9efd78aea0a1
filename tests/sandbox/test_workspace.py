"""The workspace as a real git repository: what it keeps, what it refuses, and what survives a crash."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import git
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.diff import unified_diff
from sandbox.region import SCAFFOLD_NAME, scaffold, sha256
from sandbox.workspace import (
    GitMissing,
    NotAWorkspace,
    Workspace,
    WorkspaceError,
    WorkspaceTampered,
    WorkspaceWriteFailed,
)

ROOT = Path(__file__).resolve().parents[2]
ONE = "def initialize_weights(model, config):\n    gain = 1.0\n"
TWO = "def initialize_weights(model, config):\n    gain = 2.0\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.create(tmp_path / "workspace") as made:
        yield made


def _git(path: Path, *command: str) -> str:
    return subprocess.run(["git", "-C", str(path), *command], capture_output=True, text=True, check=True).stdout


def _commits(workspace: Workspace) -> int:
    return int(_git(workspace.path, "rev-list", "--count", "main"))


def test_a_new_workspace_is_the_scaffold_under_git(workspace: Workspace) -> None:
    file = workspace.path / SCAFFOLD_NAME
    assert file.read_text() == scaffold().text == workspace.text
    assert workspace.filename == "sandbox/custom_init.py"
    assert workspace.region == scaffold().region
    assert workspace.region_sha256 == sha256(scaffold().region)
    assert workspace.editable == (scaffold().lines.start, scaffold().lines.end)
    assert workspace.head == _git(workspace.path, "rev-parse", "HEAD").strip()
    assert _git(workspace.path, "status", "--porcelain") == ""
    assert workspace.check() is None
    workspace.verify()


def test_every_accepted_edit_is_one_commit_and_a_refused_one_is_none(workspace: Workspace) -> None:
    first, last = workspace.editable
    edit = {"op": "replace", "filename": SCAFFOLD_NAME, "start_line": first, "end_line": last, "content": ONE}
    assert workspace.edit(edit).text.startswith(
        f"OK: Replaced lines {first}..{last} with 2 line(s) in sandbox/custom_init.py. "
        f"Editable range: {first}–{first + 1}.\n\n[Current file: sandbox/custom_init.py | "
    )
    assert _commits(workspace) == 2
    assert not workspace.edit({**edit, "start_line": 1}).ok
    assert _commits(workspace) == 2
    assert workspace.rewrite(TWO).ok
    assert _commits(workspace) == 3
    assert workspace.rewrite(TWO).ok
    assert _commits(workspace) == 4
    assert (workspace.path / SCAFFOLD_NAME).read_text() == scaffold().with_region(TWO).text
    assert _git(workspace.path, "status", "--porcelain") == ""


def test_undo_is_a_new_commit_with_the_older_blob(workspace: Workspace) -> None:
    def blob(ref: str) -> str:
        return _git(workspace.path, "rev-parse", f"{ref}:{SCAFFOLD_NAME}")

    start = workspace.head
    workspace.rewrite(ONE)
    workspace.rewrite(TWO)
    assert workspace.undo(2).text.startswith(
        f"Undo complete:\nRestored: {SCAFFOLD_NAME}\nRestored: {SCAFFOLD_NAME}\n\n"
    )
    assert _commits(workspace) == 4
    assert blob("HEAD") == blob(start)
    assert workspace.region == scaffold().region
    assert workspace.undo().kind == "nothing_to_undo"
    assert _commits(workspace) == 4


def test_the_warnings_of_an_edit_reach_the_author(workspace: Workspace) -> None:
    reply = workspace.rewrite(ONE + "\n\n" + TWO)
    assert reply.ok
    assert "WARNING: a test would be refused now (signature): initialize_weights is defined 2 times" in reply.text
    rejection = workspace.check()
    assert rejection is not None
    assert rejection.line == workspace.editable[0] + 4


def test_equal_text_has_equal_blobs_in_every_workspace(tmp_path: Path) -> None:
    blobs = set()
    for name in ("a", "b"):
        with Workspace.create(tmp_path / name, ONE.rstrip("\n")) as made:
            assert made.region == ONE
            blobs.add(_git(made.path, "rev-parse", f"HEAD:{SCAFFOLD_NAME}"))
    assert len(blobs) == 1


def test_tags_keep_versions(workspace: Workspace) -> None:
    workspace.tag("baseline")
    workspace.rewrite(ONE)
    workspace.tag("test/1", message="first try")
    workspace.rewrite(TWO)
    workspace.tag("submit/1", at="test/1")
    workspace.tag("submit/1", at="test/1")
    assert workspace.region_at("baseline") == scaffold().region
    assert workspace.region_at("test/1") == workspace.region_at("submit/1") == ONE
    assert workspace.region_at(workspace.head) == TWO
    assert _git(workspace.path, "for-each-ref", "--format=%(objecttype) %(refname:short)", "refs/tags").split("\n")[
        :3
    ] == [
        "tag baseline",
        "tag submit/1",
        "tag test/1",
    ]
    assert "first try" in _git(workspace.path, "cat-file", "tag", "test/1")
    with pytest.raises(WorkspaceError, match="already set"):
        workspace.tag("test/1")
    with pytest.raises(WorkspaceError, match="cannot be a tag"):
        workspace.tag("--delete")
    for ref in ("test/9", "--all", ""):
        with pytest.raises(WorkspaceError, match="has no version"):
            workspace.region_at(ref)


def test_the_diff_applies_to_the_scaffold(workspace: Workspace, tmp_path: Path) -> None:
    """A reviewer takes the patch away and `git apply` accepts it."""
    workspace.rewrite(ONE)
    diff = unified_diff(scaffold().text, workspace.text)
    assert diff.startswith("diff --git a/sandbox/custom_init.py b/sandbox/custom_init.py\n")
    assert "\n+    gain = 1.0\n" in diff
    assert unified_diff(workspace.text, workspace.text) == ""
    (tmp_path / "change.patch").write_text(diff)
    target = tmp_path / "elsewhere" / SCAFFOLD_NAME
    target.parent.mkdir(parents=True)
    target.write_text(scaffold().text)
    subprocess.run(["git", "apply", str(tmp_path / "change.patch")], cwd=tmp_path / "elsewhere", check=True)
    assert target.read_text() == workspace.text


def test_a_reopened_workspace_goes_on_where_it_was(workspace: Workspace) -> None:
    workspace.rewrite(ONE)
    workspace.rewrite(TWO)
    workspace.rewrite("")
    workspace.undo()
    with Workspace.open(workspace.path) as again:
        assert (again.region, again.head, again.undo_depth) == (TWO, workspace.head, 2)
        again.undo()
        assert again.region == ONE
        again.undo()
        assert again.region == scaffold().region
        assert not again.undo().ok


@settings(max_examples=5, deadline=None)
@given(st.lists(st.one_of(st.sampled_from([ONE, TWO, "", "x\r\ny\n"]), st.integers(1, 3)), max_size=5))
def test_memory_disk_and_history_always_agree(tmp_path_factory: pytest.TempPathFactory, calls: list[str | int]) -> None:
    """After any sequence of rewrites and undos, memory, disk and git hold the same, and opening it changes nothing."""
    with Workspace.create(tmp_path_factory.mktemp("property") / "workspace") as made:
        former: list[str] = []
        for call in calls:
            before = made.region
            if isinstance(call, str):
                made.rewrite(call)
                former.append(before)
            elif made.undo(call).ok:
                assert made.region == former[-min(call, len(former))]
                del former[-min(call, len(former)) :]
        made.verify()
        with Workspace.open(made.path) as again:
            assert (again.text, again.head, again.undo_depth) == (made.text, made.head, len(former))
            assert again.undo(9).ok == bool(former)
            assert again.region == scaffold().region


@pytest.mark.parametrize("change", ["prefix", "region", "symlink", "gone", "history"])
def test_tampering_is_found_before_a_test(workspace: Workspace, tmp_path: Path, change: str) -> None:
    """If the file was changed by other means than edit, the error says that nothing was tested."""
    workspace.rewrite(ONE)
    file = workspace.path / SCAFFOLD_NAME
    if change == "prefix":
        file.write_text(file.read_text().replace("import math", "import os as math"))
    elif change == "region":
        file.write_text(file.read_text().replace("1.0", "9.0"))
    elif change == "symlink":
        file.rename(tmp_path / "moved.py")
        file.symlink_to(tmp_path / "moved.py")
    elif change == "gone":
        file.unlink()
    else:
        _git(
            workspace.path,
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@x",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "intruder",
        )
    with pytest.raises(WorkspaceTampered):
        workspace.verify()
    if change != "history":
        with pytest.raises(WorkspaceTampered):
            Workspace.open(workspace.path)


def test_a_history_with_another_prefix_is_not_ours(workspace: Workspace) -> None:
    file = workspace.path / SCAFFOLD_NAME
    file.write_text(file.read_text().replace("import math", "import os as math"))
    _git(workspace.path, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-a", "-m", "x\n\nKind: edit")
    with pytest.raises(WorkspaceTampered, match="line 15 must read"):
        Workspace.open(workspace.path)


def test_an_edit_that_a_crash_cut_short_is_completed(workspace: Workspace) -> None:
    """After a kill between the commit and the renaming of the file, the commit counts and the temporary file goes."""
    workspace.rewrite(ONE)
    before = workspace.text
    workspace.rewrite(TWO)
    file = workspace.path / SCAFFOLD_NAME
    file.write_text(before)
    litter = file.with_name(f".{file.name}.deadbeef.tmp")
    litter.write_text("half")
    lock = workspace.path / ".git" / "index.lock"
    lock.touch()
    for leftover in (litter, lock):
        os.utime(leftover, (0, 0))
    with Workspace.open(workspace.path) as again:
        assert again.region == TWO
        assert file.read_text() == scaffold().with_region(TWO).text
        assert again.rewrite(ONE).ok
    assert not litter.exists()


def test_folders_that_are_no_workspace_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotAWorkspace, match=r"no \.git folder"):
        Workspace.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotAWorkspace, match="not an empty folder"):
        Workspace.create(tmp_path)
    with pytest.raises(NotAWorkspace, match="not an empty folder"):
        Workspace.create(tmp_path / "file")
    _git(tmp_path, "init", "-q")
    with pytest.raises(NotAWorkspace, match="no history of a scaffold"):
        Workspace.open(tmp_path)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """The write fails, the author is told, and the workspace is what it was: in memory, on the disk and in git."""
    with Workspace.create(tmp_path / "workspace", ONE) as made:
        made.rewrite(TWO)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            # A limit on the size of files stands in for a disk that runs full in the middle of one.
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
            with pytest.raises(WorkspaceWriteFailed, match="could not write in"):
                made.rewrite(ONE + "    pass\n")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, previous)
        assert (made.region, made.undo_depth) == (TWO, 1)
        made.verify()
        assert [path.name for path in (made.path / "sandbox").iterdir()] == ["custom_init.py"]
        made.undo()
        assert made.region == ONE


def test_a_git_that_cannot_write_loses_nothing(workspace: Workspace) -> None:
    """Another process holds git's lock: refused with git's own words, and the next edit works."""
    lock = workspace.path / ".git" / "index.lock"
    lock.touch()
    with pytest.raises(WorkspaceWriteFailed, match=r"index\.lock"):
        workspace.rewrite(ONE)
    assert workspace.region == scaffold().region
    workspace.verify()
    lock.unlink()
    assert workspace.rewrite(ONE).ok
    assert workspace.region == ONE


def test_a_file_that_cannot_be_put_in_place_undoes_the_commit(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step fails: git goes back as well, and the next edit works."""

    def fail(self: Path, target: Path) -> Path:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(WorkspaceWriteFailed, match="Input/output error"):
            workspace.rewrite(ONE)
    workspace.verify()
    assert workspace.rewrite(TWO).ok
    assert _commits(workspace) == 2


def test_a_machine_without_git_is_told_how_to_get_it(tmp_path: Path) -> None:
    """`agent search` on a machine without git ends with one sentence, not with a stack trace of GitPython."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom sandbox.workspace import GitMissing, Workspace\n"
        "try:\n    Workspace.create(Path(sys.argv[1]))\nexcept GitMissing as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "workspace")],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == (
        "git was not found: install it (Debian: apt install git) and make sure that it is on the PATH\n"
    ), done.stderr


def test_git_that_vanishes_is_told_too(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git.Git, "GIT_PYTHON_GIT_EXECUTABLE", "/nonexistent/git")
    with pytest.raises(GitMissing):
        workspace.rewrite(ONE)
    assert workspace.region == scaffold().region
    workspace.verify()  # reading needs no git


def test_hooks_configuration_and_environment_of_the_machine_play_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search works from inside a git hook, under a hostile ~/.gitconfig, and runs no hook of anybody."""
    home = tmp_path / "home"
    hooks = home / "hooks"
    hooks.mkdir(parents=True)
    proof = tmp_path / "hook-ran"
    for name in ("pre-commit", "post-commit", "reference-transaction", "post-index-change", "fsmonitor"):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> {proof}\nexit 1\n")
        (hooks / name).chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[core]\n hooksPath = {hooks}\n fsmonitor = {hooks}/fsmonitor\n autocrlf = true\n"
        f"[init]\n templateDir = {home}\n[commit]\n gpgSign = true\n[tag]\n gpgSign = true\n[diff]\n noprefix = true\n"
    )
    monkeypatch.setenv("HOME", str(home))
    for variable in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    with Workspace.create(tmp_path / "workspace") as made:
        made.tag("baseline")
        made.rewrite(ONE)
        made.undo()
        made.verify()
        made.rewrite(TWO)
        assert made.region_at("baseline") == scaffold().region
        local = made.path / ".git" / "hooks"
        local.mkdir(exist_ok=True)
        for hook in hooks.iterdir():
            (local / hook.name).write_bytes(hook.read_bytes())
            (local / hook.name).chmod(0o755)
        with (made.path / ".git" / "config").open("a") as config:
            config.write(f"[core]\n fsmonitor = {hooks}/fsmonitor\n hooksPath = {hooks}\n")
        made.rewrite(ONE)
        made.tag("test/1")
        made.verify()
    assert not proof.exists()
    assert not (tmp_path / "elsewhere").exists()
    assert os.environ["GIT_DIR"] == str(tmp_path / "elsewhere")


def test_no_process_of_git_is_left_behind(workspace: Workspace) -> None:
    """A long run opens and closes many versions; none may keep a child process."""
    workspace.rewrite(ONE)
    workspace.verify()
    workspace.region_at("HEAD~1")
    workspace.close()
    workspace.close()
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("this kernel does not list child processes in /proc")
    names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in children.read_text().split()]
    assert "git" not in names
