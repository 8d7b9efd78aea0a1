"""Flags, variables, file and defaults; and what a person reads when one of them is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import load_config
from agent.errors import UsageError


def test_flag_beats_variable_beats_file_beats_default(tmp_path: Path) -> None:
    """Each source overrides the weaker ones, setting by setting."""
    toml = tmp_path / "settings.toml"
    toml.write_text("budget = 5\nseeds = 2\nseed = 7\n")
    config = load_config(
        {"budget": 9, "seeds": None}, toml=toml, environ={"INITSEARCH_BUDGET": "8", "INITSEARCH_SEEDS": "4"}
    )
    assert (config.budget, config.seeds, config.seed, config.proposer) == (9, 4, 7, "optuna")
    assert config.evaluation_seeds == (7, 8, 9, 10)


@pytest.mark.parametrize("budget", [0, -3, 10**9])
def test_absurd_budget_names_the_flag(budget: int) -> None:
    """`agent search --budget 0` says which flag is wrong and what it was."""
    with pytest.raises(UsageError, match=f"--budget.*{budget}"):
        load_config({"budget": budget}, environ={})


def test_misspelt_setting_in_a_file_gets_a_suggestion(tmp_path: Path) -> None:
    """`bugdet = 3` in a TOML file is an error, not a silent default."""
    toml = tmp_path / "settings.toml"
    toml.write_text("bugdet = 3\n")
    with pytest.raises(UsageError, match="'bugdet'; did you mean 'budget'"):
        load_config({}, toml=toml, environ={})


def test_bad_value_in_a_variable_names_the_variable() -> None:
    """The message points at where the value came from."""
    with pytest.raises(UsageError, match="INITSEARCH_SEEDS"):
        load_config({}, environ={"INITSEARCH_SEEDS": "many"})


def test_other_variables_of_the_prefix_are_left_alone() -> None:
    """INITSEARCH_CACHE_DIR and the like belong to other parts of the project."""
    assert load_config({}, environ={"INITSEARCH_CACHE_DIR": "/tmp/x", "INITSEARCH_THREADS": "1"}).budget == 3


@pytest.mark.parametrize("content", ["budget = ", b"\xff\xfe"])
def test_unreadable_file_is_a_usage_error(tmp_path: Path, content: str | bytes) -> None:
    """A broken TOML file stops the search before anything is made."""
    toml = tmp_path / "settings.toml"
    toml.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UsageError, match=r"settings\.toml"):
        load_config({}, toml=toml, environ={})


def test_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    """--config with a name that does not exist is not ignored."""
    with pytest.raises(UsageError, match="no such file"):
        load_config({}, toml=tmp_path / "nowhere.toml", environ={})
