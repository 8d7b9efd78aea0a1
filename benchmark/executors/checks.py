"""Compares the machines of a cluster with each other and with this one, before anything is trained."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmark.executors.probe import facts
from benchmark.executors.wire import parsed

if TYPE_CHECKING:
    from pathlib import Path

    from benchmark.executors.seam import Parent

Facts = Mapping[str, str | None]
_COMPARED = ("initsearch", "content", "torch", "python")


@dataclass(frozen=True)
class DescribeData:
    """A call that returns the SHA-256 of data sets as they are loaded: name → hash, or why it cannot be loaded."""

    names: tuple[str, ...]
    data_root: Path | None = None

    def __call__(self, parent: Parent) -> dict[str, str]:
        import hashlib

        from benchmark.data import DataError, load_dataset

        found = {}
        for name in self.names:
            try:
                data = load_dataset(name, data_root=self.data_root)
            except DataError as error:
                found[name] = f"missing: {error}"
                continue
            digest = hashlib.sha256()
            for tensor in (data.train_images, data.train_labels, data.test_images, data.test_labels):
                digest.update(tensor.contiguous().numpy().tobytes())
            found[name] = digest.hexdigest()
        return found


def read_facts(text: str | bytes) -> Facts:
    """The facts of a node from its JSON. Raises ValueError for anything else."""
    found = parsed(text[:10_000])
    if not isinstance(found, dict):
        raise ValueError("no object")
    return {str(name): None if value is None else str(value)[:200] for name, value in found.items()}


def differences(nodes: Mapping[str, Facts]) -> list[str]:
    """Sentences: what differs on which node from this machine. `nodes`: name of a node → its facts."""
    here = _here()
    found = []
    for node, there in nodes.items():
        if not there:
            found.append(f"{node} did not answer")
            continue
        if there.get("content") is None:
            found.append(
                f"{node} does not have this package: install initsearch {here['initsearch'] or ''} there".rstrip()
            )
            continue
        if there.get("torch") is None:
            found.append(f"{node} does not have torch")
            continue
        unequal = [name for name in _COMPARED if not _same(name, here.get(name), there.get(name))]
        found += [f"{node} has {_word(name)} {there.get(name)}, this machine {here.get(name)}" for name in unequal]
    return found


@functools.cache
def _here() -> Facts:
    return read_facts(facts())


def _same(name: str, here: str | None, there: str | None) -> bool:
    """Equal, but for the third number of a Python version."""
    if name == "python" and here and there:
        return here.split(".")[:2] == there.split(".")[:2]
    return here == there


def _word(name: str) -> str:
    return {"content": "other files of initsearch, with the hash", "python": "Python"}.get(name, name)
