"""Which rule set which parameter, and what the parameter looks like afterwards."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmark.initializers.all_or_nothing import all_or_nothing


@dataclass(frozen=True)
class ParameterLog:
    """One parameter after initialisation.

    `rule` is the last rule that set it, with its arguments. `is_set` says that there was one: a rule named the
    parameter, or its checksum changed. mean, std (population) and norm are taken in float64, 0.0 for a parameter
    without elements. `checksum` covers dtype, shape and every bit.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    rule: str
    is_set: bool
    mean: float
    std: float
    norm: float
    checksum: str

    def __str__(self) -> str:
        return f"{self.name} - {torch.Size(self.shape)}: \n{self.rule}"


@dataclass(frozen=True)
class InitLog:
    """Every parameter in the module's order, under each of its names, and warnings about the config or the module."""

    parameters: tuple[ParameterLog, ...]
    warnings: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[ParameterLog]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def __getitem__(self, name: str) -> ParameterLog:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(name)

    @property
    def unset(self) -> tuple[str, ...]:
        """The names of the parameters that nothing has set."""
        return tuple(parameter.name for parameter in self.parameters if not parameter.is_set)

    def as_json(self) -> dict[str, Any]:
        """Plain data, for `--json`."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        warnings = (f"warning: {warning}" for warning in self.warnings)
        return "\n\n".join([*warnings, *(str(parameter) for parameter in self.parameters)])


def checksum(tensor: torch.Tensor) -> str:
    """16 hex digits over dtype, shape and bits."""
    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)} ".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class Recorder:
    """Follows the parameters of a module from before the first rule to after the last."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._before = self._checksums(module)
        self._rules: dict[str, str] = {}
        self._names: dict[int, list[str]] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            self._names.setdefault(id(parameter), []).append(name)

    def named(self, tensors: list[torch.Tensor], rule: str) -> None:
        """Note that a rule has set these tensors, whether or not they look different now."""
        for tensor in tensors:
            for name in self._names.get(id(tensor), ()):
                self._rules[name] = rule

    def has_set(self, prefix: str) -> bool:
        """Whether a rule has set a parameter whose name begins so."""
        return any(name.startswith(prefix) for name in self._rules)

    def changed(self, prefix: str, action: Callable[[], object], rule: str) -> None:
        """Run the action and note every parameter below `prefix` that it wrote to, zeros over zeros included."""
        submodule = self._module.get_submodule(prefix)
        before, writes = self._checksums(submodule), self._writes(submodule)
        action()
        after = self._writes(submodule)
        dot = f"{prefix}." if prefix else ""
        for name, value in self._checksums(submodule).items():
            if before.get(name) != value or writes.get(name) != after[name]:
                self._rules[dot + name] = rule

    def finish(self, warnings: list[str], untouched: str) -> InitLog:
        """The log; `untouched` is the sentence for parameters that nothing has set."""
        lines = []
        for name, parameter in self._module.named_parameters(remove_duplicate=False):
            value = checksum(parameter)
            rule = self._rules.get(name)
            is_set = rule is not None or self._before.get(name) != value
            values = parameter.detach().double()
            empty = parameter.numel() == 0
            lines.append(
                ParameterLog(
                    name=name,
                    shape=tuple(parameter.shape),
                    dtype=str(parameter.dtype).removeprefix("torch."),
                    rule=rule if rule is not None else "set by no named rule" if is_set else untouched,
                    is_set=is_set,
                    mean=0.0 if empty else values.mean().item(),
                    std=0.0 if empty else values.std(correction=0).item(),
                    norm=values.norm().item(),
                    checksum=value,
                )
            )
        return InitLog(tuple(lines), tuple(warnings))

    @staticmethod
    def _checksums(module: nn.Module) -> dict[str, str]:
        return {name: checksum(value) for name, value in module.named_parameters(remove_duplicate=False)}

    @staticmethod
    def _writes(module: nn.Module) -> dict[str, int]:
        """torch's count of operations in place; writing through `.data` does not count, which the checksum sees."""
        named = module.named_parameters(remove_duplicate=False)
        return {name: 0 if value.is_inference() else value._version for name, value in named}


def log_function(module: nn.Module, function: Callable[[nn.Module], object], rule: str) -> InitLog:
    """Run any initialiser of a whole network, such as a recipe, and log what it set, under the sentence `rule`.

    The parameters are poisoned with NaN first; one that is still NaN afterwards has not been set. If the function
    raises, the module is put back as it was.
    """
    with all_or_nothing(module):
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.is_floating_point():
                    parameter.fill_(math.nan)
        recorder = Recorder(module)
        function(module)
        recorder.named([p for p in module.parameters() if p.isfinite().all()], rule)
        return recorder.finish([], "still NaN: not set")
