"""Weights from a checkpoint: files and URLs, prefixes, and checkpoints that are missing, hostile or do not fit."""

from __future__ import annotations

import functools
import pickle
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmark.initializers import CheckpointError, initialize


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


@pytest.fixture
def donor() -> dict[str, Tensor]:
    model = network()
    with torch.no_grad():
        model.get_buffer("1.running_mean").fill_(0.5)
    return model.state_dict()


def assert_loaded(model: nn.Module, donor: dict[str, Tensor]) -> None:
    for key, value in model.state_dict().items():
        assert torch.equal(value, donor[key]), key


@pytest.mark.parametrize("form", ["plain", "state_dict", "data_parallel", "safetensors"])
def test_a_checkpoint_wins_over_everything(tmp_path: Path, donor: dict[str, Tensor], form: str) -> None:
    """However it was saved, and though it stands first in the config."""
    path = tmp_path / ("it.safetensors" if form == "safetensors" else "it.pth")
    if form == "safetensors":
        save_file(donor, path)
    else:
        wrapped = {f"module.{key}": value for key, value in donor.items()} if form == "data_parallel" else donor
        torch.save({"state_dict": wrapped, "epoch": 3} if form != "plain" else wrapped, path)
    model = network()
    log = initialize(
        model, [{"type": "Pretrained", "checkpoint": str(path)}, {"type": "Kaiming", "layer": ["Conv2d", "Linear"]}]
    )
    assert_loaded(model, donor)
    assert {line.rule for line in log.parameters} == {f"PretrainedInit: load from {path}"}
    assert not log.unset


def test_a_prefix_takes_a_part_and_an_override_fills_a_part(tmp_path: Path, donor: dict[str, Tensor]) -> None:
    """`prefix` chooses in the checkpoint, `override` in the module."""
    path = tmp_path / "it.pth"
    torch.save({f"backbone.{key}": value for key, value in donor.items()} | {"head.weight": torch.ones(1)}, path)
    model = nn.Sequential(network(), nn.Linear(2, 2))
    part = {"name": "0", "type": "Pretrained", "checkpoint": str(path), "prefix": "backbone"}
    log = initialize(model, {"type": "Constant", "val": 1, "layer": "Linear", "override": part})
    assert_loaded(model[0], donor)
    assert log["1.weight"].rule == "ConstantInit: val=1, bias=0"


def test_keys_without_a_place_are_a_warning(tmp_path: Path, donor: dict[str, Tensor]) -> None:
    """A checkpoint may hold more than the module needs, and the log names what was left."""
    torch.save(donor | {"head.weight": torch.ones(1)}, tmp_path / "it.pth")
    log = initialize(network(), {"type": "Pretrained", "checkpoint": str(tmp_path / "it.pth")})
    assert log.warnings[0].endswith("1 keys have no place in the module: head.weight")


def test_a_checkpoint_that_does_not_fit_names_the_keys(tmp_path: Path, donor: dict[str, Tensor]) -> None:
    """Missing keys and other shapes, all in one message; the module stays as it was."""
    wrong = {key: value for key, value in donor.items() if key != "2.bias"} | {"0.weight": torch.ones(4, 3, 1, 1)}
    torch.save(wrong | {"extra": torch.ones(1)}, tmp_path / "it.pth")
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    message = (
        r"does not fit Sequential: missing: 2.bias; other shape: 0.weight \(checkpoint \(4, 3, 1, 1\), "
        r"module \(4, 3, 3, 3\)\); not in the module: extra"
    )
    with pytest.raises(CheckpointError, match=message):
        initialize(model, {"type": "Pretrained", "checkpoint": str(tmp_path / "it.pth")})
    assert_loaded(model, before)
    with pytest.raises(CheckpointError, match=r"has no keys below 'neck.'; it has: 0, 1, 2, extra"):
        initialize(model, {"type": "Pretrained", "checkpoint": str(tmp_path / "it.pth"), "prefix": "neck"})


class Hostile:
    """Runs code when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.victim,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("cfg", [{}, {"override": {"name": "0", "type": "Pretrained", "checkpoint": "nowhere.pth"}}])
def test_a_missing_checkpoint_touches_nothing(tmp_path: Path, cfg: dict[str, object]) -> None:
    """Everything else had been set already when the file turned out to be missing."""
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    entries = [{"type": "Kaiming", "layer": "Conv2d", **cfg}]
    if not cfg:
        entries.append({"type": "Pretrained", "checkpoint": str(tmp_path / "nowhere.pth")})
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nowhere\.pth"):
        initialize(model, entries)
    assert_loaded(model, before)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    """A pickle that would write a file is refused, and the file is not there."""
    victim = tmp_path / "victim"
    torch.save({"state_dict": Hostile(victim)}, tmp_path / "it.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Hostile(victim)))
    for name in ("it.pth", "raw.pth"):
        with pytest.raises(CheckpointError, match="would run code that is in the file, or it is damaged"):
            initialize(network(), {"type": "Pretrained", "checkpoint": str(tmp_path / name)})
    assert not victim.exists()


def test_unreadable_checkpoints_are_one_kind_of_error(tmp_path: Path) -> None:
    """Nothing there, a folder, noise, a list, an unknown device: what failed and where."""
    (tmp_path / "noise.safetensors").write_bytes(b"\xff" * 100)
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({}, tmp_path / "empty.pth")
    torch.save(network().state_dict(), tmp_path / "good.pth")
    for checkpoint, device, message in (
        ("nothing.pth", "cpu", "no checkpoint at"),
        ("", "cpu", "no checkpoint at"),
        ("noise.safetensors", "cpu", "cannot read"),
        ("list.pth", "cpu", "holds no state dict .* but a list"),
        ("empty.pth", "cpu", "holds no state dict"),
        ("good.pth", "abacus", "map_location 'abacus'"),
        ("good.pth", "meta", "with map_location 'meta' it has no values"),
    ):
        cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / checkpoint), "map_location": device}
        with pytest.raises(CheckpointError, match=message):
            initialize(network(), cfg)


@pytest.mark.parametrize("name", ["torchvision://resnet50", "open-mmlab://resnet50_caffe", "s3://bucket/x.pth"])
def test_names_of_other_libraries_are_not_taken_for_paths(name: str) -> None:
    """A config of OpenMMLab had "no checkpoint at torchvision:/resnet50", a path that nobody wrote."""
    with pytest.raises(CheckpointError, match=rf"^{name}: names of [a-z0-9-]+:// are not known here; give the path"):
        initialize(network(), {"type": "Pretrained", "checkpoint": name})


def test_values_are_cast_to_the_modules_precision(tmp_path: Path, donor: dict[str, Tensor]) -> None:
    """A float32 checkpoint in a bfloat16 module."""
    torch.save(donor, tmp_path / "it.pth")
    model = network().to(torch.bfloat16)
    initialize(model, {"type": "Pretrained", "checkpoint": str(tmp_path / "it.pth")})
    assert torch.equal(model.get_parameter("0.weight"), donor["0.weight"].to(torch.bfloat16))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A local web server over tmp_path, and what it was asked for; downloads are cached below tmp_path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", asked
        httpd.shutdown()


def test_a_url_is_fetched_once(tmp_path: Path, donor: dict[str, Tensor], server: tuple[str, list[str]]) -> None:
    """The second time it comes from the cache; a missing page is an error that says so and leaves nothing behind."""
    url, asked = server
    torch.save(donor, tmp_path / "it.pth")
    for _ in range(2):
        model = network()
        initialize(model, {"type": "Pretrained", "checkpoint": f"{url}/it.pth"})
        assert_loaded(model, donor)
    assert asked == ["/it.pth"]
    with pytest.raises(CheckpointError, match=r"cannot fetch http.*404"):
        initialize(network(), {"type": "Pretrained", "checkpoint": f"{url}/no.pth"})
    assert len(list((tmp_path / "cache/initsearch/checkpoints").iterdir())) == 1


def test_a_url_with_prefix_and_map_location(
    tmp_path: Path, donor: dict[str, Tensor], server: tuple[str, list[str]]
) -> None:
    """A part of a checkpoint behind a URL, as safetensors; the query is no part of the file's name."""
    url, _ = server
    save_file({f"backbone.{key}": value for key, value in donor.items()}, tmp_path / "it.safetensors")
    model = network()
    checkpoint = f"{url}/it.safetensors?download=true"
    log = initialize(
        model, {"type": "Pretrained", "checkpoint": checkpoint, "prefix": "backbone", "map_location": "cpu"}
    )
    assert_loaded(model, donor)
    assert log["0.weight"].rule == f"PretrainedInit: load from {checkpoint}"


def test_an_error_page_is_not_kept(tmp_path: Path, donor: dict[str, Tensor], server: tuple[str, list[str]]) -> None:
    """A page that came with status 200 in the place of the file was read from the cache ever after."""
    url, _ = server
    cfg = {"type": "Pretrained", "checkpoint": f"{url}/it.pth"}
    (tmp_path / "it.pth").write_text("<html>please log in</html>")
    with pytest.raises(CheckpointError, match=r"it\.pth is not a plain torch checkpoint"):
        initialize(network(), cfg)
    torch.save(donor, tmp_path / "it.pth")
    model = network()
    initialize(model, cfg)
    assert_loaded(model, donor)
