"""Task files: their keys, their bad input in one sentence, and the built-in profiles in the same form."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmark.models import ARCHITECTURES
from benchmark.results import result_key
from benchmark.task import NUM_CLASSES, OURS, Recipe, Task
from benchmark.task_schema import TaskFileError, component, default_name, read_task_file
from benchmark.tasks import FOLDER, NAMES, PROFILES

VISIBLE = '[[visible]]\nnetwork = "net.py:build"\ndata = "flowers"\n'


def read(tmp_path: Path, text: str) -> str:
    """The sentence with which a task file is refused."""
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(TaskFileError) as caught:
        read_task_file(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "Invalid value"),
        ("", "visible is missing"),
        ("visible = []", "visible is empty"),
        (VISIBLE + "epoch = 3\n", "unknown key 'visible.1.epoch'; did you mean 'epochs'?"),
        (VISIBLE + "learning_rate = 3\n", "unknown key 'visible.1.learning_rate'; did you mean 'lr'?"),
        (VISIBLE + "Batch = 3\n", "unknown key 'visible.1.Batch'; did you mean 'batch_size'?"),
        (
            VISIBLE + "caveat = 'x'\n",
            "visible.1.caveat stands at the wrong place; it belongs above the first [[visible]]",
        ),
        ("epochs = 3\n" + VISIBLE, "epochs stands at the wrong place; it belongs below [[visible]]"),
        ("naem = 'x'\n" + VISIBLE, "unknown key 'naem'; did you mean 'name'?"),
        (VISIBLE + "epochs = 0\n", "visible.1.epochs"),
        (VISIBLE + "epochs = '3'\n", "visible.1.epochs"),
        (VISIBLE + "lr = -1.0\n", "visible.1.lr"),
        (VISIBLE + "optimizer = 'lion'\n", "visible.1.optimizer"),
        (VISIBLE + "schedule = 'step'\n", "visible.1.schedule"),
        (VISIBLE + "augment = true\n", "visible.1.augment"),
        (VISIBLE + "name = 3\n", "visible.1.name"),
        (VISIBLE + "epochs = true\n", "visible.1.epochs"),
        (VISIBLE + "epochs = 2.5\n", "visible.1.epochs"),
        (VISIBLE + "lr = nan\n", "visible.1.lr"),
        ("visible = 3\n", "visible: must be a list, not 3"),
        (VISIBLE.replace("[[visible]]", "[visible]"), "visible is one table; write [[visible]], with two brackets"),
        (VISIBLE.replace("visible", "visble"), "unknown key 'visble'; did you mean 'visible'?"),
        ("visible = [3]\n", "visible.1: must be a table, not 3"),
        ('[[visible]]\nnetwork = "net.py:build"\ndata = ""\n', "visible.1.data"),
        (VISIBLE + "name = 'a/b'\n", "visible.1.name"),
        (VISIBLE + "name = '..'\n", "visible.1.name"),
        ("name = '/tmp'\n" + VISIBLE, "name"),
        (VISIBLE + VISIBLE, "two tasks are called 'net-flowers'"),
        (VISIBLE + VISIBLE.replace("visible", "hidden"), "two tasks are called"),
        ('[[visible]]\nnetwork = "net.py:build"\n', "data"),
        ('[[visible]]\ndata = "x"\n', "visible.1.network is missing"),
        (VISIBLE + 'train = "t.py:train"\n', "contradicts data"),
        ('[[visible]]\nnetwork = "n.py:build"\ntrain = "t.py:train"\nlr = 0.1\n', "contradicts lr"),
        (VISIBLE + 'metric = "loss"\n', "metric"),
        (VISIBLE + "warmup_epochs = 10\n", "warmup_epochs must be below epochs"),
        (
            VISIBLE + "[noise]\nnet-flower = 1.0\n",
            "noise.net-flower: no task has that name; did you mean 'net-flowers'?",
        ),
        (VISIBLE + "[noise]\nnet-flowers = 0\n", "noise.net-flowers"),
        (VISIBLE + "packages = ['../x']\n", "packages"),
    ],
)
def test_bad_input_is_one_sentence_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    assert said in read(tmp_path, text)


@pytest.mark.parametrize("key", ["lr", "weight_decay", "warmup_epochs"])
def test_a_number_too_large_for_a_float_is_one_sentence(tmp_path: Path, key: str) -> None:
    """A learning rate of 400 digits, a slip of the keyboard, ended in a traceback (OverflowError)."""
    assert f"visible.1.{key}: the number is too large" in read(tmp_path, f"{VISIBLE}{key} = 1{'0' * 400}\n")
    said = read(tmp_path, f"{VISIBLE}[noise]\nnet-flowers = 1{'0' * 400}\n")
    assert "noise: the number is too large" in said


def test_noise_in_another_form_says_how_it_is_written(tmp_path: Path) -> None:
    """`noise = 1.2` in a task "belongs above the first [[visible]]", where it was refused as no valid table.

    And a task called a.b had "noise.a: Input should be a valid number" for `a.b = 1.2`, which is a table in TOML.
    """
    assert "it is a table of its own, [noise]" in read(tmp_path, VISIBLE + "noise = 1.2\n")
    assert "[noise], then NAME = 1.2" in read(tmp_path, "noise = 1.2\n" + VISIBLE)
    dotted = f"{VISIBLE}name = 'vit.small'\n[noise]\nvit.small = 1.2\n"
    assert 'noise: a name with a dot needs quotes there: "vit.small" = …' in read(tmp_path, dotted)


def test_a_file_that_is_nested_too_deeply_is_said(tmp_path: Path) -> None:
    """It was "maximum recursion depth exceeded", which is about Python and not about the file."""
    assert read(tmp_path, f"a = {'[' * 3000}{']' * 3000}\n").endswith("my.toml: nested too deeply")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(b"name = \xff\xfe")
    with pytest.raises(TaskFileError, match=r"my\.toml"):
        read_task_file(path)
    path.write_bytes(VISIBLE.encode("utf-16"))  # as a shell of Windows writes it
    with pytest.raises(TaskFileError, match=r"my\.toml: it is no text in UTF-8; save it as UTF-8"):
        read_task_file(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(TaskFileError, match=r"my\.toml"):
        read_task_file(path)


def test_a_byte_order_mark_and_other_line_ends(tmp_path: Path) -> None:
    """An editor of Windows writes both; the file was refused for an invalid statement in line 1."""
    path = tmp_path / "my.toml"
    path.write_bytes(b"\xef\xbb\xbf" + VISIBLE.replace("\n", "\r\n").encode())
    assert read_task_file(path).visible[0].data == "flowers"


def test_a_default_name_is_a_path_component_whatever_the_files_are_called(tmp_path: Path) -> None:
    """A folder of pictures with a space in its name was refused, and the name was not the user's."""
    path = tmp_path / "my.toml"
    path.write_text(VISIBLE.replace("flowers", "../Meine Blüten/Fotos 2"))
    assert read_task_file(path).visible[0].title == "net-Fotos-2"
    for words, name in (
        ("Blüten", "Bluten"),
        (".hidden", "hidden"),
        ("花", "task"),
        ("a b/c", "a-b-c"),
        ("x" * 200, "x" * 100),
    ):
        assert default_name(words) == component(name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskFileError, match="no such file"):
        read_task_file(tmp_path / "none.toml")


def test_the_defaults_are_those_of_the_documented_example(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(VISIBLE)
    table = read_task_file(path).visible[0]
    assert table.recipe() == Recipe(epochs=10, lr=0.05, batch_size=64)
    assert (table.title, read_task_file(path).baseline) == ("net-flowers", "as_built")


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("net.py:build", "net"),
        ("nets/net.py:small", "small"),
        ("torchvision:resnet18", "resnet18"),
        ("resnet56", "resnet56"),
    ],
)
def test_a_name_is_made_of_network_and_data(tmp_path: Path, network: str, name: str) -> None:
    path = tmp_path / "my.toml"
    path.write_text(f'[[visible]]\nnetwork = "{network}"\ndata = "in/flowers.npz"\n')
    assert read_task_file(path).visible[0].title == f"{name}-flowers"


@pytest.mark.parametrize("name", NAMES)
def test_the_built_in_profiles_are_task_files(name: str) -> None:
    written = read_task_file(FOLDER / f"{name}.toml")
    assert written.name == name
    assert all(table.is_ours for table in (*written.visible, *written.hidden))


def test_names_known_without_torch_are_those_of_the_networks() -> None:
    assert set(OURS) == set(ARCHITECTURES)
    assert "tiny" in NUM_CLASSES


def test_keys_of_stored_results_stay() -> None:
    """Measured with the version before task files: results in users' stores are still found."""
    task = PROFILES["pocket"].visible[0]
    fields = {"epochs", "lr", "batch_size", "momentum", "weight_decay", "crop_padding", "flip"}
    fields |= {"train_limit", "test_limit", "held_out"}
    assert set(task.identity()) == {"arch", "dataset", "recipe"}
    assert set(task.identity()["recipe"]) == fields
    assert result_key("x", task, 0, environment={"device": "cpu"}) == POCKET_KEY


def test_a_changed_recipe_has_another_key() -> None:
    task = Task("resnet20", "tiny", Recipe(epochs=1, lr=0.1))
    keys = {result_key("x", task, 0, environment={})}
    for change in ({"optimizer": "adamw"}, {"schedule": "linear"}, {"warmup_epochs": 0.5}, {"label_smoothing": 0.1}):
        recipe = dataclasses.replace(task.recipe, **change)
        keys.add(result_key("x", dataclasses.replace(task, recipe=recipe), 0, environment={}))
    assert len(keys) == 5


POCKET_KEY = "c78ca16ae8f2f2370ab898fd46169642c168f0b81606d5b3997fb0a938e42797"
