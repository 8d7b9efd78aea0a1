"""A user's data in every form, and each kind of bad data in one sentence that names it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmark.data import DataError
from benchmark.data import arrays as forms
from benchmark.data.arrays import from_file, in_form, resized, returned
from benchmark.data.pictures import from_folder
from benchmark.data.prepared import load_prepared, prepare
from benchmark.own_data import prepared_data
from benchmark.vision import VisionMissing, vision
from tests.benchmark.task_files import arrays, write_pictures


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(folder))
    return folder


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("shape", "made"),
    [((20, 8, 6), (1, 8, 6)), ((20, 8, 6, 1), (1, 8, 6)), ((20, 8, 6, 3), (3, 8, 6)), ((20, 3, 8, 6), (3, 8, 6))],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channels_may_be_first_last_or_absent(shape: tuple[int, ...], made: tuple[int, ...], dtype: Any) -> None:
    images, labels = np.ones(shape, dtype=dtype), np.arange(20) % 2
    found = in_form({"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}, "x")
    assert found.train_images.shape[1:] == made
    assert found.train_images.dtype == dtype


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_labels": None}, "has no train_labels"),
        ({"train_labels": np.arange(95) % 4}, "96 pictures, train_labels 95 labels"),
        ({"train_labels": np.arange(96) % 4 + 1}, "no training picture has label 0"),
        (
            {"train_labels": np.arange(96) % 4 + 1, "test_labels": np.arange(32) % 4 + 1},
            "labels must be 0…C−1, but they are 1…4: subtract 1",
        ),
        ({"train_labels": np.arange(96) % 4 - 1}, "a label is -1; labels must be 0…C−1; np.unique(all_labels"),
        (
            {"train_labels": np.arange(96) % 4 * 2},
            "no training picture has label 1, and the largest label is 6; np.unique",
        ),
        ({"train_labels": np.arange(96) % 4 / 2}, "whole numbers"),
        ({"train_labels": np.arange(96) % 4 * 1.0}, 'whole numbers 0…C−1; write .astype("int64")'),
        ({"test_labels": np.arange(32) % 5}, "label 4 has test pictures, but no training picture"),
        ({"train_labels": np.zeros(96, int), "test_labels": np.zeros(32, int)}, "one class only"),
        ({"test_labels": np.zeros(32, int)}, "class 1 has no test picture"),
        ({"train_images": np.full((96, 12, 12), 0.5)}, "is float64; it must be uint8, or float32 that is already nor"),
        ({"train_images": np.full((96, 12, 12), 0.5)}, 'normalised; write .astype("float32")'),
        ({"train_images": np.full((96, 12, 12), 99.0)}, 'normalised; write .astype("uint8")'),
        (
            {"train_images": np.full((96, 12, 12), 99)},
            "is int64; it must be uint8, or float32 that is already normalised; w",
        ),
        ({"train_images": np.zeros((96, 12, 12, 2), np.uint8)}, "must be 1 or 3"),
        ({"train_images": np.zeros((96, 144), np.uint8)}, "has shape (96, 144)"),
        ({"test_images": np.zeros((32, 9, 9), np.uint8)}, "both need the same form"),
        ({"train_labels": np.eye(4)[np.arange(96) % 4]}, "not one-hot"),
        ({"train_labels": np.arange(96) % 4 * 10**12}, "a label is 3000000000000"),
        ({"train_labels": np.full(96, 2**63, np.uint64)}, "a label is 9223372036854775808"),
        ({"test_images": np.zeros((0, 12, 12), np.uint8)}, "there is no picture"),
    ],
)
def test_bad_arrays_are_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    found = {name: array for name, array in {**arrays(), **changes}.items() if array is not None}
    np.savez(tmp_path / "toys.npz", **found)
    message = refused(lambda: from_file(tmp_path / "toys.npz"))
    assert said in message
    assert "toys.npz" in message


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("trainX", "trainY", "testX", "testY"),
        ("train_data", "train_targets", "test_data", "test_targets"),
    ],
)
def test_names_that_others_use_are_read(tmp_path: Path, names: tuple[str, ...]) -> None:
    """An .npz as Keras and many courses write it had "no train_images and no train_labels and …"."""
    given = dict(zip(names, arrays().values(), strict=True))
    np.savez(tmp_path / "toys.npz", **given, other=np.zeros(3))  # type: ignore[arg-type]
    np.savez(tmp_path / "ours.npz", **arrays())  # type: ignore[arg-type]
    made, ours = from_file(tmp_path / "toys.npz"), from_file(tmp_path / "ours.npz")
    for name in arrays():
        assert (getattr(made, name) == getattr(ours, name)).all()


@pytest.mark.parametrize("names", [("images", "labels"), ("X", "y"), ("train_images", "train_labels")])
def test_arrays_without_a_test_part_lose_a_fixed_fifth(tmp_path: Path, names: tuple[str, str]) -> None:
    images, labels = list(arrays().values())[:2]
    np.savez(tmp_path / "toys.npz", **dict(zip(names, (images, labels), strict=True)))  # type: ignore[arg-type]
    made, again = from_file(tmp_path / "toys.npz"), from_file(tmp_path / "toys.npz")
    assert np.bincount(made.test_labels).tolist() == [5, 5, 5, 5]
    assert np.bincount(made.train_labels).tolist() == [19, 19, 19, 19]
    assert (made.test_images == again.test_images).all()
    assert made.notes == ("toys.npz has no test part: a fixed fifth of each class (20 pictures) is held out",)
    np.savez(tmp_path / "few.npz", images=images[:4], labels=labels[:4])
    assert "class 0 has one picture" in refused(lambda: from_file(tmp_path / "few.npz"))


def test_a_missing_array_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "toys.npz", pictures=np.zeros(3), labels=np.zeros(3))
    assert "has no images; it needs" in (said := refused(lambda: from_file(tmp_path / "toys.npz")))
    assert said.endswith("; it has pictures, labels")


def test_a_file_that_is_none_or_pickled_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "b.safetensors").write_bytes(b"\xff" * 40)
    pickled = np.array([{}] * 96, dtype=object)
    np.savez(tmp_path / "c.npz", **{**arrays(), "train_labels": pickled})  # type: ignore[arg-type]
    for name in ("a.npz", "b.safetensors", "c.npz"):
        assert name in refused(lambda name=name: from_file(tmp_path / name))  # type: ignore[misc]
    assert "no such file" in refused(lambda: prepared_data("none.npz", None, tmp_path))


def test_npz_and_safetensors_give_the_same(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    found = arrays()
    np.savez(tmp_path / "a.npz", **found)  # type: ignore[arg-type]
    save_file(found, tmp_path / "a.safetensors")
    both = [prepared_data(f"a.{ending}", None, tmp_path) for ending in ("npz", "safetensors")]
    assert both[0] == both[1]
    data = load_prepared(both[0])
    assert tuple(data.train_images.shape) == (96, 1, 12, 12)
    assert sorted(data.train_labels.tolist()) == sorted(found["train_labels"].tolist())


def test_a_type_that_numpy_lacks_is_named(tmp_path: Path) -> None:
    """bfloat16 in a .safetensors ended in a traceback. In an array of another name it does not matter."""
    import torch
    from safetensors.torch import save_file

    found = {name: torch.from_numpy(array) for name, array in arrays().items()}
    save_file({**found, "embeddings": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    assert from_file(tmp_path / "a.safetensors").train_images.shape == (96, 1, 12, 12)
    save_file({**found, "train_images": torch.zeros(96, 12, 12, dtype=torch.bfloat16)}, tmp_path / "b.safetensors")
    assert "bfloat16" in refused(lambda: from_file(tmp_path / "b.safetensors"))


def test_a_memmap_larger_than_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """It was copied first, until the process was killed."""
    images = np.memmap(tmp_path / "x.dat", dtype=np.uint8, mode="w+", shape=(2**22, 1024, 1024))  # a sparse file
    labels = np.zeros(len(images), dtype=np.int64)
    assert "4096.0 GB" in refused(lambda: returned((images, labels, images[:1], labels[:1]), "data.py:load"))


@pytest.mark.parametrize("value", [(1, 2, 3), ([[1, 2], [3]], 0, 0, 0), None, iter(())])
def test_what_is_no_four_arrays_is_refused(value: object) -> None:
    assert "data.py:load" in refused(lambda: returned(value, "data.py:load"))


def test_changed_prepared_data_are_not_used(tmp_path: Path) -> None:
    made = prepare(in_form(arrays(test=8), "x"))
    np.save(made.folder / "test_labels.npy", np.zeros(8, dtype=np.int64))
    assert "were changed" in refused(lambda: load_prepared(made))


def test_more_pictures_than_memory_holds_are_refused_before_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "toys.npz", **arrays())  # type: ignore[arg-type]
    monkeypatch.setattr(forms, "available_memory", lambda: 1000)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was read"))
    assert "memory" in refused(lambda: from_file(tmp_path / "toys.npz"))


def test_float_arrays_stay_as_they_are(tmp_path: Path) -> None:
    from benchmark.augment import Normalizer

    images = np.random.default_rng(0).normal(size=(8, 1, 4, 4)).astype(np.float32)
    labels = np.arange(8) % 2
    data = load_prepared(prepare(returned([images, labels, images, labels], "load")))
    normal = Normalizer(data.mean, data.std, data.train_images.device)(data.train_images)
    np.testing.assert_allclose(normal.numpy(), images, rtol=1e-6)


def test_a_folder_of_grey_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pets")
    found = from_folder(tmp_path / "pets", None)
    assert found.train_images.shape == (20, 1, 10, 10)
    assert found.test_images.shape == (8, 1, 10, 10)
    assert found.notes == ()
    assert np.bincount(found.train_labels).tolist() == [10, 10]


def test_one_coloured_picture_makes_all_rgb(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pets")
    Image.new("RGB", (10, 10), "red").save(tmp_path / "pets/train/cat/red.png")
    Image.new("RGB", (10, 10), (7, 7, 7)).save(tmp_path / "pets/train/dog/grey.png")
    assert from_folder(tmp_path / "pets", None).train_images.shape == (22, 3, 10, 10)


def test_without_a_test_folder_a_fixed_fifth_of_each_class_is_held_out(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pets", test=False)
    one, two = (from_folder(tmp_path / "pets", None) for _ in range(2))
    assert np.bincount(one.test_labels).tolist() == [2, 2]
    assert np.bincount(one.train_labels).tolist() == [8, 8]
    assert "a fixed fifth" in one.notes[0]
    assert (one.test_images == two.test_images).all()


def test_pictures_of_any_kind_become_eight_bits(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pets")
    folder = tmp_path / "pets/train/cat"
    Image.fromarray(np.full((10, 10), 65535, dtype=np.uint16)).save(folder / "deep.png")
    Image.new("CMYK", (30, 20), (0, 255, 255, 0)).save(folder / "print.jpg")
    Image.new("RGBA", (10, 10), (255, 0, 0, 0)).save(folder / "clear.webp")
    Image.new("P", (12, 10)).save(folder / "palette.gif")
    found = from_folder(tmp_path / "pets", 8)
    assert found.train_images.shape == (24, 3, 8, 8)
    by_name = dict(zip(sorted(path.name for path in folder.iterdir()), found.train_images, strict=False))
    assert by_name["deep.png"].min() == 255
    assert by_name["clear.webp"].min() == 255
    assert by_name["print.jpg"][0].min() > 200 > by_name["print.jpg"][1].max()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda p: (p / "train/cat/bad.png").write_bytes(b"\x89PNG\r\n"), "bad.png"),
        (lambda p: (p / "train/cat/cut.png").write_bytes((p / "train/cat/0.png").read_bytes()[:80]), "cut.png"),
        (lambda p: Image.new("L", (9, 9)).save(p / "train/cat/other.png"), "other.png"),
        (lambda p: (p / "train/fox").mkdir(), "fox"),
        (lambda p: shutil.copytree(p / "train/cat", p / "train/fox"), "class fox has no test pictures"),
        (lambda p: shutil.copytree(p / "test/cat", p / "test/fox"), "class fox has no training pictures"),
        (lambda p: (p / "train").rename(p / "training"), "no folder train"),
        (lambda p: (p / "train").rename(p / "Train"), "per class in it; it has Train, test"),
        (lambda p: (p / "train/cat/loop.png").symlink_to("loop.png"), "loop.png: cannot be read: Too many levels"),
        (lambda p: (p / "train/cat/lost.png").symlink_to("nowhere.png"), "lost.png"),
    ],
)
def test_a_bad_folder_is_named(tmp_path: Path, harm: Callable[[Path], Any], said: str) -> None:
    write_pictures(tmp_path / "pets")
    harm(tmp_path / "pets")
    assert said in refused(lambda: from_folder(tmp_path / "pets", None))


def test_what_is_not_read_of_a_folder_is_said(tmp_path: Path) -> None:
    """A folder val, a folder inside a class, and an ending that is not known were left out without a word."""
    folder = tmp_path / "pets"
    write_pictures(folder, test=False)
    (folder / "train/cat/indoors").mkdir()
    (folder / "train/dog/0.heic").write_bytes(b"x")
    (folder / "train/dog/Thumbs.db").write_bytes(b"x")
    shutil.copytree(folder / "train/cat", folder / "val/cat")
    notes = from_folder(folder, None).notes
    assert notes[1] == "its folder val is not read; call it test to test on its pictures"
    assert notes[2].startswith("train/cat/indoors/ and 1 more are not read: a class's pictures lie directly in its")
    assert len(notes) == 3


def test_pictures_of_floats_up_to_one_are_refused(tmp_path: Path) -> None:
    """A .tiff of a microscope with floats from 0 to 1 became a black picture, and the network learnt nothing."""
    write_pictures(tmp_path / "pets")
    cells = tmp_path / "pets/train/cat/cells.tiff"
    Image.fromarray(np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)).save(cells)
    assert "cells.tiff: its floats go from 0 to 1" in refused(lambda: from_folder(tmp_path / "pets", None))
    Image.fromarray(np.full((10, 10), 200, dtype=np.float32)).save(cells)
    assert from_folder(tmp_path / "pets", None).train_images[10].min() == 200


def test_an_ending_in_capitals_and_a_file_of_another_kind(tmp_path: Path) -> None:
    """TOYS.NPZ, as Windows keeps names, was "neither a folder nor .npz"; and nothing said how to read a .csv."""
    with (tmp_path / "TOYS.NPZ").open("wb") as file:
        np.savez(file, **arrays())  # type: ignore[arg-type]
    assert prepared_data("TOYS.NPZ", None, tmp_path).train == 96
    (tmp_path / "toys.csv").write_text("1,2\n")
    assert 'data = "data.py:load", a function' in refused(lambda: prepared_data("toys.csv", None, tmp_path))


def test_files_that_macos_leaves_are_no_pictures(tmp_path: Path) -> None:
    """A folder that was copied from a Mac was refused for ._0.png, which nobody sees."""
    write_pictures(tmp_path / "pets")
    (tmp_path / "pets/train/cat/._0.png").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "pets/train/.DS_Store").write_bytes(b"x")
    (tmp_path / "pets/train/Thumbs.db").write_bytes(b"x")
    assert from_folder(tmp_path / "pets", None).train_images.shape == (20, 1, 10, 10)


def test_an_empty_folder_and_one_class_are_named(tmp_path: Path) -> None:
    (tmp_path / "none/train").mkdir(parents=True)
    write_pictures(tmp_path / "one", classes=("cat",))
    assert "no folder of a class" in refused(lambda: from_folder(tmp_path / "none", None))
    assert "one class only, cat" in refused(lambda: from_folder(tmp_path / "one", None))


def test_arrays_are_resized_and_cropped() -> None:
    found = resized(in_form(arrays(size=12), "x"), 8)
    assert found.train_images.shape == (96, 1, 8, 8)
    assert found.train_images.dtype == np.uint8


def test_a_function_of_the_users_gives_the_arrays(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "import numpy as np\n"
        "def load():\n    x = np.zeros((4, 3, 5, 5), np.uint8)\n    y = np.arange(4) % 2\n    return x, y, x, y\n"
        "def near():\n    x = np.load('x.npy')\n    return {'x': x, 'y': np.arange(len(x)) % 2}\n"
        "def fails():\n    raise KeyError('moon')\n"
        "def wrong():\n    return 3\n"
    )
    assert prepared_data("data.py:load", None, tmp_path).size == (5, 5)
    np.save(tmp_path / "x.npy", np.zeros((10, 3, 5, 5), np.uint8))
    here = Path.cwd()
    made = prepared_data("data.py:near", None, tmp_path)  # it found no x.npy: it ran in the command's folder
    assert (made.train, made.test, Path.cwd()) == (8, 2, here)
    assert made.notes[0].startswith("data.py:near has no test part: a fixed fifth")
    for name, said in (("fails", "KeyError: 'moon'"), ("wrong", "returns int"), ("none", "no function 'none'")):
        assert said in refused(lambda name=name: prepared_data(f"data.py:{name}", None, tmp_path))  # type: ignore[misc]
    assert "no such file" in refused(lambda: prepared_data("other.py:load", None, tmp_path))


def test_our_sets_can_be_resized() -> None:
    assert prepared_data("tiny", 16, Path()).size == (16, 16)


def test_a_data_set_class_of_torchvision(tmp_path: Path) -> None:
    try:
        vision("datasets")
    except VisionMissing as error:
        pytest.skip(str(error))
    assert "torchvision has no data set 'Nothing'" in refused(
        lambda: prepared_data("torchvision:Nothing", None, tmp_path, data_root=tmp_path)
    )
    message = refused(lambda: prepared_data("torchvision:MNIST", None, tmp_path, data_root=tmp_path))
    assert "--download fetches it" in message
