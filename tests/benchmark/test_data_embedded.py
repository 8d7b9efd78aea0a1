"""The embedded sets: what is in them, that every byte is checked, and that the builders still make them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.data import (
    NUM_CLASSES,
    DataError,
    ImageDataset,
    available,
    build_fmnist_pocket,
    build_openclipart,
    build_tiny,
    load_dataset,
)
from benchmark.data.container import unpack
from benchmark.data.fashion import DEBIAN_FOLDER
from benchmark.data.pocket import EMBEDDED, load_embedded
from benchmark.data.shrink import read_rgba, shrink


@pytest.fixture(scope="module")
def openclipart() -> ImageDataset:
    """The set, loaded once."""
    return load_dataset("openclipart100")


@pytest.mark.parametrize(
    ("name", "train", "test"), [("openclipart100", 2340, 1164), ("fmnist_pocket", 5000, 2000), ("tiny", 200, 100)]
)
def test_sizes_types_and_statistics(name: str, train: int, test: int) -> None:
    """Every set has the advertised pictures, all classes in both halves, and the statistics of its training images."""
    data = load_dataset(name)
    assert data.train_images.shape == (train, 3, 32, 32)
    assert data.test_images.shape == (test, 3, 32, 32)
    assert data.train_images.dtype == data.test_images.dtype == torch.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == torch.int64
    assert data.num_classes == NUM_CLASSES[name] == len(set(data.class_names))
    for labels in (data.train_labels, data.test_labels):
        assert sorted(set(labels.tolist())) == list(range(data.num_classes))
    pixels = data.train_images.double() / 255
    assert data.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist())
    assert data.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist())
    assert available(name).ok
    assert load_dataset(name).sha256 == data.sha256


def test_the_sets_differ_in_checksum() -> None:
    """`sha256` tells contents apart, so a result can be tied to the pictures it came from."""
    assert len({load_dataset(name).sha256 for name in ("openclipart100", "fmnist_pocket", "tiny")}) == 3


def test_class_sizes(openclipart: ImageDataset) -> None:
    """10 to 60 pictures a class, a third of them for the test; the stored order mixes the classes."""
    train, test = openclipart.train_labels.bincount(), openclipart.test_labels.bincount()
    assert (int((train + test).min()), int((train + test).max())) == (10, 60)
    assert torch.equal(test, (train + test + 1) // 3)
    assert len(set(openclipart.train_labels[:200].tolist())) > 70
    pocket = load_dataset("fmnist_pocket")
    assert pocket.train_labels.bincount().tolist() == [500] * 10
    assert pocket.test_labels.bincount().tolist() == [200] * 10


def test_no_test_picture_has_a_twin_among_the_training_pictures(openclipart: ImageDataset) -> None:
    """Neither equal nor nearly equal pictures nor mirror images (training flips) sit on both sides of the split."""

    def averages(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images.double(), 2).flatten(1)

    train, test = averages(openclipart.train_images), averages(openclipart.test_images)
    mirrored = averages(openclipart.test_images.flip(3))
    nearest = min(float(torch.cdist(train, other).min()) for other in (test, mirrored))
    assert nearest / train.shape[1] ** 0.5 > build_openclipart.NEAR_RMS


@pytest.mark.parametrize("name", ["openclipart100", "fmnist_pocket", "tiny"])
def test_one_changed_byte_is_refused(name: str, tmp_path: Path) -> None:
    """A damaged installation says so, instead of training on damaged pictures."""
    for suffix in ("bz2", "json"):
        shutil.copy(EMBEDDED / f"{name}.{suffix}", tmp_path)
    path = tmp_path / f"{name}.bz2"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path} is corrupt.*install the package again"):
        load_embedded(name, tmp_path)


def test_the_decoded_arrays_are_checked_too(tmp_path: Path) -> None:
    """A right file that decodes to something else (here: a manifest that describes another array) is refused."""
    shutil.copy(EMBEDDED / "fmnist_pocket.bz2", tmp_path)
    manifest = json.loads((EMBEDDED / "fmnist_pocket.json").read_text())
    manifest["arrays"]["test_labels"]["sha256"] = "0" * 64
    (tmp_path / "fmnist_pocket.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"test_labels in .* is corrupt"):
        load_embedded("fmnist_pocket", tmp_path)


def test_a_missing_file_and_an_unknown_name(tmp_path: Path) -> None:
    """Both are DataErrors that say what is wrong."""
    with pytest.raises(DataError, match="cannot read the embedded data set tiny"):
        load_embedded("tiny", tmp_path)
    with pytest.raises(DataError, match="unknown data set 'mnist'; known: cifar10, "):
        load_dataset("mnist")
    assert not available("mnist").ok


def test_shrinking_is_the_exact_area_average_on_white(tmp_path: Path) -> None:
    """A picture of odd size, with alpha, agrees with a slow average over a common multiple of both grids."""
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "picture.png")
    read = read_rgba(tmp_path / "picture.png")
    assert read is not None
    assert np.array_equal(read, rgba)
    alpha = rgba[..., 3:] / 255
    square = np.full((7, 7, 3), 255.0)
    square[1:6] = rgba[..., :3] * alpha + 255 * (1 - alpha)
    fine = square.repeat(32, axis=0).repeat(32, axis=1).reshape(32, 7, 32, 7, 3).mean(axis=(1, 3))
    assert np.abs(shrink(rgba) - fine.transpose(2, 0, 1)).max() <= 0.5 + 1e-9


def test_the_builder_reproduces_fashion_mnist_pocket() -> None:
    """From Debian's package the builder makes the embedded files again, byte for byte."""
    if not DEBIAN_FOLDER.is_dir():
        pytest.skip(f"Debian's package dataset-fashion-mnist is not installed: {DEBIAN_FOLDER} is missing")
    assert build_fmnist_pocket.build().differences(EMBEDDED) == []


def test_the_builder_reproduces_tiny() -> None:
    """`tiny` is a part of OpenClipart-100, byte for byte."""
    assert build_tiny.build().differences(EMBEDDED) == []


def test_the_builder_reproduces_openclipart() -> None:
    """From Debian's package the builder makes the embedded files again, byte for byte (it decodes 5,000 pictures)."""
    if not build_openclipart.SOURCE.is_dir():
        pytest.skip(f"Debian's package openclipart-png is not installed: {build_openclipart.SOURCE} is missing")
    if not os.environ.get("INITSEARCH_TEST_BUILDERS"):
        pytest.skip(
            "takes minutes; set INITSEARCH_TEST_BUILDERS=1, or: python -m benchmark.data.build_openclipart --check"
        )
    assert build_openclipart.build().differences(EMBEDDED) == []


def test_check_finds_a_difference(tmp_path: Path) -> None:
    """`--check` on a folder without the files exits 1 and names them; a missing source says what to install."""
    command = [sys.executable, "-m", "benchmark.data.build_fmnist_pocket", "--check", "--out", str(tmp_path)]
    run = subprocess.run([*command, "--source", str(tmp_path / "no")], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "apt-get install dataset-fashion-mnist" in run.stderr
    if DEBIAN_FOLDER.is_dir():
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 1
        assert f"{tmp_path / 'fmnist_pocket.bz2'}: missing" in run.stderr
        assert not any(tmp_path.iterdir())


def test_every_picture_names_its_source() -> None:
    """The manifest says which file each clip-art picture was, in the folder that is its class."""
    arrays, manifest = unpack("openclipart100", EMBEDDED)
    for split in ("train", "test"):
        folders = [name.rpartition("/")[0] for name in manifest["sources"][split]]
        assert folders == [manifest["class_names"][label] for label in arrays[f"{split}_labels"]]
