"""Tasks made of a user's files: what is refused, in one sentence, and what a result's key is made of."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from benchmark import networks
from benchmark.networks import NetworkError
from benchmark.results import result_key
from benchmark.sources import captured, forget, import_file
from benchmark.task import Task
from benchmark.task_loading import PrepareTask, Problem, find_trainer, trainer_sees
from benchmark.task_schema import TaskTable
from tests.benchmark.task_files import NETWORK, write_task


@pytest.fixture(autouse=True)
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's modules are imported into this process, and forgotten after the test."""
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    forget(tmp_path)


class _Nobody:
    """The parent of a call that reports and asks nothing."""

    def report(self, content: Any, /) -> None:
        raise AssertionError(content)

    def ask(self, question: Any, /) -> Any:
        raise AssertionError(question)


def made(folder: Path, **keys: Any) -> Task | Problem:
    """The task of a table in `folder`."""
    table = TaskTable.model_validate({"network": "net.py:build", "data": "toys.npz", "batch_size": 32, **keys})
    return PrepareTask(table, folder)(_Nobody())


def task(folder: Path, **keys: Any) -> Task:
    found = made(folder, **keys)
    assert isinstance(found, Task), found
    return found


def test_a_users_network_is_described(tmp_path: Path) -> None:
    write_task(tmp_path)
    found = task(tmp_path)
    assert (found.name, found.num_classes, found.sizes, found.picture) == ("net-toys", 4, (96, 32), (1, 12, 12))
    assert found.network is not None
    assert [source.name for source in found.network.sources] == ["net", "blocks"]
    assert dict(found.network.layout)["2.gamma"] == (8, 1, 1)
    assert found.recipe.crop_padding == 2
    built = networks.build(found.network, 3)
    again = networks.build(found.network, 3)
    assert networks.constructed_sha256(built) == networks.constructed_sha256(again)
    assert networks.constructed_sha256(built) != networks.constructed_sha256(networks.build(found.network, 4))


def test_a_network_is_built_equal_in_each_lane(tmp_path: Path) -> None:
    """The lanes of a process share torch's generator: constructors that ran side by side drew each other's numbers."""
    slow = NETWORK.replace("    return", "    time.sleep(0.2)\n    return").replace(
        "from blocks", "import time\nfrom blocks"
    )
    write_task(tmp_path, network=slow)
    network = task(tmp_path).network
    assert network is not None
    alone = [networks.constructed_sha256(networks.build(network, seed)) for seed in (3, 4)]
    with ThreadPoolExecutor(2) as lanes:
        together = [networks.constructed_sha256(built) for built in lanes.map(networks.build, [network] * 2, (3, 4))]
    assert together == alone


@pytest.mark.parametrize(
    ("encoding", "head"), [("utf-8-sig", ""), ("latin-1", "# -*- coding: latin-1 -*-\n# é\n"), ("utf-8", "# é\r\n")]
)
def test_a_network_file_in_any_encoding_that_python_reads(tmp_path: Path, encoding: str, head: str) -> None:
    """A file with a byte order mark ended in a traceback: Python reads it, but its text was parsed with the mark."""
    write_task(tmp_path)
    (tmp_path / "net.py").write_bytes((head + NETWORK).encode(encoding))
    found = task(tmp_path).network
    assert found is not None
    assert found.sources[0].text == head.replace("\r", "") + NETWORK


def test_a_file_in_another_encoding_than_it_says_is_named(tmp_path: Path) -> None:
    """A comment with an é in Latin-1 was "a module cannot be read", whichever; in a trainer it was a traceback."""
    write_task(tmp_path)
    (tmp_path / "net.py").write_bytes(NETWORK.encode() + b"# caf\xe9\n")
    found = made(tmp_path)
    assert isinstance(found, Problem)
    assert "net.py: 'utf-8' codec" in found.text
    forget(tmp_path)
    (tmp_path / "train.py").write_bytes(TRAINER.encode() + b"# caf\xe9\n")
    with pytest.raises(NetworkError, match=r"train\.py: 'utf-8' codec .*; save it as UTF-8"):
        find_trainer("train.py:train", tmp_path)


def test_links_are_followed_to_a_users_modules(tmp_path: Path) -> None:
    """A folder or a file that is a link is the place it leads to, for what is captured and for what is forgotten."""
    theirs, elsewhere = tmp_path / "theirs", tmp_path / "elsewhere"
    for folder in (theirs / "site-packages", elsewhere):
        folder.mkdir(parents=True)
    (theirs / "main.py").write_text("import linked_out, linked_in, own, installed\n")
    (theirs / "own.py").write_text("")
    (theirs / "site-packages" / "installed.py").write_text("")
    (elsewhere / "linked_out.py").write_text("")
    (theirs / "linked_out.py").symlink_to(elsewhere / "linked_out.py")
    (theirs / "real.py").write_text("")
    (elsewhere / "linked_in.py").symlink_to(theirs / "real.py")
    (tmp_path / "link").symlink_to(theirs)
    sys.path[:0] = [str(elsewhere), str(tmp_path / "link" / "site-packages")]
    import_file("main.py", tmp_path / "link")
    names = {"main", "own", "linked_in"}
    assert {source.name: source.file for source in captured("main.py", tmp_path / "link")} == {
        **{name: f"{name}.py" for name in ("main", "own")},
        "linked_in": "real.py",
    }
    forget(tmp_path / "link")
    assert names.isdisjoint(sys.modules)
    assert {"linked_out", "installed"} <= sys.modules.keys()
    for name in ("linked_out", "installed"):
        del sys.modules[name]


def test_a_function_that_takes_any_keyword_gets_num_classes(tmp_path: Path) -> None:
    """It was called by place, and told that it is called by name."""
    net = "nn.Sequential(nn.Flatten(), nn.Linear(144, options['num_classes']))"
    text = HEAD + f"def build(**options):\n    return {net}\n"
    write_task(tmp_path, network=text)
    assert task(tmp_path).num_classes == 4


HEAD = "import torch\nfrom torch import nn\n"


@pytest.mark.parametrize(
    ("network", "keys", "said"),
    [
        (NETWORK, {"network": "other.py:build"}, "other.py: no such file"),
        (NETWORK, {"network": "net.py:make"}, "net.py has no function 'make'"),
        (NETWORK, {"network": "resnet57"}, "is none of ours"),
        (NETWORK, {"data": "none.npz"}, "none.npz: no such file"),
        (NETWORK, {"data": "none"}, "none of our data sets"),
        # This made a run directory, and then the exit code was 1.
        (NETWORK, {"packages": ["moon"]}, "no installed package is imported as moon"),
        ("import moon\n", {}, "ModuleNotFoundError: No module named 'moon'"),
        ("raise SystemExit(3)\n", {}, "SystemExit: 3"),
        ("def build(", {}, "SyntaxError"),
        ("build = 3\n", {}, "build is no function"),
        (HEAD + "def build(num_classes):\n    return 3\n", {}, "returns an int, not a torch.nn.Module"),
        (HEAD + "def build(num_classes, width):\n    return 3\n", {}, "takes (num_classes, width)"),
        (HEAD + "def build():\n    return 3\n", {}, "build(num_classes=4)"),
        (
            HEAD + "m = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))\ndef build(n):\n    return m\n",
            {},
            "returns the same module at each call",
        ),
        (HEAD + "def build(num_classes):\n    return nn.Flatten()\n", {}, "has no parameters"),
        (HEAD + "def build(num_classes):\n    return nn.LazyLinear(num_classes)\n", {}, "a lazy parameter"),
        (
            HEAD + "def build(n):\n    m = nn.Linear(144, n)\n"
            "    m.places = nn.Parameter(torch.arange(3), requires_grad=False)\n    return m\n",
            {},
            "places is torch.int64 on cpu, not float32 on cpu; what is not trained belongs into register_buffer",
        ),
        (  # a traceback: the buffer has no values to compare
            HEAD + "def build(n):\n    return nn.Sequential(nn.LazyBatchNorm2d(affine=False), nn.Flatten(), "
            "nn.Linear(144, n))\n",
            {},
            "0.running_mean is a lazy buffer",
        ),
        (  # "element 0 of tensors does not require grad and does not have a grad_fn"
            HEAD + "def build(n):\n    return nn.Sequential(nn.Flatten(), nn.Linear(144, n)).requires_grad_(False)\n",
            {},
            "all its parameters are frozen",
        ),
        (  # a traceback when the first candidate's values were copied
            HEAD + "def build(n):\n    m = nn.Sequential(nn.Flatten(), nn.Linear(144, n))\n"
            "    m[1].bias = nn.Parameter(torch.zeros(1).expand(n))\n    return m\n",
            {},
            "values of 1.bias share memory",
        ),
        (  # "give each parameter values of its own", which is not what their author wants
            HEAD
            + "def build(n):\n    m = nn.Sequential(nn.Flatten(), nn.Linear(144, 9), nn.Linear(9, 9), nn.Linear(9, 9), "
            "nn.Linear(9, n))\n    m[3].weight.data = m[2].weight.data\n    return m\n",
            {},
            "2.weight and 3.weight are two parameters that share memory; to tie them",
        ),
        (
            HEAD + "def build(num_classes):\n    return nn.Linear(3, 4).double()\n",
            {},
            "not float32 on cpu; .float() makes it so",
        ),
        (HEAD + "def build(num_classes):\n    return nn.Conv2d(3, 4, 3)\n", {}, "fails on a picture of 1×12×12"),
        (
            HEAD + "def build(n):\n    return nn.Sequential(nn.Flatten(), nn.Linear(144, 5))\n",
            {},
            "4 classes need (2, 4)",
        ),
        (HEAD + "def build(n):\n    return nn.LSTM(12, 4)\n", {}, "fails on a picture"),
        (
            HEAD + "import os\ndef build(n):\n    m = nn.Sequential(nn.Flatten(), nn.Linear(144, n))\n"
            "    nn.init.constant_(m[1].bias, float(os.urandom(1)[0]))\n    return m\n",
            {},
            "is random otherwise",
        ),
        (
            HEAD + "from pathlib import Path\ndef build(n):\n    Path(__file__).read_text()\n"
            "    return nn.Sequential(nn.Flatten(), nn.Linear(144, n))\n",
            {},
            "reads files",
        ),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path: Path, network: str, keys: dict[str, Any], said: str) -> None:
    write_task(tmp_path, network=network)
    found = made(tmp_path, **keys)
    assert isinstance(found, Problem), found
    assert said in found.text
    assert "\n" not in found.text


def test_parameters_that_lie_between_each_other_share_no_value(tmp_path: Path) -> None:
    """The columns of one matrix, as parameters of two layers, were said to share memory."""
    network = HEAD + (
        "def build(n):\n    m = nn.Sequential(nn.Flatten(), nn.Linear(144, n), nn.Linear(n, n))\n"
        "    both = torch.randn(n, 2 * n)\n    m.append(nn.Linear(n, n))\n"
        "    m[2].weight, m[3].weight = nn.Parameter(both[:, :n]), nn.Parameter(both[:, n:])\n    return m\n"
    )
    write_task(tmp_path, network=network)
    assert isinstance(made(tmp_path), Task)


def test_bad_arrays_name_their_file(tmp_path: Path) -> None:
    write_task(tmp_path, test_labels=np.zeros(32, int))
    found = made(tmp_path)
    assert isinstance(found, Problem)
    assert "toys.npz: class 1 has no test picture" in found.text


def _key(found: Task) -> str:
    return result_key("x", found, 0, environment={})


def test_a_key_is_made_of_contents(tmp_path: Path) -> None:
    """Where the files lie does not matter; the network's text, its modules', the data and the recipe do."""
    for name in ("a", "b"):
        write_task(tmp_path / name)
    first = _key(task(tmp_path / "a"))
    assert _key(task(tmp_path / "b")) == first
    keys = {first, _key(task(tmp_path / "b", lr=0.1)), _key(task(tmp_path / "b", image_size=8))}
    blocks = tmp_path / "b/blocks.py"
    blocks.write_text(blocks.read_text().replace("0.1 +", "0.2 +"))
    keys.add(_key(task(tmp_path / "b")))
    write_task(tmp_path / "b", train_labels=np.arange(96)[::-1] % 4)
    keys.add(_key(task(tmp_path / "b")))
    assert len(keys) == 5


def test_parts_of_a_network_that_has_more_than_convolutions(tmp_path: Path) -> None:
    """BatchNorm without affine, a transposed convolution, tied weights, weight_norm and a buffer are all described."""
    network = HEAD + (
        "class Net(nn.Module):\n"
        "    def __init__(self, n):\n"
        "        super().__init__()\n"
        "        self.up = nn.ConvTranspose2d(1, 4, 2, stride=2)\n"
        "        self.norm = nn.BatchNorm2d(4, affine=False)\n"
        "        self.one = nn.Linear(4, 4)\n"
        "        self.two = nn.Linear(4, 4)\n"
        "        self.two.weight = self.one.weight\n"
        "        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(4, n))\n"
        "        self.register_buffer('noise', torch.randn(3))\n"
        "    def forward(self, x):\n"
        "        return self.head(self.two(self.one(self.norm(self.up(x)).mean((2, 3)))))\n"
        "def build(num_classes):\n    return Net(num_classes)\n"
    )
    write_task(tmp_path, network=network)
    layout = task(tmp_path).network.layout  # type: ignore[union-attr]
    assert [name for name, _ in layout] == [
        *("up.weight", "up.bias", "one.weight", "one.bias", "two.bias", "head.bias"),
        *("head.parametrizations.weight.original0", "head.parametrizations.weight.original1"),
    ]


def test_buffers_of_any_kind_are_compared(tmp_path: Path) -> None:
    """A complex buffer that .conj() made, a sparse one, or one without values ended in a traceback of torch."""
    network = HEAD + (
        "class Net(nn.Module):\n"
        "    def __init__(self, n):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(144, n)\n"
        "        self.register_buffer('phase', torch.randn(3, dtype=torch.complex64).conj())\n"
        "        self.register_buffer('sparse', torch.eye(3).to_sparse())\n"
        "        self.register_buffer('rows', torch.eye(3).to_sparse_csr())\n"
        "        self.register_buffer('later', torch.empty(3, device='meta'))\n"
        "    def forward(self, x):\n"
        "        return self.head(x.flatten(1))\n"
        "def build(num_classes):\n    return Net(num_classes)\n"
    )
    write_task(tmp_path, network=network)
    first = task(tmp_path).network
    write_task(tmp_path, network=network.replace("torch.eye(3).to_sparse()", "(2 * torch.eye(3)).to_sparse()"))
    other = task(tmp_path).network
    assert first is not None
    assert other is not None
    assert first.constructed != other.constructed


UNTRACEABLE = HEAD + (
    "class Net(nn.Module):\n"
    "    def __init__(self, n):\n        super().__init__()\n        self.head = nn.Linear(144, n)\n"
    "    def forward(self, x):\n"
    "        if x.sum() > 0:\n            x = -x\n"
    "        return self.head(x.flatten(1))\n"
    "def build(num_classes):\n    return Net(num_classes)\n"
)


def test_a_network_that_cannot_be_traced_is_known_as_such(tmp_path: Path) -> None:
    """A forward that branches on values has no graph. Its key and the records of other networks stay as they were."""
    write_task(tmp_path)
    plain = task(tmp_path)
    write_task(tmp_path, network=UNTRACEABLE)
    found = task(tmp_path)
    assert plain.network is not None
    assert found.network is not None
    assert plain.network.found is not None
    assert found.network.found is not None
    assert (plain.network.found.traced, found.network.found.traced) == (True, False)
    assert "traced" not in str(found.identity())
    assert TypeAdapter(networks.Network).validate_python(found.as_json()["network"]) == found.network


def test_one_of_our_networks_on_a_users_pictures(tmp_path: Path) -> None:
    write_task(
        tmp_path, train_images=np.zeros((96, 12, 12, 3), np.uint8), test_images=np.zeros((32, 12, 12, 3), np.uint8)
    )
    found = task(tmp_path, network="resnet20")
    assert found.strict
    assert found.network_for("def initialize_weights…") is None
    from benchmark.recipes.as_built import REGION

    assert found.network_for(REGION) is not None


TRAINER = "def train(model, *, seed, device, report):\n    return 0.5\n"


def test_a_trainer_of_the_users(tmp_path: Path) -> None:
    write_task(tmp_path)
    (tmp_path / "train.py").write_text("import blocks\n" + TRAINER)
    (tmp_path / "net.py").write_text(
        HEAD + "def build(num_classes):\n    assert num_classes is None\n    return nn.Linear(2, 2)\n"
    )
    keys = {"data": None, "batch_size": 64, "train": "train.py:train", "metric": "loss", "direction": "minimize"}
    table = {name: value for name, value in keys.items() if name not in ("data", "batch_size")}

    def trained() -> Task:
        found = PrepareTask(TaskTable.model_validate({"network": "net.py:build", **table}), tmp_path)(_Nobody())
        assert isinstance(found, Task), found
        return found

    first = trained()
    assert (first.num_classes, first.metric.sign, first.name) == (0, -1, "net-train")
    assert [name for name, _ in first.trainer.sources] == ["train.py", "blocks.py"]  # type: ignore[union-attr]
    assert not trainer_sees(first)
    (tmp_path / "train.py").write_text(TRAINER)
    assert _key(trained()) != _key(first)
    (tmp_path / "net.py").write_text(HEAD + "def build():\n    return nn.Linear(2, 2)\n" + TRAINER)
    table["train"] = "net.py:train"
    assert list(trainer_sees(trained())) == ["net.py"]


def test_a_network_that_wants_classes_where_there_are_none_is_told_so(tmp_path: Path) -> None:
    """With a trainer of one's own a network got None as num_classes, and its author "must be tuple of ints"."""
    write_task(tmp_path)
    (tmp_path / "train.py").write_text(TRAINER)
    (tmp_path / "net.py").write_text(HEAD + "def build(num_classes=10):\n    return nn.Linear(2, num_classes)\n")
    found = PrepareTask(TaskTable.model_validate({"network": "net.py:build", "train": "train.py:train"}), tmp_path)
    said = found(_Nobody())
    assert isinstance(said, Problem)
    assert said.text.endswith("called as build(num_classes=None), because a task with train has no classes")


def test_a_trainer_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """Its key changed from process to process: chance decided by which of two folders its file was named."""
    write_task(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("import blocks\n" + TRAINER)
    (tmp_path / "net.py").write_text(HEAD + "def build():\n    return nn.Linear(2, 2)\n")
    table = TaskTable.model_validate({"network": "net.py:build", "train": "code/train.py:train"})
    found = PrepareTask(table, tmp_path)(_Nobody())
    assert isinstance(found, Task), found
    assert found.trainer is not None
    assert [name for name, _ in found.trainer.sources] == ["code/train.py", "blocks.py"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "train.py has no function 'train'"),
        ("def train(model):\n    return 1\n", "but takes (model)"),
        ("import moon\n", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_trainer_that_cannot_be_called_is_refused(tmp_path: Path, text: str, said: str) -> None:
    write_task(tmp_path)
    (tmp_path / "train.py").write_text(text)
    table = TaskTable.model_validate({"network": "net.py:build", "train": "train.py:train"})
    found = PrepareTask(table, tmp_path)(_Nobody())
    assert isinstance(found, Problem)
    assert said in found.text


@pytest.mark.parametrize("value", ["good", None, True, [1.0]])
def test_a_score_must_be_a_number(value: Any) -> None:
    from benchmark.own_trainer import TrainerFailed, as_score

    with pytest.raises(TrainerFailed, match="no number"):
        as_score(value, "train.py:train")
    assert as_score(torch.tensor(2.0), "x") == 2.0


def test_a_recorded_task_comes_back_from_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log holds a user's tasks, so that a run can be verified without their files."""
    import json

    from agent.profiles import as_recorded, recorded_profile, same_tasks
    from benchmark.task import Profile

    write_task(tmp_path)
    found = task(tmp_path)
    profile = Profile("toys", (found,), (), "A toy.", (0.25,), baseline="x = 1\n", file=tmp_path / "toys.toml")
    record = json.loads(json.dumps(as_recorded(profile)))
    again = recorded_profile("toys", record)
    assert same_tasks(profile, again)
    assert again.visible == (found,)
    record["visible"][0]["network"]["layout"] = [["w", [10**6, 10**6]]]
    with pytest.raises(ValueError, match="impossible parameters"):
        recorded_profile("toys", record)
    del record["visible"]
    with pytest.raises(ValueError, match="record of its tasks"):
        recorded_profile("toys", record)
    other = dataclasses.replace(profile, visible=(dataclasses.replace(found, title="other"),))
    assert not same_tasks(profile, other)
