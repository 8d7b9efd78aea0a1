"""The format of the embedded data: four uint8 arrays in one bzip2 file, and a JSON manifest with all checksums.

bzip2's encoder has not changed in decades, so the same arrays give the same file on every machine. zlib and xz do not
guarantee that. The file consists of independent streams, which threads unpack in parallel; `bunzip2` reads it too.
"""

from __future__ import annotations

import bz2
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.dataset import ARRAY_NAMES, DataError, UInt8Array

_STREAM_BYTES = 890_000
"""Unpacked bytes per stream: just below bzip2's largest block. Longer streams compress no better."""


@dataclass(frozen=True)
class Packed:
    """A data set as the contents of its files `<name>.bz2` and `<name>.json`."""

    blob: bytes
    manifest: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write both files into `folder`."""
        name = self.manifest["name"]
        (folder / f"{name}.bz2").write_bytes(self.blob)
        (folder / f"{name}.json").write_bytes(render_manifest(self.manifest))

    def differences(self, folder: Path) -> list[str]:
        """Return which files in `folder` differ from this set; empty if all bytes are equal."""
        name = self.manifest["name"]
        wanted = {f"{name}.bz2": self.blob, f"{name}.json": render_manifest(self.manifest)}
        found = []
        for filename, content in wanted.items():
            path = folder / filename
            if not path.is_file():
                found.append(f"{path}: missing")
            elif path.read_bytes() != content:
                found.append(f"{path}: differs from what the sources give now")
        return found


def render_manifest(manifest: Mapping[str, Any]) -> bytes:
    """Return the manifest as UTF-8 JSON, always in the same form."""
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()


def pack(arrays: Mapping[str, UInt8Array], *, name: str, **facts: Any) -> Packed:
    """Pack the uint8 `arrays` called `ARRAY_NAMES`; `facts` (class_names, licence, …) go into the manifest."""
    flat = b"".join(arrays[key].tobytes() for key in ARRAY_NAMES)
    streams = [bz2.compress(flat[i : i + _STREAM_BYTES], 9) for i in range(0, len(flat), _STREAM_BYTES)]
    blob = b"".join(streams)
    manifest = {
        "name": name,
        **facts,
        "file": {"bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest(), "streams": [*map(len, streams)]},
        "arrays": {
            key: {"shape": list(arrays[key].shape), "sha256": hashlib.sha256(arrays[key].tobytes()).hexdigest()}
            for key in ARRAY_NAMES
        },
    }
    return Packed(blob, manifest)


def unpack(name: str, folder: Path) -> tuple[dict[str, UInt8Array], dict[str, Any]]:
    """Read the arrays and the manifest of the set `name` in `folder`. Check the file and the arrays.

    Raises DataError if a file is missing, cannot be read, or does not match the manifest.
    """
    blob_path, manifest_path = folder / f"{name}.bz2", folder / f"{name}.json"
    repair = "the installation is damaged: install the package again"
    try:
        manifest = json.loads(manifest_path.read_bytes())
        blob = blob_path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the embedded data set {name} in {folder} ({error}); {repair}") from error
    if hashlib.sha256(blob).hexdigest() != manifest["file"]["sha256"]:
        raise DataError(f"{blob_path} is corrupt: its sha256 is not the one in {manifest_path.name}; {repair}")
    ends = list(accumulate(manifest["file"]["streams"]))
    with ThreadPoolExecutor() as pool:
        parts = pool.map(lambda span: bz2.decompress(blob[slice(*span)]), zip([0, *ends], ends, strict=False))
        # torch requires writable memory, hence the bytearray.
        flat = np.frombuffer(bytearray().join(parts), dtype=np.uint8)
    arrays, start = {}, 0
    for key in ARRAY_NAMES:
        shape = manifest["arrays"][key]["shape"]
        stop = start + int(np.prod(shape))
        part = flat[start:stop]
        if hashlib.sha256(part.data).hexdigest() != manifest["arrays"][key]["sha256"]:
            raise DataError(f"{key} in {blob_path} is corrupt: its sha256 is not the one in the manifest; {repair}")
        arrays[key] = part.reshape(shape)
        start = stop
    return arrays, manifest
