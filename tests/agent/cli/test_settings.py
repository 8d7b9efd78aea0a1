"""`agent search` takes every setting: its flags are fields of SearchConfig, and --set reaches all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from agent.cli.app import app
from agent.config import COMMAND_LINE_ONLY, SearchConfig, flag_name, load_config, parse_settings, read_config
from agent.errors import UsageError
from tests.agent.conftest import Main

SAMPLES = {
    "proposer": "llm",
    "profile": "mini",
    "start": "fixup",
    "model": "m",
    "base_url": "http://localhost:1/v1",
    "price": "0.28/0.42",
    "runs": "elsewhere",
    "data_root": "data",
    "precision": "fp32",
    "isolation": "landlock",
    "screen": "0.5",
    "executor": "ray",
    "ray_address": "local",
    "slurm": "partition=gpu",
    "kernels": "graph",
}
"""Texts for fields that take words; a field with two values takes the other one, and every other field a number."""
NO_SETTINGS = {"null", "pass_env", "settings", "resume", "config", "yes_send_key_to", "page", "track", "as_json"}
"""The parameters of `search` that are no fields of SearchConfig; every other one is the field of its name."""
NEEDS = {"ray_address": {"executor": "ray"}, "slurm": {"executor": "slurm"}}
"""Settings without which a field is refused."""


def _other_text(name: str) -> str:
    """A text as on the command line that means something else than the field's default."""
    default = SearchConfig.model_fields[name].default
    if isinstance(default, bool):
        return str(not default).lower()
    return SAMPLES.get(name, "1025" if name in ("answer_tokens", "context_tokens") else "2")


def _flags() -> dict[str, list[str]]:
    """The parameters of `search` with their flags."""
    command = typer.main.get_command(app).commands["search"]  # type: ignore[attr-defined]
    return {param.name: [*param.opts, *param.secondary_opts] for param in command.params if param.name != "help"}


def test_every_flag_is_a_field() -> None:
    """A flag that is no setting was dropped without a word when the dictionary between them forgot it."""
    flags = _flags()
    assert set(flags) >= NO_SETTINGS
    for name in set(flags) - NO_SETTINGS:
        assert name in SearchConfig.model_fields
        assert {flag_name(name), flag_name(name, False)} & set(flags[name]), name


@pytest.mark.parametrize("name", SearchConfig.model_fields)
def test_every_field_can_be_set(name: str) -> None:
    """--set KEY=VALUE reaches each field, and the text becomes the field's type."""
    text = _other_text(name)
    config = load_config({}, environ={}, settings=parse_settings([f"{name}={text}"]) | NEEDS.get(name, {}))
    assert getattr(config, name) != SearchConfig.model_fields[name].default
    assert str(getattr(config, name)).lower() in (text, f"{text}.0")


def test_set_is_as_strong_as_a_flag(tmp_path: Path) -> None:
    """--set beats variable and file; the last of two counts; a dash is as good as an underscore."""
    toml = tmp_path / "settings.toml"
    toml.write_text("max_steps = 5\n")
    settings = parse_settings(["max_steps=7", "max-steps = 9"])
    assert load_config({}, toml=toml, environ={"INITSEARCH_MAX_STEPS": "6"}, settings=settings).max_steps == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "bugdet=3"), "--set bugdet: unknown setting 'bugdet'; did you mean 'budget'?"),
        (("--set", "budget"), "--set budget: expected KEY=VALUE"),
        (("--set", "budget=many"), "--set budget: must be a whole number, but got 'many'"),
        (("--set", "cache=perhaps"), "--set cache: must be true or false"),
        (("--set", "budget=3", "--budget", "4"), "--set budget and --budget set the same thing"),
        (("--set", "model=m", "--proposer", "optuna"), "--set model: only a language model listens to that"),
        (("--resume", "latest", "--set", "budget=3", "--no-cache"), "contradicts --no-cache, --set budget"),
        (("--parallel", "0"), "--parallel: must be at least 1, but got 0"),
        (("--parallel", "-1"), "--parallel: must be at least 1, but got -1"),
        (("--parallel", "1001"), "--parallel: must be at most 1000, but got 1001"),
        (("--executor", "ray", "--allow-unsandboxed"), "--allow-unsandboxed: contradicts executor ray"),
        (("--screen", "nan"), "--screen: must be at most 10, but got nan"),
        (("--max-seconds", "0"), "--max-seconds: must be more than 0, but got 0.0"),
        (("--seed", "2147483648"), "--seed: must be less than 2147483648, but got 2147483648"),
        (("--precision", "fp8"), "--precision: must be 'auto', 'bf16' or 'fp32', but got 'fp8'"),
        (("--workers", "many"), "--workers: must be 'auto' or a whole number, but got 'many'"),
        (("--executor", "ray", "--ray-address", "here"), "--ray-address: must be auto, local or HOST:PORT"),
        (("--pass-env", "HOME"), "--pass-env: only a command is given variables; add --proposer command:"),
        (("--yes-send-key-to", "a.org"), "--yes-send-key-to: only a language model listens to that"),
        (("--workers", "900"), "--workers: must be 'auto' or between 1 and 256, but got '900'"),
    ],
)
def test_bad_settings_name_their_source(main: Main, words: tuple[str, ...], message: str) -> None:
    """Exit 2 with one sentence that begins with where the value came from."""
    code, out, err = main("search", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", sorted(COMMAND_LINE_ONLY))
def test_safety_is_decided_on_the_command_line_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An initsearch.toml in a cloned repository switched the isolation off, and so did a forgotten variable."""
    monkeypatch.chdir(tmp_path)
    text, needs = SAMPLES.get(name, "true"), NEEDS.get(name, {})
    Path("initsearch.toml").write_text(f"{name} = {json.dumps(text)}\n")
    sentence = rf"{name} counts only from the command line.*: give {flag_name(name)}$"
    for toml in (None, Path("initsearch.toml")):
        with pytest.raises(UsageError, match=rf"^initsearch\.toml: {sentence}"):
            load_config({name: text, **needs}, toml=toml, environ={})
    Path("initsearch.toml").write_text("allow_unsandboxed = false\n")
    assert getattr(load_config({name: text, **needs}, environ={}), name)
    variable = f"INITSEARCH_{name.upper()}"
    with pytest.raises(UsageError, match=f"^{sentence}".replace(name, variable, 1)):
        load_config({}, environ={variable: text})
    assert getattr(load_config({}, environ={}, settings={name: text, **needs}), name)


def test_what_a_file_in_the_folder_chose_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends the key to `base_url` can tell a file that lies here from the user's own choice."""
    monkeypatch.chdir(tmp_path)
    text = "base_url = 'https://b.example/v1'\n"
    (tmp_path / "initsearch.toml").write_text(text)
    own = tmp_path.with_name("own.toml")
    own.write_text(text)
    (tmp_path / "link.toml").symlink_to(own)
    for toml in (None, Path("initsearch.toml"), tmp_path / "initsearch.toml", Path("link.toml")):
        assert read_config({"base_url": None}, toml=toml, environ={}).found_here == {"base_url"}
    assert not read_config({}, toml=own, environ={}).found_here
    assert not read_config({}, environ={"INITSEARCH_BASE_URL": "https://b.example/v1"}).found_here
    assert not read_config({"base_url": "https://b.example/v1"}, environ={}).found_here
