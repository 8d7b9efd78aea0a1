"""The bytes that a candidate returns, of which the number is known beforehand, as named and finite tensors.

Importing this module imports neither torch nor numpy.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Layout = list[tuple[str, tuple[int, ...]]]
"""Name and shape of every parameter, in the model's order."""
_POISON = 0x7FC0BAD1  # sandbox.worker.POISON; repeated here because importing that module imports torch


def size_of(layout: Layout) -> int:
    """Return the number of bytes of all parameters."""
    return 4 * sum(math.prod(shape) for _, shape in layout)


@dataclass(frozen=True)
class Payload:
    """The values of all parameters in order, little-endian float32: `size_of(layout)` bytes."""

    data: memoryview
    layout: Layout

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Return the parameters by name, in the model's order. They are views, not copies."""
        ends = list(itertools.accumulate(math.prod(shape) for _, shape in self.layout))
        starts = [0, *ends[:-1]]
        values = self._values()
        return {
            name: values[start:end].reshape(shape)
            for (name, shape), start, end in zip(self.layout, starts, ends, strict=True)
        }

    def fault(self) -> tuple[str, str] | None:
        """Return kind and message of the failure if a value is not set or not finite, else None."""
        import numpy as np

        if np.isfinite(self._values()).all():
            return None
        unset, broken = [], []
        for name, part in self.tensors().items():
            if (part.view("<u4") == _POISON).any():
                unset.append(name)
            elif not np.isfinite(part).all():
                broken.append(name)
        if unset:
            hint = "every parameter starts as NaN: set it, do not scale it"
            return "unset_parameter", f"not or not wholly set: {_listed(unset)} ({hint})"
        return "not_finite", f"NaN or infinite values in {_listed(broken)}"

    def sha256(self) -> str:
        """Return the SHA-256 of the bytes, hexadecimal. 250,000 values take about a millisecond."""
        return hashlib.sha256(self.data).hexdigest()

    def write(self, out: Path) -> None:
        """Write a safetensors file beside `out` and rename it into place. A link at `out` is replaced, not followed.

        The safetensors library is not used: it copies all data twice and raises no OSError on a full disk.
        Source: https://github.com/huggingface/safetensors#format.
        """
        header: dict[str, Any] = {}
        end = 0
        for name, shape in self.layout:
            start, end = end, end + 4 * math.prod(shape)
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # aligns the values
        write_atomically(out, len(text).to_bytes(8, "little"), text, self.data, durable=False)

    def _values(self) -> NDArray[Any]:
        import numpy as np

        return np.frombuffer(self.data, dtype="<f4")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
