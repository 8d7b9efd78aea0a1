"""The full sets: found where people keep them, checked byte for byte, and errors that say what to do."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.data import DataError, DataNotFound, available, cifar, fashion, load_dataset
from benchmark.data.idx import parse_idx
from benchmark.vision import import_networks
from tests.benchmark.data_files import idx_bytes, write_cifar


@pytest.fixture(autouse=True)
def empty_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cache, no variable, no Debian package: only what a test puts somewhere can be found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("INITSEARCH_DATA_ROOT", raising=False)
    monkeypatch.setattr(fashion, "DEBIAN_FOLDER", tmp_path / "debian")


@pytest.fixture
def cifar100(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A data root with small CIFAR-100 files; the checksums expected are theirs."""
    root = tmp_path / "root"
    small = write_cifar(root, "cifar100")
    monkeypatch.setitem(cifar.CIFAR, "cifar100", small)
    return root


@pytest.fixture
def fmnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with small FashionMNIST files, as Debian's package has them; the checksums expected are theirs."""
    folder = tmp_path / "debian"
    folder.mkdir()
    rng = np.random.default_rng(0)
    checksums = {}
    for key, filename in fashion.FILES.items():
        count = 30 if "train" in key else 20
        shape = (count, 28, 28) if "images" in key else (count,)
        content = idx_bytes(rng.integers(0, 256 if "images" in key else 10, shape, dtype=np.uint8))
        (folder / f"{filename}.gz").write_bytes(gzip.compress(content))
        checksums[key] = hashlib.sha256(content).hexdigest()
    # The default argument of read_fashion_mnist is this very mapping, so its entries are replaced.
    for key, checksum in checksums.items():
        monkeypatch.setitem(fashion.SHA256, key, checksum)
    return folder


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_in_the_genuine_format_is_read(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pictures arrive channel first, as the file has them, with labels, class names and the folder they came from."""
    small = write_cifar(tmp_path, name)
    monkeypatch.setitem(cifar.CIFAR, name, small)
    data = load_dataset(name, data_root=tmp_path)
    folder = tmp_path / cifar.CIFAR[name].folder
    with (folder / cifar.CIFAR[name].filenames[0]).open("rb") as file:
        first = torch.from_numpy(pickle.load(file)["data"][0].reshape(3, 32, 32))
    assert torch.equal(data.train_images[0], first)
    assert data.train_images.shape == (40, 3, 32, 32)
    assert data.test_images.shape == (20, 3, 32, 32)
    assert data.train_images.is_contiguous()
    assert data.test_labels.tolist() == [i % data.num_classes for i in range(20)]
    assert data.class_names[3] == "class 3"
    assert str(folder) in data.provenance
    assert data.mean == pytest.approx((data.train_images / 255).mean(dim=(0, 2, 3)).tolist(), abs=1e-5)


@pytest.mark.parametrize("filename", ["train", "test", "meta"])
def test_one_changed_byte_is_found_before_anything_is_unpickled(cifar100: Path, filename: str) -> None:
    """A damaged (or hostile) file is named; its pickle never runs."""
    trap = cifar100 / "trap"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (trap,))

    path = cifar100 / "cifar-100-python" / filename
    hostile = pickle.dumps(Hostile())
    pickle.loads(hostile)
    assert trap.exists(), "the trap must work for this test to mean something"
    trap.unlink()
    path.write_bytes(hostile)
    with pytest.raises(DataError, match=f"{path} is corrupt: its md5 is") as caught:
        load_dataset("cifar100", data_root=cifar100)
    assert not isinstance(caught.value, DataNotFound)
    assert not trap.exists()


def test_a_folder_named_like_a_file_is_no_data_set(cifar100: Path) -> None:
    """It was "found", and the search began; then the first evaluation could not read it."""
    path = cifar100 / "cifar-100-python" / "train"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataNotFound, match="some files are missing"):
        load_dataset("cifar100", data_root=cifar100)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_forbidden_data_root(tmp_path: Path) -> None:
    """A data root without permission is told apart from one that is missing."""
    tmp_path.chmod(0)
    try:
        with pytest.raises(DataError, match="cannot be read"):
            load_dataset("cifar100", data_root=tmp_path)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("name", ["cifar100", "openclipart100"])
def test_a_data_root_that_is_missing_or_a_file(tmp_path: Path, name: str) -> None:
    """A typing error in --data-root is an error, even where the data would be found without it."""
    with pytest.raises(DataNotFound, match="does not exist"):
        load_dataset(name, data_root=tmp_path / "nowhere")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataError, match="is no folder"):
        load_dataset(name, data_root=file)
    assert "is no folder" in available(name, file).reason


def test_a_folder_named_like_a_file_is_not_that_file(fmnist: Path) -> None:
    """A folder called t10k-labels-idx1-ubyte.gz passed for the file, which then could not be read."""
    file = fmnist / "t10k-labels-idx1-ubyte.gz"
    file.unlink()
    file.mkdir()
    with pytest.raises(DataNotFound, match="some files are missing"):
        load_dataset("fmnist")


def test_a_folder_named_like_a_file_of_cifar_is_not_that_file(tmp_path: Path) -> None:
    """`train`, a folder, was said to be found, and could not be read when the search began."""
    for file in ("train", "test", "meta"):
        (tmp_path / "cifar-100-python" / file).mkdir(parents=True)
    assert not available("cifar100", tmp_path).ok
    with pytest.raises(DataNotFound, match="some files are missing"):
        load_dataset("cifar100", data_root=tmp_path)


def test_a_folder_beside_the_packed_file_does_not_hide_it(fmnist: Path) -> None:
    """`t10k-labels-idx1-ubyte`, a folder, was taken in place of the .gz beside it."""
    (fmnist / "t10k-labels-idx1-ubyte").mkdir()
    assert len(load_dataset("fmnist").test_labels) == 20


def test_what_is_nowhere_names_every_place_and_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message lists data root, variable, cache folder and Debian's folder, and three ways to get the data."""
    given, variable = tmp_path / "given", tmp_path / "variable"
    given.mkdir()
    variable.mkdir()
    monkeypatch.setenv("INITSEARCH_DATA_ROOT", str(variable))
    with pytest.raises(DataNotFound) as caught:
        load_dataset("fmnist", data_root=given)
    message = str(caught.value)
    for place in (given, variable, tmp_path / "cache", tmp_path / "debian"):
        assert str(place) in message
    for remedy in ("--download", "INITSEARCH_DATA_ROOT", "apt-get install dataset-fashion-mnist"):
        assert remedy in message
    assert message == available("fmnist", given).reason


def test_an_archive_that_was_never_unpacked_is_noticed(tmp_path: Path) -> None:
    """Who downloaded the .tar.gz by hand reads the command that is missing."""
    (tmp_path / "cifar-100-python.tar.gz").touch()
    with pytest.raises(DataNotFound, match="tar -xzf"):
        load_dataset("cifar100", data_root=tmp_path)


def test_the_data_root_comes_before_the_variable(
    cifar100: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With data in both places the flag wins; with an empty data root the variable's folder serves."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("INITSEARCH_DATA_ROOT", str(cifar100))
    assert available("cifar100", empty).where == cifar100 / "cifar-100-python"
    monkeypatch.setenv("INITSEARCH_DATA_ROOT", str(empty))
    found = available("cifar100", cifar100)
    assert (found.ok, found.where) == (True, cifar100 / "cifar-100-python")
    assert available("cifar100", cifar100 / "cifar-100-python").ok, "the folder itself may be named, too"


def test_fashion_mnist_is_padded_and_its_channels_share_memory(fmnist: Path) -> None:
    """28×28 grey lies in the middle of 32×32; three channels cost the memory of one."""
    data = load_dataset("fmnist")
    raw = parse_idx(gzip.decompress((fmnist / "train-images-idx3-ubyte.gz").read_bytes()))
    assert data.train_images.shape == (30, 3, 32, 32)
    assert data.train_images.stride(1) == 0
    assert np.array_equal(data.train_images[:, 2, 2:30, 2:30].numpy(), raw)
    assert int(data.train_images[:, :, :2].max()) == 0
    assert data.class_names[9] == "Ankle boot"


def test_unpacked_files_below_a_data_root_are_checked_too(fmnist: Path, tmp_path: Path) -> None:
    """torchvision's own layout works, and zeroed bytes, which torchvision loads without a word, are caught."""
    raw = tmp_path / "mine" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for filename in fashion.FILES.values():
        (raw / filename).write_bytes(gzip.decompress((fmnist / f"{filename}.gz").read_bytes()))
    assert str(raw) in load_dataset("fmnist", data_root=tmp_path / "mine").provenance
    images = raw / "train-images-idx3-ubyte"
    content = images.read_bytes()
    images.write_bytes(content[:1000] + bytes(1000) + content[2000:])
    with pytest.raises(DataError, match=f"{images} is corrupt: its sha256"):
        load_dataset("fmnist", data_root=tmp_path / "mine")


def test_a_cut_gzip_file_is_corrupt(fmnist: Path) -> None:
    """A download that broke off does not end in a traceback from gzip."""
    path = fmnist / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{path} is corrupt: it does not unpack"):
        load_dataset("fmnist")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (b"\x00\x00\x0d\x01" + bytes(8), "not an idx file"),
        (b"\x00\x00\x08\x03" + bytes(4), "cut short"),
        (idx_bytes(np.zeros(5, np.uint8))[:-1], "announces 13 bytes, the file has 12"),
        (idx_bytes(np.zeros(5, np.uint8)) + b"x", "announces 13 bytes, the file has 14"),
    ],
)
def test_malformed_idx(content: bytes, message: str) -> None:
    """Anything but a whole idx file of bytes is refused with the reason."""
    with pytest.raises(ValueError, match=message):
        parse_idx(content)


def test_the_genuine_fashion_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with Debian's package the full set loads from there, unpacked nowhere."""
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    monkeypatch.setattr(fashion, "DEBIAN_FOLDER", folder)
    data = load_dataset("fmnist")
    assert len(data.train_images) == 60_000
    assert data.test_labels.bincount().tolist() == [1000] * 10
    # The customary 0.2860 is the mean of 28×28; the black frame belongs to these pictures.
    assert data.mean[0] == pytest.approx(0.2860 * 28**2 / 32**2, abs=1e-4)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_files_and_checksums_are_those_of_torchvision(name: str) -> None:
    """What torchvision downloads is what the loader accepts: same folder, same files, same md5."""
    try:  # it is about names and numbers, so a torchvision that does not fit torch will do
        datasets = import_networks("torchvision.datasets")
    except ImportError as error:
        pytest.skip(str(error))
    theirs = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    ours = cifar.CIFAR[name]
    assert (ours.folder, ours.archive, ours.names_key) == (theirs.base_folder, theirs.filename, theirs.meta["key"])
    assert [*ours.train.items()] == [tuple(entry) for entry in theirs.train_list]
    assert [*ours.test.items()] == [tuple(entry) for entry in theirs.test_list]
    assert [*ours.meta.items()] == [(theirs.meta["filename"], theirs.meta["md5"])]
