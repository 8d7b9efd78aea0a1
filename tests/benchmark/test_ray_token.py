"""What decides whether Ray shows its token; no Ray runs here. tests/cluster/test_ray_token.py connects to one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.secrets import kept_from_children
from benchmark.executors import EngineError
from benchmark.executors.ray_token import modes, refusal, shown_token
from benchmark.executors.ray_worker import clean_environment

TOKEN = "a-token-that-nobody-may-see"
ADDRESS = "10.0.0.5:6379"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without a token, and none of Ray's variables."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def put_token(home: Path, text: str = TOKEN) -> Path:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(text)
    return home / ".ray" / "auth_token"


def test_a_token_that_is_here_is_shown_where_it_is_wanted(home: Path) -> None:
    """Not to a cluster without one: a search with a token in ~/.ray got no worker there. Without one none is shown."""
    assert modes(os.environ) == ("disabled",)
    put_token(home)
    assert modes(os.environ) == ("disabled", "token")


@pytest.mark.parametrize("text", ["", "\n", "  \n\t"])
def test_an_empty_file_is_no_token(home: Path, text: str) -> None:
    """`agent doctor` ended with a traceback of Ray's AuthenticationError when ~/.ray/auth_token was empty."""
    put_token(home, text)
    assert modes(os.environ) == ("disabled",)
    assert refusal(ADDRESS, os.environ).startswith(
        f"--ray-address {ADDRESS}: the Ray cluster there wants its token, and {home}/.ray/auth_token is empty: copy the"
    )


def test_what_is_no_readable_file_is_no_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, a link to nothing, a file in place of the folder, a name that is too long."""
    (home / ".ray" / "auth_token").mkdir(parents=True)
    assert modes(os.environ) == ("disabled",)
    assert "auth_token is no file" in refusal(ADDRESS, os.environ)
    (home / ".ray" / "auth_token").rmdir()
    (home / ".ray" / "auth_token").symlink_to(home / "nothing")
    assert modes(os.environ) == ("disabled",)
    (home / ".ray" / "auth_token").unlink()
    (home / ".ray").rmdir()
    (home / ".ray").write_text("")
    assert modes(os.environ) == ("disabled",)
    assert "auth_token is not there" in refusal(ADDRESS, os.environ)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/" + "x" * 5000)
    assert modes(os.environ) == ("disabled",)
    assert "x cannot be read (File name too long): copy" in refusal(ADDRESS, os.environ)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_token_that_another_user_keeps(home: Path) -> None:
    """The file is there, and this user may not read it."""
    put_token(home).chmod(0)
    assert modes(os.environ) == ("disabled",)
    assert "auth_token cannot be read (Permission denied)" in refusal(ADDRESS, os.environ)


def test_the_user_s_own_word_about_the_token_counts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RAY_AUTH_MODE=disabled keeps a token back; one that was asked for and is not there is an error at once."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(EngineError, match=r"RAY_AUTH_MODE=token asks for Ray's token, and .*auth_token is not there"):
        modes(os.environ)
    put_token(home)
    assert modes(os.environ) == ("token",)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert modes(os.environ) == ("disabled",)
    said = refusal(ADDRESS, os.environ)
    assert said.endswith("wants its token, and RAY_AUTH_MODE=disabled keeps it back: unset that variable")


def test_a_path_that_the_user_gave_counts_before_the_usual_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for Ray, which does not look into ~/.ray then."""
    put_token(home)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "copy"))
    assert modes(os.environ) == ("disabled",)
    assert f"{home}/copy is not there" in refusal(ADDRESS, os.environ)
    (home / "copy").write_text(TOKEN)
    assert modes(os.environ) == ("disabled", "token")
    assert f"that of {home}/copy is not the one" in refusal(ADDRESS, os.environ)


def test_a_token_in_a_variable_is_kept_from_all_and_that_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches and `agent doctor` hide RAY_AUTH_TOKEN like every secret, so Ray cannot find it: give a file."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with kept_from_children() as secrets:
        assert secrets["RAY_AUTH_TOKEN"] == TOKEN
        assert modes(os.environ) == ("disabled",)
        said = refusal(ADDRESS, os.environ)
    assert "RAY_AUTH_TOKEN is kept from all processes, so give a file" in said
    assert TOKEN not in said


def test_no_other_process_learns_of_the_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RAY_AUTH_MODE is set while this process connects only (Ray sets it, too); a training gets no variable of Ray."""
    put_token(home)
    for given in (None, "disabled"):
        if given is not None:
            monkeypatch.setenv("RAY_AUTH_MODE", given)
        for address in ("local", "auto"):
            with shown_token(address, "no Ray"):
                assert os.environ.get("RAY_AUTH_MODE") == given
                assert TOKEN not in str(dict(os.environ))
                os.environ["RAY_AUTH_MODE"] = "token"
            assert os.environ.get("RAY_AUTH_MODE") == given
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_AUTH_TOKEN_PATH": "/a/file", "PATH": "/bin"}
    assert clean_environment(variables) == {"PATH": "/bin"}
